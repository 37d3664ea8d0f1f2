"""What lies in run folders, changed: recipes, results, lists of files, checkpoints, settings of processors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from transformers import TrainerState

from fuzz.changes import changed_bytes, changed_values, json_like, places, value_at
from fuzz.trials import Refused, cases, tried
from perceiver_io.cli.main import main
from perceiver_io.running import TrainingRecipe, parse_recipe, read_recipe_file
from perceiver_io.running.checkpoints import checkpoint_state
from perceiver_io.running.find_task import find_task, get_task
from perceiver_io.running.manifest import Manifest
from perceiver_io.running.recipe_parsing import recipe_parser
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.tasks import image_classification as ic

TASK = "image-classification"
RECIPE = get_task(TASK).recipe_class
PARSER = recipe_parser(RECIPE)
TEXT = Path(ic.__file__).with_name("recipes").joinpath("digits.yaml").read_text()
SETTINGS = {
    "task": TASK,
    "dataset": "digits",
    "variant": "tiny",
    "learning_rate": 1e-3,
    "num_epochs": 3,
    "max_steps": None,
    "batch_size": 8,
    "optimizer": "lamb",
    "compile": False,
    "size": [8, 8],
    "best_metric": "accuracy",
    "beta2": 0.99,
    "model": {"encoder": {"num_latents": 3}, "inputs": {"image": {"num_bands": 2}}},
}
WORDS = [
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b": ",
        b"\n",
        b"\n  ",
        b"|\n",
        b">\n",
        b"!!",
        b"!!python/name:os.system ",
    ),
    *(
        b"!!binary aGk=",
        b"!!timestamp ",
        b"2020-01-01",
        b"1e3",
        b"1:30:00",
        b"0x1F",
        b".nan",
        b".inf",
        b"yes",
        b"~",
        b"null",
    ),
    *(
        b"%YAML 9.9\n",
        b"---\n",
        b"...\n",
        b"\t",
        b"#",
        b"'",
        b'"',
        b"\\x1b",
        b"\xff",
        b"\xe2\x80\xae",
        b"learning_rate",
        b"!!set {a}",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of digits with its processor, a recipe, and a picture."""
    folder = tmp_path_factory.mktemp("run")
    config = ic.config(
        size=(8, 8),
        num_classes=10,
        variant="tiny",
        image={"num_bands": 2, "image_channels": 1},
        encoder={"num_latents": 3, "latent_channels": 8, "num_blocks": 1, "num_cross_attends": 1},
    )
    ic.PerceiverIOForImageClassification(config).save_pretrained(folder)
    ic.PerceiverIOImageProcessor(size={"height": 8, "width": 8}, num_channels=1).save_pretrained(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    Image.new("L", (8, 8)).save(folder / "x.png")
    assert main(["predict", str(folder), str(folder / "x.png")]) == 0
    return folder


def same_values(first: Any, second: Any) -> bool:
    """Equal, NaN being NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same_values(first[name], second[name]) for name in first)
    if isinstance(first, (list, tuple)):
        return (
            type(first) is type(second) and len(first) == len(second) and all(map(same_values, first, second))
        )
    both = isinstance(first, float) and isinstance(second, float)
    return first == second or (both and math.isnan(first) and math.isnan(second))


def check_recipe(content: bytes, path: Path) -> None:
    """The values are those that PyYAML reads; the recipe that they make survives being written."""
    path.write_bytes(content)
    values = tried(read_recipe_file, path)
    if isinstance(values, Refused):
        return
    expected = yaml.safe_load(content.decode("utf-8")) or {}
    expected.pop("provided_by", None)
    assert same_values(values, expected)
    values.pop("task", None)
    recipe = tried(parse_recipe, RECIPE, values=values, parser=PARSER)
    if isinstance(recipe, TrainingRecipe):
        path.write_text(recipe.to_yaml(task=TASK), encoding="utf-8")
        again = parse_recipe(RECIPE, values=read_recipe_file(path, task=TASK), parser=PARSER)
        assert same_values(again.settings(), recipe.settings())


@cases(few=40)
@given(content=changed_bytes(TEXT.encode(), pieces=WORDS))
@example(content=TEXT.encode())
@example(content=b"size: 1:30")
@example(content=b"dataset: " + b"long " * 100)  # no file can be called so
def test_texts_of_recipes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_recipe(content, tmp_path_factory.getbasetemp() / "text.yaml")


@cases(few=40)
@given(values=changed_values(SETTINGS, most=3), style=st.sampled_from([None, True, False]))
def test_values_of_recipes(values: Any, style: bool | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        content = yaml.safe_dump(values, default_flow_style=style, allow_unicode=True).encode()
    except (UnicodeEncodeError, yaml.YAMLError):  # half of a surrogate pair
        content = json.dumps(values).encode()
    check_recipe(content, tmp_path_factory.getbasetemp() / "values.yaml")


@cases(few=20)
@given(values=changed_values(SETTINGS) | json_like())
def test_the_task_of_a_folder(values: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "found"
    path.mkdir(exist_ok=True)
    (path / "recipe.yaml").write_text(json.dumps(values))  # which is YAML as well
    task = tried(find_task, path)
    if not isinstance(task, Refused):
        assert task.name == values["task"]


METRICS = {
    "test": {"loss": 0.5, "accuracy": 0.75},
    "confusion": [[1, 2], [3, 4]],
    "best_step": 7,
    "note": None,
}


@cases(few=40)
@given(
    values=changed_values(METRICS), content=changed_bytes(json.dumps(METRICS).encode()), whole=st.booleans()
)
def test_results(values: Any, content: bytes, whole: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = RunFolder(tmp_path_factory.getbasetemp())
    run.metrics_file.write_bytes(json.dumps(values).encode() if whole else content)
    found = tried(run.metrics)
    if not isinstance(found, Refused):
        assert found == json.loads(run.metrics_file.read_text())
    elif whole:
        assert not isinstance(values, dict)


STATE = {
    "best_global_step": 20,
    "best_metric": 0.5,
    "best_model_checkpoint": "runs/x/checkpoints/checkpoint-20",
    "epoch": 2.0,
    "eval_steps": 10,
    "global_step": 20,
    "is_hyper_param_search": False,
    "is_local_process_zero": True,
    "is_world_process_zero": True,
    "log_history": [{"epoch": 1.0, "loss": 2.5, "step": 10}, {"epoch": 2.0, "grad_norm": 1.5, "step": 20}],
    "logging_steps": 10,
    "max_steps": 40,
    "num_input_tokens_seen": 0,
    "num_train_epochs": 4,
    "save_steps": 10,
    "stateful_callbacks": {"TrainerControl": {"args": {"should_log": False}, "attributes": {}}},
    "total_flos": 0,
    "train_batch_size": 2,
    "trial_name": None,
    "trial_params": None,
}


@cases(few=40)
@given(values=changed_values(STATE), content=changed_bytes(json.dumps(STATE).encode()), whole=st.booleans())
@example(values={"\x7f": 1}, content=b"", whole=True)  # was printed as it stands
@example(values={}, content=b"", whole=True)  # was finished, as if all had been trained
@example(values={**STATE, "log_history": [{"loss": math.nan}]}, content=b"", whole=True)
def test_states_of_training(
    values: Any, content: bytes, whole: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "checkpoint-20"
    folder.mkdir(exist_ok=True)
    file = folder / "trainer_state.json"
    file.write_bytes(json.dumps(values).encode() if whole else content)
    state = tried(checkpoint_state, folder)
    if not isinstance(state, Refused):
        assert 1 <= state.global_step <= state.max_steps
        assert same_values(vars(state), vars(TrainerState.load_from_json(str(file))))


FILES = {"format": 1, "files": ["config.json", "recipe.yaml", "checkpoints/", "model.safetensors"]}
HARMFUL = ["../outside", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "checkpoints//", "\x00", "\x1b[2J"]


@cases(few=40)
@given(
    values=changed_values(FILES)
    | st.lists(st.sampled_from(HARMFUL), min_size=1, max_size=3).map(lambda names: {**FILES, "files": names})
)
def test_lists_of_files(values: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is overwritten is in the list: nothing outside the folder, nothing else in it."""
    base = tmp_path_factory.getbasetemp() / "listed"
    folder = base / "run"
    (folder / "inner").mkdir(parents=True, exist_ok=True)
    for path in (
        base / "outside",
        folder / "config.json",
        folder / "mine.txt",
        folder / "inner" / "mine.txt",
    ):
        path.write_text("x")
    manifest = Manifest(folder)
    manifest.file.write_text(json.dumps(values))
    names = tried(manifest.names)
    assert isinstance(tried(manifest.strangers), Refused) == isinstance(names, Refused)
    removed = tried(manifest.remove_files)
    assert (base / "outside").exists()
    listed = [] if isinstance(names, Refused) or isinstance(removed, Refused) else names
    for name in ("config.json", "mine.txt"):
        assert (folder / name).exists() or name in names
    assert (folder / "inner" / "mine.txt").exists() or "inner/" in names
    assert not any((folder / name).is_file() for name in listed if not name.endswith("/"))


def processor_files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if "processor" in file.name}


@cases(few=10)
@given(data=st.data())
def test_commands_on_a_changed_run(
    data: st.DataObject,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of a run's files is another: predict and evaluate say what the model says, or one short line."""
    changed = tmp_path_factory.getbasetemp() / "changed-run"
    changed.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (changed / file.name).unlink(missing_ok=True)
        (changed / file.name).symlink_to(file)
    name = data.draw(
        st.sampled_from(
            ["config.json", "preprocessor_config.json", "recipe.yaml", "model.safetensors", "x.png"]
        )
    )
    content = (folder / name).read_bytes()
    if name.endswith(".json"):
        values = data.draw(changed_values(json.loads(content)))
        places_of_sizes = [place for place in places(values) if place and place[-1] in ("height", "width")]
        # What a picture is resized to is what the file declares: any number of pixels.
        if any(isinstance(size := value_at(values, place), int) and size > 1000 for place in places_of_sizes):
            return
        content = json.dumps(values).encode()
    elif name.endswith(".yaml"):
        content = json.dumps(data.draw(changed_values(SETTINGS))).encode()
    else:
        content = data.draw(changed_bytes(content, most=1))
    (changed / name).unlink()
    (changed / name).write_bytes(content)
    with torch.random.fork_rng(devices=[]):
        code = tried(main, ["predict", str(changed), str(changed / "x.png")])
    printed = capsys.readouterr()
    lines = printed.out.splitlines() if code == 0 else printed.err.splitlines()
    assert code in (0, 2) and len(lines[-1]) < 2_000 and all(line.isprintable() for line in lines)
    assert (f"{changed}" in lines[-1]) if code == 0 else ("error: " in printed.err), lines

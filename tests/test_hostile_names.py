"""Names in strangers' files that are no short names: nothing is imported and nothing runs; a short message says so."""

import itertools
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModel, AutoProcessor

import perceiver_io as pio
from perceiver_io import PerceiverIOConfig
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.cli import main
from perceiver_io.data import Splits
from perceiver_io.plugins import PROVIDED_BY
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.running import parse_recipe
from perceiver_io.running.find_task import find_task, task_of_class
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.tasks import point_cloud_classification as pcc
from perceiver_io.tasks.point_cloud_classification.task import (
    PointCloudClassificationRecipe,
    PointCloudClassificationTask,
)

CANARY = "hostile_canary"
# Where a name could lead that is taken for a module, a class, a file, or something of another kind.
NAMES = {
    "a function": "os.system",
    "a module": CANARY,
    "a class": f"{CANARY}.Thing",
    "an entry point's value": f"{CANARY}:Thing",
    "one of the toolkit's": "perceiver_io.adapters.image:ImageAdapter",
    "a relative module": f".{CANARY}",
    "a path": f"../{CANARY}",
    "a file": f"./{CANARY}.py",
    "a hub id": f"{CANARY}/thing",
    "a name of another kind": "canary",
    "a call": "__import__('os').system('true')",
    "long": "a" * 100_000,
    "empty": "",
    "blank": " cloud",
    "capitals": "CLOUD",
    "NUL": "cloud\x00",
    "line": "cloud\n",
    "terminal": "\x1b]0;owned\x07\x1b[2J\x9b31mcloud",
    "look-alike": "cl\u043eud",  # Cyrillic
    "right to left": "\u202eduolc",
    "zero width": "cloud\u200b",
    "surrogate": "cloud\ud800",
}
OTHERS: dict[str, Any] = {
    "null": None,
    "number": 5,
    "fraction": 0.5,
    "true": True,
    "list": ["cloud"],
    "object": {"type": "cloud"},
}
VALUES = {**NAMES, **OTHERS}
KINDS = ("adapters", "decoders", "processors", "tasks")
LOADERS = [pio.from_pretrained, AutoModel.from_pretrained, PerceiverIOConfig.from_pretrained]
DATA = Splits(train=[{}], validation=None, test=[{}], class_names=("a", "b"))
Check = Callable[..., None]
NOT_READ = (ValueError, OSError)
LONGEST = 2_000
CONFIG, PROCESSOR, RECIPE = "config.json", "processor_config.json", "recipe.yaml"


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """`transformers` logs a type as it stands, and what pytest-xdist reports of a test must be text."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a training leaves it, without checkpoints; all that reading it imports is imported."""
    folder = tmp_path_factory.mktemp("run")
    config = pcc.config(num_classes=2, variant="nano")
    pcc.PerceiverIOForPointCloudClassification(config).save_pretrained(folder)
    clouds = dict.fromkeys(("cloud", "other"), PointCloudProcessor())  # of one alone, its own file is saved
    PerceiverIOProcessor(clouds).save_pretrained(folder)
    recipe = PointCloudClassificationRecipe(dataset="solids")
    (folder / RECIPE).write_text(recipe.to_yaml(task=find_task(folder).name))
    for load in (*LOADERS, AutoProcessor.from_pretrained):
        load(folder)
    assert isinstance(find_task(folder), PointCloudClassificationTask)
    assert task_of_class("NoSuchModel") is None  # which looks at all tasks and published layouts
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "run"))


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Calls what must fail with a short message of plain characters, and import nothing.

    A module lies around that leaves a trace if anything imports it; an installed package announces it as of every kind
    but the one that is asked for.
    """
    trace = tmp_path / "trace"
    (tmp_path / f"{CANARY}.py").write_text(f"open({str(trace)!r}, 'w').close()\nThing = dict\n")
    info = tmp_path / f"{CANARY}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {CANARY}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def check(
        call: Callable[..., Any], *arguments: Any, kind: str | None = None, harmless: bool = False
    ) -> None:
        groups = [f"perceiver_io.{name}" for name in KINDS if name != kind]
        text = "".join(f"[{group}]\ncanary = {CANARY}:Thing\n" for group in groups)
        (info / "entry_points.txt").write_text(text)
        assert all("canary" in entry_points(group=group).names for group in groups)
        before, message = set(sys.modules), ""
        try:
            call(*arguments)
            assert harmless
        except NOT_READ as error:
            message = str(error)
            assert message
        assert set(sys.modules) - before == set(), message
        assert not trace.exists(), message
        assert len(message) < LONGEST, message[:LONGEST]
        assert message.replace("\n", "").isprintable(), ascii(message)

    return check


def nested(place: Sequence[str], value: Any) -> Any:
    """Returns a value that lies under some names within each other."""
    for name in reversed(place):
        value = {name: value}
    return value


def replace(file: Path, *place: str | int, value: Any) -> None:
    """Puts a value somewhere into a file of JSON or YAML."""
    content = (yaml.safe_load if file.suffix == ".yaml" else json.loads)(file.read_text())
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    file.write_text(json.dumps(content))  # which is YAML as well


def test_ten_megabytes(folder: Path, check: Check) -> None:
    huge = "a" * 10_000_000
    replace(folder / PROCESSOR, "inputs", "other", "type", value=huge)
    check(PerceiverIOProcessor.from_pretrained, folder, kind="processors")
    for place in (("outputs", "label", "type"), ("inputs", "cloud", huge), ("inputs", "cloud", "type")):
        replace(folder / CONFIG, *place, value=huge)
        check(pio.from_pretrained, folder)


@pytest.mark.parametrize("load", LOADERS, ids=["toolkit", "auto-classes", "configuration"])
def test_whoever_loads(load: Any, folder: Path, check: Check) -> None:
    for name in ("a function", "long", "terminal", "list"):
        replace(folder / CONFIG, "inputs", "cloud", "type", value=VALUES[name])
        check(load, folder, kind="adapters")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("adapters", ("inputs", "cloud", "type")),
        ("decoders", ("outputs", "label", "type")),
        (None, ("encoder", "type")),
        (None, ("model_type",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_types_in_config_json(kind: str | None, place: tuple[str, ...], folder: Path, check: Check) -> None:
    for value in VALUES.values():
        replace(folder / CONFIG, *place, value=value)
        check(PerceiverIOConfig.from_pretrained, folder, kind=kind)


def test_classes_of_models(folder: Path, check: Check) -> None:
    (folder / RECIPE).unlink()
    for value in VALUES.values():
        replace(folder / CONFIG, "architectures", value=[value])
        check(pio.from_pretrained, folder)
        check(find_task, folder, kind="tasks")  # it compares with the models of every installed task


def test_names_of_inputs_and_outputs(folder: Path, check: Check) -> None:
    content = json.loads((folder / CONFIG).read_text())
    for part, name in itertools.product(("inputs", "outputs"), NAMES.values()):
        (only,) = content[part].values()
        changed = {**content, part: {name: only}}
        check(PerceiverIOConfig.from_dict, changed, harmless=name.isidentifier())


def test_names_of_settings(check: Check, folder: Path) -> None:
    content = json.loads((folder / CONFIG).read_text())
    for name in NAMES.values():
        check(PerceiverIOConfig.from_dict, {**content, name: 1})
        cloud = {**content["inputs"]["cloud"], name: 1}
        check(PerceiverIOConfig.from_dict, {**content, "inputs": {"cloud": cloud}})


def test_code_that_comes_with_a_model_is_left_alone(folder: Path, check: Check) -> None:
    """`auto_map` is how a folder asks `transformers` to run its modules."""
    (folder / f"{CANARY}.py").write_text("raise SystemExit('imported')")
    classes = {"AutoModel": f"{CANARY}.Thing", "AutoConfig": f"{CANARY}.Thing"}
    replace(folder / CONFIG, "auto_map", value=classes)
    for load in LOADERS:
        check(load, folder)


def test_types_of_processors(folder: Path, check: Check) -> None:
    for value in VALUES.values():
        replace(folder / PROCESSOR, "inputs", "other", "type", value=value)
        check(PerceiverIOProcessor.from_pretrained, folder, kind="processors")


def test_tasks_of_recipes(folder: Path, check: Check) -> None:
    for value in VALUES.values():
        replace(folder / RECIPE, "task", value=value)
        check(find_task, folder, kind="tasks")


def build(settings: dict[str, Any]) -> None:
    """Does what training does with the settings of a recipe before there is a model."""
    recipe = parse_recipe(PointCloudClassificationRecipe, values=settings)
    recipe.model_settings.check(PointCloudClassificationTask().config(recipe, DATA))


@pytest.mark.parametrize(
    "place",
    [
        ("variant",),
        ("optimizer",),
        ("num_epochs",),
        ("cloud", "normalize"),
        ("cloud", "max_points"),
        ("model", "encoder", "activation"),
    ],
    ids=".".join,
)
def test_settings_of_recipes(place: tuple[str, ...], check: Check) -> None:
    harmless = {"num_epochs": [None, 5], "max_points": [5]}.get(place[-1], [])
    for value in VALUES.values():
        settings = nested(place, value)
        check(build, settings, harmless=value in harmless and not isinstance(value, bool))


@pytest.mark.parametrize("place", [(), ("cloud",), ("model",), ("model", "encoder")], ids=".".join)
def test_names_of_settings_of_recipes(place: tuple[str, ...], check: Check) -> None:
    for name in NAMES.values():
        check(build, nested((*place, name), 1))


@pytest.mark.parametrize("group", ["inputs", "outputs"])
def test_names_of_parts_in_recipes(group: str, check: Check) -> None:
    for name in NAMES.values():
        check(build, nested(("model", group, name, "num_bands"), 2))


@pytest.mark.parametrize("command", ["info", "evaluate", "predict"])
def test_the_command(command: str, folder: Path, check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [command, str(folder), *(["x.npy"] if command == "predict" else [])]

    def run() -> None:
        assert main(arguments) == 2
        raise ValueError(capsys.readouterr().err)

    for name in ("a function", "long", "terminal", "NUL", "surrogate", "right to left"):
        replace(folder / CONFIG, "inputs", "cloud", "type", value=VALUES[name])
        replace(folder / RECIPE, "task", value=VALUES[name])
        check(run)


def test_messages_that_quote_anything_else(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        assert main(["info", f"no {NAMES['terminal']} folder"]) == 2
        raise ValueError(capsys.readouterr().err)

    check(run)


ODD_PROVIDERS = (
    "evil==1.0 --target x",
    "-e 1.0",
    "name",
    "name 1.0 and more",
    "name\n1.0",
    "n\u0430me 1.0",
    f"{'n' * 101} 1.0",
    f"name {'1' * 51}",
)


def test_odd_providers_are_passed_over(folder: Path, check: Check) -> None:
    """They are for one message alone: what is known loads, and what is not is not said to come from there."""
    config = json.loads((folder / CONFIG).read_text())
    processor = json.loads((folder / PROCESSOR).read_text())
    expected = PerceiverIOConfig.from_dict(config)
    for value in (*VALUES.values(), *ODD_PROVIDERS):
        config["inputs"]["cloud"] |= {"type": "point-cloud", PROVIDED_BY: value}
        processor["inputs"]["other"][PROVIDED_BY] = value
        replace(folder / RECIPE, PROVIDED_BY, value=value)
        assert PerceiverIOConfig.from_dict(config) == expected
        assert PerceiverIOProcessor.from_dict(processor).names == ["cloud", "other"]
        assert find_task(folder).name == "point-cloud-classification"
        assert PROVIDED_BY not in RunFolder(folder).recipe()
        config["inputs"]["cloud"]["type"] = "no-such"
        with pytest.raises(
            ValueError, match=r"There is no adapter 'no-such'.* in the group 'perceiver_io.adapters'\.$"
        ):
            PerceiverIOConfig.from_dict(config)

"""--overwrite removes what a run wrote, and nothing else, ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from perceiver_io.cli import main
from perceiver_io.running import DatasetRecipe, RunFolder, TrainingRecipe, runner

from . import toy, toy_task


def finished(path: Path) -> RunFolder:
    run = RunFolder(path)
    with run.held():
        run.create(TrainingRecipe(), task="toys")
        (run.checkpoints / "checkpoint-5").mkdir()
        (run.checkpoints / "checkpoint-5" / "model.safetensors").touch()
        (run.checkpoints / "runs").mkdir()
        run.write_model(toy.ToyModel(toy.ToyConfig()))
        run.write_text("picture.png", "png")
        run.write_metrics({})
    return run


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def overwrite(path: Path) -> None:
    run = RunFolder(path)
    recipe = TrainingRecipe(overwrite=True, seed=3)
    run.check(recipe)
    run.create(recipe, task="toys")


def test_all_that_a_run_wrote_is_replaced(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    overwrite(run.path)
    assert run.recipe()["seed"] == 3
    hidden = {".perceiver-io-run.json", ".perceiver-io-run.lock"}
    assert {path.name for path in run.path.iterdir()} - hidden == {"recipe.yaml", "checkpoints"}
    assert list(run.checkpoints.iterdir()) == []


def test_a_project_with_a_recipe_is_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("photos/cat/1.png", "photos/dog/1.png", ".git/HEAD"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("years of work")
    (tmp_path / "recipe.yaml").write_text("task: image-classification\ndataset: photos\n")
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = "train image-classification --config recipe.yaml --output-dir . --overwrite".split()
    assert main(command) == 2
    assert "recipe.yaml lies in it, which is read" in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    with pytest.raises(
        ValueError, match=r"no \.perceiver-io-run\.json.*earlier versions.*remove it yourself"
    ):
        overwrite(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".git/HEAD",
        "checkpoints/mine.txt",
        "checkpoints/checkpoint-5/notes.txt",
        "checkpoints/checkpoint-5/model.json/thesis.tex",
        "checkpoints/runs/notes.txt",
        "checkpoints/runs/Nov24/notes.txt",
        ".partial-thesis",
        "photos/cat/1.png",
    ],
)
def test_what_the_run_did_not_write_is_named(tmp_path: Path, name: str) -> None:
    run = finished(tmp_path / "run")
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).write_text("years of work")
    before = snapshot(tmp_path)
    stranger = name.removesuffix("/thesis.tex") if name.startswith("checkpoints") else name.partition("/")[0]
    with pytest.raises(ValueError, match=f"the run in it did not write {stranger}"):
        overwrite(run.path)
    assert snapshot(tmp_path) == before


def test_a_run_of_the_trainer_has_no_strangers(tmp_path: Path) -> None:
    recipe = toy_task.recipe(tmp_path / "run", max_steps=2)
    pytest.importorskip("tensorboard")
    runner.train(toy_task.Votes(), replace(recipe, report_to="tensorboard"))
    assert RunFolder(tmp_path / "run").manifest.strangers() == []
    assert any((tmp_path / "run" / "checkpoints" / "runs").rglob("events.*"))


def test_a_folder_in_the_place_of_a_file_is_no_file_of_the_run(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    (run.path / "picture.png").unlink()
    (run.path / "picture.png").mkdir()
    (run.path / "picture.png" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"did not write picture\.png"):
        overwrite(run.path)


@pytest.mark.parametrize("source", [".", "checkpoints/checkpoint-5"])
def test_what_the_new_run_starts_from_is_kept(tmp_path: Path, source: str) -> None:
    run = finished(tmp_path / "run")
    recipe = DatasetRecipe(overwrite=True, dataset="digits", pretrained=str(run.path / source))
    with pytest.raises(ValueError, match="lies in it, which is read"):
        run.check(recipe)


def test_what_came_in_between_is_kept(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    recipe = TrainingRecipe(overwrite=True)
    run.check(recipe)
    (run.path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"did not write notes\.txt"):
        run.create(recipe, task="toys")


def test_a_failing_run_leaves_what_others_put_into_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    names = [".perceiver-io-run.lock", "checkpoints/runs/mine.txt", "checkpoints/user.txt", "notes.txt"]
    with pytest.raises(RuntimeError), run.held(), run.created(TrainingRecipe(), task="toys"):
        for name in names[1:]:
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).touch()
        log = run.checkpoints / "runs" / "Nov24" / "events.out.tfevents.1"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        raise RuntimeError
    assert sorted(path for path in run.path.rglob("*") if path.is_file()) == [
        run.path / name for name in names
    ]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", {"format": 2, "files": []}, *({"format": 1, "files": [n]} for n in ("..", "a/b", 3, ""))],
)
def test_a_list_that_is_damaged_removes_nothing(tmp_path: Path, content: object) -> None:
    run = finished(tmp_path / "run")
    text = content if isinstance(content, str) else json.dumps(content)
    (run.path / ".perceiver-io-run.json").write_text(text)
    with pytest.raises(ValueError, match=r"\.perceiver-io-run\.json, (cannot be read|is damaged)"):
        overwrite(run.path)
    assert run.metrics_file.is_file()

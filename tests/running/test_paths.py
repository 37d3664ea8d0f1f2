"""A path is a path: it is never asked for on a hub, and a run remembers it from any folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

import perceiver_io as pio
from perceiver_io.cli import main
from perceiver_io.data.sources import load_dataset
from perceiver_io.files import absolute_path, is_path
from perceiver_io.running import DatasetRecipe, RunFolder, parse_recipe
from perceiver_io.running.find_task import find_task
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe

PATHS = [
    "runs/nothere",
    "runs/",
    "./nothere",
    "../nothere",
    "/nothere",
    "~/nothere",
    "~me/nothere",
    "a/b/c",
    "C:\\data",
    "book.txt",
    "org/weights.safetensors",
    "runs",
    "file",
]
IDS = ["mnist", "deepmind/language-perceiver", "org/model-v1.5", ""]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the folder `runs` and the file `file`, and a hub that nobody may ask."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize("name", PATHS)
def test_what_is_a_path(name: str) -> None:
    assert is_path(name) and is_path(Path(name))


@pytest.mark.parametrize("name", IDS)
def test_what_may_be_an_id(name: str) -> None:
    assert not is_path(name)


@pytest.mark.parametrize("name", ["runs/nothere", "./nothere", "a/b/c", "~/nothere"])
def test_a_model_that_is_not_there_is_not_asked_for_elsewhere(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match=f"There is no folder {name}"):
        pio.from_pretrained(name)
    with pytest.raises(ValueError, match=f"There is no folder {name}"):
        find_task(name)
    for command in (
        ["predict", name, "x.png"],
        ["predict", name, "x.png", "--task", "image-classification"],
        ["evaluate", name],
        ["attention", name, "x.png", "-o", "maps.png"],
        ["convert", name, "-o", "out"],
        ["train", "image-classification", "--dataset", "digits", "--pretrained", name, "--output-dir", "out"],
    ):
        assert main(command) == 2
        assert f"There is no folder {name}" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["runs/nothere", "./nothere", "book.txt", "nothere/"])
def test_data_that_is_not_there_is_not_asked_for_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match=f"There is no folder '{name}'. Forms"):
        load_dataset(name, forms="Forms")


def test_a_recipe_is_written_with_absolute_paths(folder: Path) -> None:
    (folder / "shapes").mkdir()
    written = folder / "shapes"
    for name in ("shapes", "shapes/", "./shapes", "runs/../shapes"):
        assert DatasetRecipe(dataset=name).settings()["dataset"] == str(written)
    assert DatasetRecipe(pretrained="runs").settings()["pretrained"] == str(folder / "runs")
    for name in IDS:
        assert DatasetRecipe(dataset=name).settings()["dataset"] == name
    assert DatasetRecipe(dataset="~/data").settings()["dataset"] == str(Path.home() / "data")
    assert absolute_path(str(written)) == str(written)


def test_a_link_stays_in_an_absolute_path(folder: Path) -> None:
    (folder / "latest").symlink_to("runs")
    assert absolute_path("latest") == str(folder / "latest")
    (folder / "runs" / "deep").mkdir()
    (folder / "other").symlink_to("runs/deep")
    assert absolute_path("other/../x") == str((folder / "runs" / "x").resolve())


def test_an_embedded_dataset_is_no_folder_of_its_name(folder: Path) -> None:
    (folder / "digits").mkdir()
    recipe = ImageClassificationRecipe(dataset="digits", pretrained="runs")
    assert recipe.settings()["dataset"] == "digits" and recipe.local_sources() == [str(folder / "runs")]
    assert ImageClassificationRecipe(dataset="./digits").settings()["dataset"] == str(folder / "digits")


def test_resuming_knows_a_folder_by_any_of_its_names(folder: Path) -> None:
    (folder / "shapes").mkdir()
    run = RunFolder("runs/one")
    run.create(DatasetRecipe(dataset="shapes/"), task="toys")
    for name in ("shapes", "./shapes", str(folder / "shapes")):
        run.check(DatasetRecipe(dataset=name, resume=True))
    with pytest.raises(
        ValueError, match=r"other settings \(dataset .*If what they name has moved, change that in"
    ):
        run.check(DatasetRecipe(dataset="runs", resume=True))
    # As earlier versions wrote it.
    run.recipe_file.write_text(json.dumps({**DatasetRecipe().settings(), "dataset": "shapes"}))
    run.check(DatasetRecipe(dataset="./shapes", resume=True))


def test_a_run_finds_its_data_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shapes").mkdir()
    run = RunFolder("runs/one")
    run.create(DatasetRecipe(dataset="shapes"), task="toys")
    monkeypatch.chdir(folder / "runs")
    values = {name: value for name, value in run.recipe().items() if name != "task"}
    assert parse_recipe(DatasetRecipe, values=values).dataset == str(folder / "shapes")

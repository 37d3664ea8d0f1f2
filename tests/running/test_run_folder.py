from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from perceiver_io.running import RunFolder, TrainingRecipe

from . import toy


def started(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.create(TrainingRecipe(), task="toys")
    (run.checkpoints / "checkpoint-5").mkdir()
    return run


def visible(path: Path) -> list[str]:
    """What is in a folder, without the list of what the run wrote."""
    return sorted({path.name for path in path.iterdir()} - {".perceiver-io-run.json"})


def test_a_new_or_empty_folder_is_fine(tmp_path: Path) -> None:
    RunFolder(tmp_path).check(TrainingRecipe())
    RunFolder(tmp_path / "new" / "run").check(TrainingRecipe(overwrite=True))
    assert os.listdir(tmp_path) == []


def test_a_taken_folder_is_refused(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    with pytest.raises(ValueError, match=r"is not empty.*--resume.*--overwrite"):
        run.check(TrainingRecipe())
    run.check(TrainingRecipe(resume=True))
    run.check(TrainingRecipe(overwrite=True))
    assert (run.checkpoints / "checkpoint-5").is_dir()


def test_overwriting_removes_an_earlier_run(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    run.create(TrainingRecipe(overwrite=True, seed=3), task="toys")
    assert list(run.checkpoints.iterdir()) == []
    assert run.recipe()["seed"] == 3


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "file").check(TrainingRecipe(overwrite=True))


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not a run folder"):
        RunFolder(tmp_path).check(TrainingRecipe(resume=True))


def test_resuming_a_recipe_beside_files_of_others_is_refused(tmp_path: Path) -> None:
    recipe = TrainingRecipe(resume=True)
    run = RunFolder(tmp_path)
    run.recipe_file.write_text(recipe.to_yaml(task="toys"))
    run.check(recipe)
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(ValueError, match=r"not resumed.*no checkpoints.*model\.safetensors"):
        run.check(recipe)
    (run.checkpoints / "checkpoint-5").mkdir(parents=True)  # a run of an earlier version, which kept no list
    run.check(recipe)


def test_resuming_replaces_nothing_that_the_run_did_not_write(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    (run.path / "notes.txt").touch()
    run.check(TrainingRecipe(resume=True))
    (run.path / "model.safetensors").write_text("precious")
    with pytest.raises(ValueError, match=r"would replace model\.safetensors, which it did not write"):
        run.check(TrainingRecipe(resume=True))


@pytest.mark.parametrize("name", ["~/x", "~/x/../x", "~/gone/../x"])
def test_the_path_is_what_the_shell_would_make_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = RunFolder(name)
    with run.held():
        assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("left", [[], [".perceiver-io-run.lock"], [".perceiver-io-run.json"]])
def test_resuming_what_has_not_begun_begins(
    tmp_path: Path, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = started(tmp_path / "run")
    for path in run.path.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with run.created(TrainingRecipe(resume=True, seed=3), task="toys"):
        assert run.recipe()["seed"] == 3
    assert "starts from its beginning" in caplog.text


def test_resuming_a_folder_that_is_not_there_begins(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    with pytest.raises(ValueError, match="bad"), run.created(TrainingRecipe(resume=True), task="toys"):
        assert run.recipe_file.is_file()
        raise ValueError("bad")
    assert os.listdir(tmp_path) == []


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    with pytest.raises(ValueError, match=r"other settings \(learning_rate 0.001 -> 0.5\)"):
        run.check(TrainingRecipe(resume=True, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"other settings \(model.encoder.num_latents None -> 3\)"):
        run.check(TrainingRecipe(resume=True, model={"encoder": {"num_latents": 3}}))
    run.check(TrainingRecipe(resume=True, num_workers=2))


def test_resuming_what_an_older_version_started_is_refused(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    with run.recipe_file.open("a") as file:
        file.write("num_latents: 7\n")
    with pytest.raises(ValueError, match=r"other settings \(num_latents 7 -> None\)"):
        run.check(TrainingRecipe(resume=True))


def test_resuming_another_task_is_refused(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    run.check(TrainingRecipe(resume=True), task="toys")
    with pytest.raises(ValueError, match="is of another task than 'games'"):
        run.check(TrainingRecipe(resume=True), task="games")


def test_resuming_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    run = started(tmp_path / "run")
    (run.checkpoints / ".partial-checkpoint-9").mkdir()
    run.manifest.add(["metrics.json"])
    (run.path / ".partial-metrics.json").touch()
    run.create(TrainingRecipe(resume=True), task="toys")
    assert os.listdir(run.checkpoints) == ["checkpoint-5"]
    assert visible(run.path) == ["checkpoints", "recipe.yaml"]


def test_failed_writes_leave_the_old_file(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.write_metrics({"accuracy": 1.0})
    with (
        pytest.raises(OSError, match=r"No space left on device.*make room") as caught,
        run.writing("metrics.json") as path,
    ):
        path.write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert run.metrics() == {"accuracy": 1.0}
    assert not list(tmp_path.glob(".partial*"))


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tmp_path)
    model = toy.ToyModel(toy.ToyConfig())
    with monkeypatch.context() as patch:

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("transformers.modeling_utils.safe_save_file", fail)
        with pytest.raises(OSError, match="No space left on device"):
            run.write_model(model)
    assert visible(tmp_path) == ["checkpoints", "recipe.yaml"]
    run.write_model(model)
    assert visible(tmp_path) == ["checkpoints", "config.json", "model.safetensors", "recipe.yaml"]
    toy.ToyModel.from_pretrained(tmp_path)


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="bad"), run.created(TrainingRecipe(), task="toys"):
        assert run.recipe_file.is_file()
        raise ValueError("bad")
    assert not run.path.exists()


def test_a_run_that_fails_leaves_folders_that_it_did_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for folder, kept in (("mine", ["mine"]), (".", [])):
        if folder == ".":
            (tmp_path / "mine").rmdir()
        run = RunFolder(folder)
        with pytest.raises(ValueError, match="bad"), run.held(), run.created(TrainingRecipe(), task="toys"):
            raise ValueError("bad")
        assert os.listdir(tmp_path) == kept and os.listdir(folder) == []


def test_folders_that_were_made_for_a_run_go_with_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "b" / "c")
    with pytest.raises(ValueError, match="bad"), run.held(), run.created(TrainingRecipe(), task="toys"):
        raise ValueError("bad")
    assert os.listdir(tmp_path) == []


def test_a_run_that_has_a_checkpoint_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="bad"), run.created(TrainingRecipe(), task="toys"):
        (run.checkpoints / "checkpoint-1").mkdir()
        raise ValueError("bad")
    assert run.recipe_file.is_file()


def test_damaged_metrics_are_named(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.metrics_file.write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read"):
        run.metrics()
    run.metrics_file.write_text("[1]")
    with pytest.raises(ValueError, match=r"metrics\.json must hold a JSON object, got list"):
        run.metrics()


def test_a_disk_that_is_full_at_once_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write)
        with pytest.raises(OSError, match="No space left on device"):
            run.create(TrainingRecipe(), task="toys")
    assert os.listdir(tmp_path) == []
    started(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Writing to .*/file/run failed: Not a directory.*another folder"):
        RunFolder(tmp_path / "file" / "run").create(TrainingRecipe(), task="toys")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    run = started(tmp_path / "run")
    run.create(TrainingRecipe(overwrite=True, seed=3), task="toys")
    assert run.recipe()["seed"] == 3
    assert not (run.checkpoints / "checkpoint-5").exists()
    with pytest.raises(ValueError, match="bad"), run.created(TrainingRecipe(overwrite=True), task="toys"):
        raise ValueError("bad")
    assert (tmp_path / "run").is_symlink()
    assert os.listdir(tmp_path / "disk") == []


def test_results_without_an_end_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics_file.write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(ValueError, match=r"cannot be read: .* nested too deeply"):
        run.metrics()

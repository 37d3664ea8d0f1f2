from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import perceiver_io
from perceiver_io.cli import main
from perceiver_io.running import runner
from perceiver_io.running.trainer import Trainer
from perceiver_io.tasks.classification import task as class_task

SETTINGS = (
    "--variant tiny --image-size 8 --image_channels 1 --model.encoder.num-latents 4 --model.encoder.num_blocks=2 "
    "--model.encoder.latent-channels 16 --model.encoder.num-self-attends-per-block 1 --augmentation.preset none "
    "--num-epochs 1 --batch-size 8 --device cpu --report-to none"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (root / name).mkdir()
        for index in range(20):
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "noise"
    assert (
        main(
            ["train", "image-classification", "--dataset", str(folder), "--output-dir", str(path), *SETTINGS]
        )
        == 0
    )
    return path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than the training does here."""

    def draw(*args: Any, **kwargs: Any) -> None:
        next(one for one in args if isinstance(one, Path)).write_bytes(b"png")

    monkeypatch.setattr(class_task, "draw_view", draw)
    monkeypatch.setattr(class_task, "draw_confusion", draw)
    monkeypatch.setattr(runner, "draw_learning_curve", draw)


def train(folder: Path, output: Path, *more: str) -> int:
    flags = ["--dataset", str(folder), "--output-dir", str(output), *SETTINGS, *more]
    return main(["train", "image-classification", *flags])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error is."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("perceiver-io: error: ")]
    assert len(lines) == 1 and captured.err.rstrip().endswith(lines[0])
    return lines[0].removeprefix("perceiver-io: error: ")


def test_train_prints_the_test_accuracy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, tmp_path / "run") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("test accuracy ") and captured.out.count("\n") == 2
    assert str(tmp_path / "run") in captured.out
    assert "training: 100%" in captured.err
    assert (tmp_path / "run" / "attention.png").stat().st_size > 1000


@pytest.mark.usefixtures("no_pictures")
def test_json_is_all_that_stdout_gets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, tmp_path / "run", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.usefixtures("no_pictures")
def test_a_recipe_file_with_overrides(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"task: image-classification\ndataset: {folder}\nlearning_rate: 1e-5\nmax_steps: 9\n")
    flags = ["--config", str(file), "--output_dir", str(tmp_path / "run"), *SETTINGS, "--max-steps", "2"]
    assert main(["train", "image-classification", *flags]) == 0
    stored = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "learning_rate: 1.0e-05" in stored and "max_steps: 2" in stored
    again = ["--config", str(tmp_path / "run" / "recipe.yaml"), "--output-dir", str(tmp_path / "again")]
    assert main(["train", "image-classification", *again]) == 0
    assert (tmp_path / "again" / "recipe.yaml").read_text() == stored


@pytest.mark.usefixtures("no_pictures")
def test_resuming_with_the_recipe_file_keeps_the_sections_of_the_flags(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(f"dataset: {folder}\nmodel:\n  encoder:\n    dropout: 0.1\n")
    command = ["train", "image-classification", "--config", str(file), "--output-dir", str(output)]
    assert main([*command, *SETTINGS]) == 0
    (output / "metrics.json").unlink()
    assert main([*command, "--resume"]) == 0
    capsys.readouterr()
    assert main([*command, "--resume", "--model.encoder.num-latents", "5"]) == 2
    assert "(model.encoder.num_latents 4 -> 5)" in error_line(capsys)


def test_results_that_are_not_those_of_a_training(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert main(["train", "image-classification", "--output-dir", str(tmp_path / "run"), "--resume"]) == 2
    assert "do not say their split. Remove the file" in error_line(capsys)


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run)]) == 0
    assert capsys.readouterr().out.startswith("test accuracy ")
    assert main(["evaluate", str(run), "--split", "validation", "--json"]) == 0
    assert "validation_accuracy" in json.loads(capsys.readouterr().out)


def test_predict(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "left" / "0.png"), str(folder / "right" / "1.png")]
    assert main(["predict", str(run), *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == files
    assert main(["predict", str(run), *files, "--json", "--top-k", "1"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [len(one["labels"]) for one in results] == [1, 1]
    assert main(["predict", "--json", str(run), "--top-k", "1", *files]) == 0
    assert json.loads(capsys.readouterr().out) == results
    assert 0.5 <= results[0]["labels"][0]["probability"] <= 1


def test_predict_takes_a_folder(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    for source, name in (("left/0.png", "b.png"), ("left/1.png", "A.PNG"), ("right/2.png", "deep/c.png")):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / source, pictures / name)
    (pictures / "notes.txt").write_text("no picture")
    (pictures / ".hidden.png").write_text("no picture")
    alone = str(folder / "left" / "0.png")
    assert main(["predict", str(run), str(pictures), alone, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [one["file"] for one in results] == [
        *(str(pictures / name) for name in ("A.PNG", "b.png", "deep/c.png")),
        alone,
    ]
    assert results[1]["labels"] == results[3]["labels"]
    (pictures / "cut.png").write_text("oops")
    assert main(["predict", str(run), str(pictures)]) == 2
    assert "cut.png" in error_line(capsys)
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(run), str(tmp_path / "empty")]) == 2
    line = error_line(capsys)
    assert "empty has no file that the task image-classification reads" in line and ".png" in line


def test_predict_with_a_model_that_was_only_saved(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    arguments = ["predict", str(tmp_path), str(folder / "left" / "0.png")]
    assert main(arguments) == 0
    expected = capsys.readouterr().out
    config = json.loads((run / "config.json").read_text())
    for architectures, message in ((None, "names no architectures"), (["Juggler"], "'Juggler'")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        assert main(arguments) == 2
        line = error_line(capsys)
        assert message in line and "--task" in line and "image-classification" in line
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main([*arguments, "--task", "image-classification"]) == 0
    assert capsys.readouterr().out == expected
    (tmp_path / "preprocessor_config.json").unlink()
    assert main(arguments) == 2
    assert "no preprocessor_config.json" in error_line(capsys)


def test_attention(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "maps.png"
    arguments = ["attention", str(run), str(folder / "left" / "0.png"), "-o", str(picture)]
    assert main([*arguments, "--latents", "0,3"]) == 0
    with Image.open(picture) as image:
        assert image.width > 100
    picture.unlink()
    capsys.readouterr()
    assert main([*arguments, "--latents", "0,4"]) == 2
    assert "[4]" in error_line(capsys)
    assert main([*arguments, "--latents", "a"]) == 2
    assert not picture.exists()


def test_a_picture_replaces_no_file_unasked(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes((folder / "left" / "0.png").read_bytes())
    before = photo.read_bytes()
    for flags in ([], ["--overwrite"]):
        assert main(["attention", str(run), str(photo), "-o", f"{tmp_path}/./photo.png", *flags]) == 2
        assert "is an input, and would be overwritten" in error_line(capsys)
    assert photo.read_bytes() == before
    other = tmp_path / "other.png"
    other.touch()
    arguments = ["attention", str(run), str(photo), "-o", str(other), "--latents", "0"]
    assert main(arguments) == 2
    assert "--overwrite" in error_line(capsys) and not other.read_bytes()
    assert main([*arguments, "--overwrite"]) == 0
    assert other.read_bytes()


def test_info(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert perceiver_io.__version__ in text and "image-classification" in text and torch.__version__ in text
    assert main(["info", "--json"]) == 0
    assert "image" in json.loads(capsys.readouterr().out)["adapters"]
    assert main(["info", str(run)]) == 0
    assert "PerceiverIOForImageClassification" in capsys.readouterr().out
    assert main(["info", str(run), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["encoder"]["num_latents"] == 4 and content["results"]["seed"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "image-classification", "--help"],
        ["predict", "-h"],
        ["predict", "--help", "--task", "image-classification"],
        ["convert", "-h"],
        ["init", "-h"],
    ],
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == (0 if arguments else 2)
    captured = capsys.readouterr()
    assert "perceiver-io" in captured.out + captured.err
    if "--task" in arguments:
        assert "--top-k" in captured.out and "--output-dir" in captured.out
    elif "image-classification" in arguments:
        assert (
            "--learning-rate" in captured.out
            and "--dataset" in captured.out
            and "--overwrite" in captured.out
            and "--model.SETTING" in captured.out
            and "--augmentation.SETTING" in captured.out
            and "--input-column" in captured.out
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "Which task?"),
        (["train", "juggling"], "no task 'juggling'. Known: audio-classification"),
        (["train", "image-classification"], "no output folder"),
        (["train", "image-classification", "--output-dir", "x"], "no dataset"),
        (["train", "image-classification", "--learning-rate", "fast"], "invalid float value: 'fast'"),
        (["train", "image-classification", "--learning", "1"], "unrecognized arguments: --learning"),
        (
            ["train", "image-classification", "--augmentation", "none"],
            "--augmentation has settings of its own",
        ),
        (
            ["train", "image-classification", "--augmentation.spin", "3"],
            "no augmentation 'spin'. Known: preset",
        ),
        (
            ["train", "image-classification", "--model.decoder.x", "3"],
            "model has the unknown parts ['decoder']",
        ),
        (["train", "image-classification", "--num-latents", "3"], "unrecognized arguments: --num-latents"),
        (
            ["train", "image-classification", "--model.encoder.dropout"],
            "--model.encoder.dropout needs a value",
        ),
        (["train", "image-classification", "--config", "missing.yaml"], "missing.yaml cannot be read"),
        (["train", "image-classification", "--resume", "--output-dir", "missing"], "no dataset"),
        (["evaluate", "missing"], "There is no folder"),
        (["evaluate", "."], "not a run folder"),
        (["predict", ".", "file.png", "--task", "image-classification"], "no config.json"),
        (["predict"], "Which model?"),
        (["predict", "--task", "image-classification"], "Which model?"),
        (["predict", "missing", "file.png"], "There is no folder missing"),
        (["predict", "missing", "file.png", "--task", "image-classification"], "There is no folder missing"),
        (["predict", ".", "file.png"], "no config.json"),
        (["predict", ".", "--task", "image-classification"], "the following arguments are required: FILE"),
        (["predict", ".", "a.png", "--task", "image-classification", "--top", "3"], "arguments: --top"),
        (["predict", ".", "a.png", "--task", "juggling"], "no task 'juggling'"),
        (["attention", "missing", "file.png", "-o", "maps.png"], "There is no folder missing"),
        (["info", "missing"], "There is no folder missing"),
        (["info", "."], "no config.json"),
        (["info", "--nonsense"], "Unknown arguments: --nonsense"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in error_line(capsys)
    assert os.listdir(tmp_path) == []


def test_bad_files(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("not an image")
    good = str(folder / "left" / "0.png")
    (tmp_path / "cut.png").write_bytes(Path(good).read_bytes()[:60])
    for name, message in (
        ("text.png", "not an image"),
        ("cut.png", "damaged"),
        ("missing.png", "missing.png is missing"),
    ):
        assert main(["predict", str(run), good, str(tmp_path / name)]) == 2
        line = error_line(capsys)
        assert name in line and message in line
    assert main(["attention", str(run), good, "-o", str(tmp_path / "no" / "folder.png")]) == 2
    assert "folder" in error_line(capsys)
    assert main(["predict", str(run), good, "--top-k", "0"]) == 2
    assert "top_k" in error_line(capsys)


@pytest.mark.usefixtures("no_pictures")
def test_bad_data(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("left", "right"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in (folder / name).iterdir():
            (tmp_path / "data" / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "data" / "left" / "3.png").write_text("oops")
    assert train(tmp_path / "data", tmp_path / "run") == 2
    assert "3.png" in error_line(capsys)
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "data", tmp_path / "run", "--skip-bad-files") == 0


def test_damaged_models(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    arguments = ["predict", str(tmp_path), str(folder / "left" / "0.png")]
    weights = (run / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert main(arguments) == 2
    assert "truncated" in error_line(capsys)
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((run / "config.json").read_text())
    for change in (
        {"format_version": 99},
        {"nonsense": 1},
        {"encoder": {**config["encoder"], "num_latents": 5}},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        assert main(arguments) == 2
        assert error_line(capsys)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_explained(
    run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(runner, "evaluate", fail)
    assert main(["evaluate", str(run)]) == 2
    assert "not enough memory. Choose smaller batches" in error_line(capsys)


def test_what_is_no_bad_input_is_not_hidden(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(runner, "evaluate", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["evaluate", str(run)])


def test_an_existing_folder_is_refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    assert train(folder, run) == 2
    line = error_line(capsys)
    assert "--overwrite" in line and "--resume" in line
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before


@pytest.mark.usefixtures("no_pictures")
def test_overwrite(folder: Path, tmp_path: Path) -> None:
    assert train(folder, tmp_path / "run", "--max-steps", "1") == 0
    assert train(folder, tmp_path / "run", "--max-steps", "2", "--overwrite") == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2


def test_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "missing", "--traceback"]) == 2
    captured = capsys.readouterr().err
    assert "Traceback" in captured and "perceiver-io: error: There is no folder" in captured


@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.training_step

    def press_ctrl_c(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as if the command had been started
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", press_ctrl_c)
        assert train(folder, tmp_path / "run") == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    command = captured.err.rstrip().rpartition("Go on with: perceiver-io ")[2]
    # The run's own settings need not be said again.
    assert command == f"train image-classification --output-dir {tmp_path / 'run'} --resume"
    assert main([*command.split(), "--learning-rate", "0.3"]) == 2
    assert "learning_rate 0.001 -> 0.3" in error_line(capsys)
    assert main([*command.split(), "--model.encoder.num-latents", "5"]) == 2
    assert "(model.encoder.num_latents 4 -> 5)" in error_line(capsys)
    assert main([*command.split(), "--model.encoder.num-latents", "4", "--augmentation.rotation", "3"]) == 2
    assert "(augmentation.rotation None -> 3)" in error_line(capsys)
    assert main(command.split()) == 0
    assert capsys.readouterr().out.startswith("test accuracy")


def test_a_missing_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise ImportError(
            'datasets is not installed. Install it with: pip install "perceiver-io-toolkit[train]"'
        )

    monkeypatch.setattr(runner, "evaluate", missing)
    assert main(["evaluate", str(run)]) == 2
    assert "perceiver-io-toolkit[train]" in error_line(capsys)

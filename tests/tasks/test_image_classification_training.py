from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainerCallback, pipeline

import perceiver_io
from perceiver_io.running import parse_recipe, read_recipe_file, runner
from perceiver_io.running.trainer import Trainer
from perceiver_io.tasks.classification import ClassPredictOptions
from perceiver_io.tasks.classification import task as class_task
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.tasks.image_classification.task import ImageClassificationTask

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "metrics.json"}
FILES |= {"README.md", "attention.png", "confusion.png", "learning_curve.png", "checkpoints"}
FILES |= {".perceiver-io-run.json", ".perceiver-io-run.lock"}
OPTIONS = ClassPredictOptions(top_k=5)
TASK = ImageClassificationTask()
RECIPES = Path(perceiver_io.tasks.__path__[0]) / "image_classification" / "recipes"


@pytest.fixture(autouse=True, scope="module")
def plain_pictures() -> Iterator[None]:
    """Pictures have tests of their own, and take longer than all else here."""

    def draw(*args: Any, **kwargs: Any) -> None:
        next(one for one in args if isinstance(one, Path)).write_bytes(b"png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_task, "draw_view", draw)
        patch.setattr(class_task, "draw_confusion", draw)
        patch.setattr(runner, "draw_learning_curve", draw)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright squares."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (root / name).mkdir()
        for index in range(20):
            pixels = np.clip(rng.normal(level, 30, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def recipe(folder: Path, output: Path, **changes: Any) -> ImageClassificationRecipe:
    """28 training images: 4 steps an epoch."""
    settings: dict[str, Any] = {
        "dataset": str(folder),
        "output_dir": str(output),
        "variant": "tiny",
        "image_size": [8],
        "image_channels": 1,
        "model": {
            "encoder": {
                "num_latents": 4,
                "latent_channels": 16,
                "num_blocks": 2,
                "num_self_attends_per_block": 1,
                "dropout": 0.1,
            }
        },
        "augmentation": {"preset": "digits"},
        "num_epochs": 2,
        "batch_size": 8,
        "best_metric": "loss",
        "learning_rate": 1e-2,
        "device": "cpu",
        "report_to": "none",
        "log_every": 0,
    }
    return ImageClassificationRecipe(**{**settings, **changes})


def train(of: ImageClassificationRecipe) -> dict[str, Any]:
    return runner.train(TASK, of)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForImageClassification.from_pretrained(path).state_dict())


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("trained") / "run"
    return path, train(recipe(folder, path, num_epochs=6))


def test_the_run_folder_holds_everything(trained: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = trained
    assert set(os.listdir(path)) == FILES
    stored = json.loads((path / "metrics.json").read_text())
    assert stored == metrics
    assert metrics["test_samples"] == 8 and metrics["test_accuracy"] >= 0.75
    assert np.sum(metrics["confusion"]) == 8
    assert set(metrics["per_class"]) == {"bright", "dark"}
    assert metrics["parameters"] > 0 and metrics["train_seconds"] > 0 and metrics["seed"] == 0
    assert set(metrics["versions"]) == {"perceiver_io", "python", "torch", "transformers"}
    assert sum("eval_loss" in entry for entry in metrics["history"]) == 6
    settings = yaml.safe_load((path / "recipe.yaml").read_text())
    assert settings["task"] == "image-classification" and settings["image_size"] == [8, 8]


def test_the_best_checkpoint_is_the_model(trained: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = trained
    losses = {entry["step"]: entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert metrics["best_step"] == best
    kept, checkpoint = weights(path), weights(path / "checkpoints" / f"checkpoint-{best}")
    assert all(torch.equal(kept[name], checkpoint[name]) for name in kept)


def test_evaluating_again_gives_the_same(trained: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = trained
    again = runner.evaluate(TASK, path)
    assert again["confusion"] == metrics["confusion"] and again["per_class"] == metrics["per_class"]
    assert again["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-5)
    assert runner.evaluate(TASK, path, split="validation")["validation_samples"] > 0
    with pytest.raises(ValueError, match="'all'"):
        runner.evaluate(TASK, path, split="all")


def test_predictions_are_those_of_a_pipeline(trained: tuple[Path, dict[str, Any]], folder: Path) -> None:
    path, _ = trained
    files = [folder / "dark" / "0.png", folder / "bright" / "1.png"]
    ours = runner.predict(TASK, path, [str(file) for file in files], OPTIONS)
    assert [one["file"] for one in ours] == [str(file) for file in files]
    classify = pipeline("image-classification", model=str(path), device="cpu")
    for one, theirs in zip(ours, classify([str(file) for file in files]), strict=True):
        assert [label["label"] for label in one["labels"]] == [label["label"] for label in theirs]
        assert one["labels"][0]["probability"] == pytest.approx(theirs[0]["score"], abs=1e-6)
        assert sum(label["probability"] for label in one["labels"]) == pytest.approx(1)


def test_another_process_loads_the_model_with_equal_logits(
    trained: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    path, _ = trained
    image = folder / "dark" / "3.png"
    program = f"""
import torch
import perceiver_io
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
torch.set_num_threads(1)
model = AutoModelForImageClassification.from_pretrained({str(path)!r}).eval()
pixels = AutoImageProcessor.from_pretrained({str(path)!r})(Image.open({str(image)!r}))["pixel_values"]
torch.save(model(pixels).logits, {str(tmp_path / "logits.pt")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    processor = AutoImageProcessor.from_pretrained(path)
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(path).eval()
        expected = model(processor(Image.open(image))["pixel_values"]).logits
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


class PressCtrlC(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_resumes_to_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"augmentation": {"preset": "natural", "randaugment": False, "label_smoothing": 0.1}}
    whole = train(recipe(folder, tmp_path / "whole", **settings))
    construct = Trainer.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, "__init__", lambda self, **kwargs: construct(self, **kwargs, callbacks=[PressCtrlC(6)])
        )
        with pytest.raises(KeyboardInterrupt):
            train(recipe(folder, tmp_path / "parts", **settings))
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    with pytest.raises(ValueError, match="no model yet"):
        runner.predict(TASK, tmp_path / "parts", [], OPTIONS)
    parts = train(recipe(folder, tmp_path / "parts", resume=True, **settings))
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole["confusion"] == parts["confusion"] and whole["test_loss"] == parts["test_loss"]


def test_a_complete_run_is_not_trained_again(
    trained: tuple[Path, dict[str, Any]], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, metrics = trained
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert train(recipe(folder, path, num_epochs=6, resume=True)) == metrics
    assert (path / "model.safetensors").stat().st_mtime_ns == before
    assert "complete already" in caplog.text


def test_fine_tuning_for_other_classes(
    trained: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = trained
    (tmp_path / "three").mkdir()
    for name in ("bright", "dark"):
        (tmp_path / "three" / name).symlink_to(folder / name)
    (tmp_path / "three" / "extra").symlink_to(folder / "dark")
    fresh = {
        "variant": None,
        "image_size": None,
        "image_channels": None,
        "model": {},
        "pretrained": str(path),
    }
    train(recipe(tmp_path / "three", tmp_path / "run", max_steps=1, learning_rate=1e-9, **fresh))
    assert "last layer is trained anew" in caplog.text
    before, after = weights(path), weights(tmp_path / "run")
    moved = [name for name in before if after[name].shape != before[name].shape]
    assert moved and all(".decoders.label." in name for name in moved)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before if name not in moved)
    # A part that all weights depend on cannot become another one.
    other = {**fresh, "model": {"encoder": {"num_latents": 3}}}
    with pytest.raises(ValueError, match=r"weights do not fit the settings: .*latents"):
        train(recipe(folder, tmp_path / "other", **other))
    assert not (tmp_path / "other").exists()


def test_fine_tuning_at_another_size(
    trained: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    path, _ = trained
    fresh = {"variant": None, "image_channels": None, "pretrained": str(path)}
    model = {"inputs": {"image": {"size": [16, 16]}}, "encoder": {"dropout": 0.5}}
    train(
        recipe(
            folder, tmp_path / "run", max_steps=1, learning_rate=1e-9, image_size=[16], **fresh, model=model
        )
    )
    before, after = weights(path), weights(tmp_path / "run")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    config = AutoModelForImageClassification.from_pretrained(tmp_path / "run").config
    assert config.inputs["image"].size == (16, 16) and config.encoder.dropout == 0.5
    size = AutoImageProcessor.from_pretrained(tmp_path / "run").size
    assert (size["height"], size["width"]) == (16, 16)


def test_without_validation_images_the_last_weights_are_kept(folder: Path, tmp_path: Path) -> None:
    metrics = train(recipe(folder, tmp_path / "run", validation_fraction=0, num_epochs=1))
    assert metrics["best_step"] is None and metrics["steps"] == 4


def test_a_run_without_a_logged_loss_has_no_learning_curve(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(recipe(folder, tmp_path / "run", validation_fraction=0, num_epochs=1, log_every=50))
    assert set(os.listdir(tmp_path / "run")) == FILES - {"learning_curve.png"}
    assert "no learning curve" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": None}, "no dataset"),
        ({"dataset": "/missing/folder"}, "no folder '/missing/folder'"),
        ({"output_dir": None}, "no output folder"),
        ({"variant": "giant"}, "no variant 'giant'"),
        ({"model": {"inputs": {"image": {"patch_size": 3, "features": "patches"}}}}, "3x3"),
        ({"model": {"inputs": {"image": {"patch_sise": 3}}}}, r"patch_sise.*patch_size"),
        ({"model": {"inputs": {"text": {"max_length": 3}}}}, r"no model.inputs.text .*inputs \['image'\]"),
        ({"model": {"outputs": {"label": {"num_class": 3}}}}, "num_class"),
        ({"model": {"packing": {"num_channels": 99}}}, "num_channels"),
        ({"model": {"decoder": {"num_classes": 3}}}, r"unknown parts \['decoder'\]"),
        ({"pretrained": "/missing"}, "variant, image_channels cannot be chosen: the model of /missing"),
        (
            {"pretrained": "/missing", "variant": None, "image_channels": None},
            "There is no folder /missing",
        ),
        ({"augmentation": {"preset": "wild"}}, "wild"),
        ({"augmentation": {"rotate": 3}}, "no augmentation 'rotate'"),
        ({"augmentation": "digits"}, "augmentation is 'digits', expected settings by name"),
        (
            {"best_metric": "auc"},
            "best_metric is 'auc', which is not measured. Choose from loss, accuracy, none",
        ),
        ({"best_metric": "confusion"}, "best_metric is 'confusion', which is better in no direction"),
        ({"image_size": [1, 2, 3]}, "image_size"),
        ({"image_size": []}, "image_size"),
        ({"image_channels": 0}, "image_channels is 0, expected 1 or 3"),
    ],
)
def test_bad_recipes_leave_nothing_behind(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(recipe(folder, tmp_path / "run", **changes))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_at_the_end_keeps_the_checkpoints(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = recipe(folder, tmp_path / "run", num_epochs=1)
    with monkeypatch.context() as patch:

        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(class_task, "draw_confusion", fail)
        with pytest.raises(OSError, match="No space left on device"):
            train(of)
    assert not (tmp_path / "run" / "metrics.json").exists()
    metrics = train(recipe(folder, tmp_path / "run", num_epochs=1, resume=True))
    assert metrics["steps"] == 4
    assert set(os.listdir(tmp_path / "run")) == FILES


@pytest.mark.parametrize("name", ["digits", "image_folder", "imagenet_fourier"])
def test_the_recipes_are_valid(name: str) -> None:
    values = read_recipe_file(RECIPES / f"{name}.yaml", task="image-classification")
    parse_recipe(ImageClassificationRecipe, values=values)


def test_defaults_follow_from_the_dataset() -> None:
    digits = ImageClassificationRecipe(dataset="digits")
    assert (digits.image_size, digits.image_channels, digits.variant) == ([8, 8], 1, "tiny")
    assert digits.augmentation == {"preset": "digits"}
    other = ImageClassificationRecipe(dataset="photos", augmentation={"horizontal_flip": True})
    assert (other.image_size, other.image_channels, other.variant) == ([64, 64], 3, "small")
    assert other.augmentation["preset"] == "mild" and other.augmentation_settings().horizontal_flip
    assert (other.num_epochs, other.best_metric) == (None, None)  # left to the data


def test_what_shortens_a_training() -> None:
    """`tiny` does not: of images of 64 pixels it has sixteen times as many elements."""
    assert ImageClassificationRecipe(dataset="photos").shorter == ["--num-epochs", "--image-size"]
    published = ImageClassificationRecipe(dataset="photos", variant="fourier", max_steps=9)
    assert published.shorter == ["--max-steps", "--image-size", "--variant small"]


def test_the_digits_recipe_is_what_its_results_were_measured_with() -> None:
    values = read_recipe_file(RECIPES / "digits.yaml", task="image-classification")
    settings = parse_recipe(ImageClassificationRecipe, values=values).settings()
    expected = {"variant": "tiny", "num_epochs": 60, "batch_size": 64, "learning_rate": 0.002, "seed": 0}
    expected |= {"best_metric": "none", "evaluate_every": None, "image_size": [8, 8], "num_threads": 1}
    assert expected.items() <= settings.items()
    assert settings["augmentation"] == values["augmentation"] and settings["model"] == values["model"]


def test_recipes_are_the_same_from_yaml_flags_and_python(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        """
task: image-classification
dataset: photos
image_size: [32, 48]
learning_rate: 1e-4
model:
  encoder: {num_latents: 16, cross_attention_qk_channels: null}
  inputs:
    image: {patch_size: 8}
augmentation:
  preset: digits
  horizontal_flip: yes
  rotation: 5
"""
    )
    flags = (
        "--dataset photos --image-size 32 48 --learning-rate 1e-4 --model.encoder.num-latents 16 "
        "--model.encoder.cross-attention-qk-channels null --model.inputs.image.patch-size 8 "
        "--augmentation.preset digits --augmentation.horizontal-flip yes --augmentation.rotation 5"
    ).split()
    values = read_recipe_file(tmp_path / "recipe.yaml", task="image-classification")
    made = ImageClassificationRecipe(
        dataset="photos",
        image_size=[32, 48],
        learning_rate=1e-4,
        model={
            "encoder": {"num_latents": 16, "cross_attention_qk_channels": None},
            "inputs": {"image": {"patch_size": 8}},
        },
        augmentation={"preset": "digits", "horizontal_flip": True, "rotation": 5},
    )
    assert parse_recipe(ImageClassificationRecipe, values=values) == made
    assert parse_recipe(ImageClassificationRecipe, flags) == made
    assert made.augmentation_settings().rotation == 5 and made.augmentation_settings().horizontal_flip
    # What it was filled up with reads as what it was.
    (tmp_path / "again.yaml").write_text(made.to_yaml(task="image-classification"))
    values = read_recipe_file(tmp_path / "again.yaml", task="image-classification")
    assert parse_recipe(ImageClassificationRecipe, values=values) == made

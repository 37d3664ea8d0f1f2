"""The task of drawing images: what it reads, learns, measures, draws and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.running import runner
from perceiver_io.running.building import build
from perceiver_io.tasks.autoregressive import IGNORED
from perceiver_io.tasks.image_generation.requests import DrawOptions
from perceiver_io.tasks.image_generation.task import ImageGenerationTask

TASK = ImageGenerationTask()
SMALL: dict[str, Any] = {
    "batch_size": 16,
    "device": "cpu",
    "num_threads": 1,
    "report_to": "none",
    "variant": "tiny",
    "num_levels": 5,
    "model": {"encoder": {"latent_channels": 32, "num_self_attends": 1}},
}


def stripes(kind: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Four rows of four pixels, of which those of one side are bright; the brightness of an image is its own."""
    pixels = np.zeros((4, 4), np.uint8)
    bright = int(rng.integers(2, 5)) * 255 // 4
    if kind == "left":
        pixels[:, :2] = bright
    else:
        pixels[:, 2:] = bright
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sides")
    rng = np.random.default_rng(0)
    for kind in ("left", "right"):
        (path / kind).mkdir()
        for index in range(60):
            Image.fromarray(stripes(kind, rng)).save(path / kind / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generation") / "run"
    recipe = TASK.recipe_class(
        dataset=str(folder),
        output_dir=str(path),
        max_steps=120,
        evaluate_every=60,
        learning_rate=5e-3,
        label_dropout=0.3,
        **SMALL,
    )
    runner.train(TASK, recipe)
    return path


def test_images_are_learned(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    # An image is its brightness, one of three, and nothing else, so that log2(3) / 16 bits are the least.
    assert np.log2(3) / 16 - 0.03 < metrics["test_bits"] < 0.3 and metrics["test_accuracy"] > 0.9
    assert metrics["test_samples"] == 24
    for name, width in (("samples.png", 10 * 54), ("completions.png", 10 * 70)):
        with Image.open(run / name) as picture:
            assert picture.width > width
    assert "bits a value" in TASK.describe_results(metrics)


def test_what_is_drawn_is_of_the_class_and_as_it_began(run: Path, tmp_path: Path, folder: Path) -> None:
    def sides(path: str) -> tuple[float, float]:
        with Image.open(path) as image:
            pixels = np.asarray(image).astype(float)
        assert pixels.shape == (4, 4)
        return float(pixels[:, :2].mean()), float(pixels[:, 2:].mean())

    file = str(folder / "right" / "3.png")
    options = DrawOptions(output_dir=str(tmp_path / "out"), seed=0, num_samples=6)
    left, right, any_one, half = runner.predict(TASK, run, ["left", "right", "any", file], options)
    assert [one["class"] for one in (left, right, any_one, half)] == ["left", "right", None, None]
    correct = [sides(one)[0] > sides(one)[1] for one in left["files"]]
    correct += [sides(one)[0] < sides(one)[1] for one in (*right["files"], *half["files"])]
    assert len(correct) == 18 and np.mean(correct) > 0.8
    assert [Path(one).name for one in half["files"]] == [
        f"3-completed-{number}.png" for number in range(1, 7)
    ]
    with Image.open(file) as true:
        upper = np.asarray(true)[:2]
    for one in half["files"]:
        with Image.open(one) as made:
            np.testing.assert_array_equal(np.asarray(made)[:2] // 60, upper // 60)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "samples.png",
        *(Path(one).name for result in (left, right, any_one, half) for one in result["files"]),
    }
    loaded = TASK.load(run, device="cpu")
    levels = loaded.processor.processors["tokens"].to_levels([file])
    assert half["bits"] == pytest.approx(float(loaded.model.bits_per_value(levels)))
    assert "bits" not in left
    assert "3-completed-1.png to" in TASK.describe_prediction(half)
    wrong = runner.predict(TASK, run, [file], DrawOptions(of_class="left"))[0]
    assert wrong["class"] == "left" and wrong["bits"] > half["bits"] and "files" not in wrong


def test_options(run: Path, tmp_path: Path, folder: Path) -> None:
    def drawn(name: str, *inputs: str, **options: Any) -> list[np.ndarray[Any, Any]]:
        settings = DrawOptions(output_dir=str(tmp_path / name), num_samples=3, **options)
        found = runner.predict(TASK, run, inputs, settings)
        return [np.asarray(Image.open(path)) for result in found for path in result["files"]]

    first, again, other = (drawn(str(index), "left", seed=seed) for index, seed in enumerate((1, 1, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    both = drawn("3", "right", "left", seed=1)
    np.testing.assert_array_equal(both[3:], first)  # whatever else is asked for
    assert len(drawn("5", "left", greedy=True)) == 1
    file = str(folder / "left" / "3.png")
    with Image.open(file) as image:
        whole = np.asarray(image)
    for one in drawn("6", file, kept=1.0, greedy=True):
        np.testing.assert_array_equal(one // 60, whole // 60)
    assert len(drawn("7", file, kept=0.0, refill_latents=2, top_k=3, top_p=0.9)) == 3


def test_bad_inputs(run: Path, tmp_path: Path, folder: Path) -> None:
    file = str(folder / "left" / "3.png")
    for inputs, options, message in (
        (["left"], {}, "choose a folder with --output-dir"),
        (["up"], {"output_dir": str(tmp_path)}, "'up' is neither an image file nor a class: .*'left'"),
        ([str(tmp_path / "none.png")], {}, "missing"),
        ([file], {"of_class": "up"}, "of_class is 'up'"),
        (
            [file, str(folder / "right" / "3.png")],
            {"output_dir": str(tmp_path)},
            "Several results would be called",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            runner.predict(TASK, run, inputs, DrawOptions(**options))
    for options, message in (
        ({"kept": 1.5}, "kept is 1.5"),
        ({"temperature": 0}, "temperature is 0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"top_p": 2}, "top_p is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            DrawOptions(**options)


def test_the_bits_are_those_of_the_test_images(run: Path, folder: Path) -> None:
    found = runner.evaluate(ImageGenerationTask(), run)
    data = TASK.data(TASK.recipe_class(dataset=str(folder), **SMALL))
    loaded = TASK.load(run, device="cpu")
    rows = [data.test[index] for index in range(len(data.test))]
    levels = loaded.processor.processors["tokens"].to_levels([row["image"] for row in rows])
    bits = loaded.model.bits_per_value(levels, [row["label"] for row in rows])
    assert found["test_bits"] == pytest.approx(float(bits.mean()), rel=1e-5)
    assert found["test_bits"] == pytest.approx(found["test_loss"] / np.log(2), rel=1e-5)


def test_with_few_latents_an_evaluation_predicts_each_value_once(folder: Path) -> None:
    recipe = TASK.recipe_class(dataset=str(folder), num_latents=6, **SMALL)
    data = TASK.data(recipe)
    setup = build(TASK, recipe, data)
    rows = [data.test[index] for index in range(3)]
    batch = TASK.collator(setup, train=False)(rows)
    levels = setup.processor.processors["tokens"].to_levels([row["image"] for row in rows])
    assert batch["input_ids"].shape == (12, 17)  # four windows of five values, the last of one
    assert batch["conditions"]["label"].tolist() == [row["label"] for row in rows for _ in range(4)]
    counts = (batch["labels"] != IGNORED).sum(1).view(3, 4)
    assert counts.tolist() == [[5, 5, 5, 1]] * 3 and int(TASK.weight(batch)) == 48
    setup.model.eval()
    with torch.no_grad():
        loss = setup.model(**batch).loss
    labels = [row["label"] for row in rows]
    bits = setup.model.bits_per_value(levels, labels).mean()
    assert float(loss) / np.log(2) == pytest.approx(float(bits), rel=1e-5)
    train = TASK.collator(setup, train=True)(rows)
    assert len(train["labels"]) == 3 and ((train["labels"] != IGNORED).sum(1) <= 5).all()
    setup.model.train()(**train).loss.backward()


def test_data_without_classes(folder: Path, tmp_path: Path) -> None:
    for index in range(20):
        Image.new("RGB", (8, 6), (10 * index, 0, 0)).save(tmp_path / f"{index}.png")
    settings = {**SMALL, "num_levels": None, "dataset": str(tmp_path)}
    recipe = TASK.recipe_class(**settings)
    setup = build(TASK, recipe, TASK.data(recipe))
    assert setup.model.num_classes == 0 and "label" not in setup.model.config.inputs
    tokens = setup.model.tokens
    assert (tokens.size, tokens.num_channels, tokens.num_levels) == ((6, 8), 3, 256)
    batch = TASK.collator(setup, train=True)([setup.data.train[0]])
    assert set(batch) == {"input_ids", "labels"} and batch["input_ids"].shape == (1, 145)
    left_out = TASK.recipe_class(dataset=str(folder), class_conditional=False, **SMALL)
    setup = build(TASK, left_out, TASK.data(left_out))
    assert setup.model.num_classes == 0
    assert "conditions" not in TASK.collator(setup, train=True)([setup.data.train[0]])
    assert set(TASK.pictures(setup, {})) >= {"samples.png", "completions.png"}


def test_variation_shifts_whole_pixels(folder: Path) -> None:
    augmentation = {"crop": "pad", "crop_padding": 1}
    recipe = TASK.recipe_class(dataset=str(folder), augmentation=augmentation, **SMALL)
    setup = build(TASK, recipe, TASK.data(recipe))
    rows = [setup.data.train[0]] * 60
    torch.manual_seed(0)
    train, test = (TASK.collator(setup, train=train)(rows)["input_ids"] for train in (True, False))
    assert (test == test[0]).all()
    found = {tuple(one.tolist()) for one in train}
    levels = np.pad(setup.model.tokens.to_levels(test[:1])[0, 0].numpy(), 1)
    shifted = [levels[top : top + 4, left : left + 4] for top in range(3) for left in range(3)]
    assert found == {(0, *(1 + one.flatten()).tolist()) for one in shifted}


def test_a_run_starts_from_another(run: Path, folder: Path) -> None:
    recipe = TASK.recipe_class(dataset=str(folder), pretrained=str(run), label_dropout=0.5, device="cpu")
    setup = build(TASK, recipe, TASK.data(recipe))
    assert setup.model.config.packing.input_dropout == (("label", 0.5),)
    trained = TASK.load(run, device="cpu").model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in setup.model.state_dict().items())
    digits = TASK.recipe_class(dataset="digits", pretrained=str(run), device="cpu")
    with pytest.raises(ValueError, match="knows the classes \\['left', 'right'\\]"):
        build(TASK, digits, TASK.data(digits))
    unconditional = TASK.recipe_class(
        dataset="digits", pretrained=str(run), class_conditional=False, device="cpu"
    )
    setup = build(TASK, unconditional, TASK.data(unconditional))
    batch = TASK.collator(setup, train=True)([setup.data.train[0]])
    assert batch["input_ids"].shape == (1, 17) and "conditions" not in batch


def test_embedded_digits() -> None:
    recipe = TASK.recipe_class(dataset="digits")
    assert recipe.num_levels == 17
    data = TASK.data(recipe)
    setup = build(TASK, recipe, data)
    assert setup.model.tokens.size == (8, 8) and setup.model.num_classes == 10
    assert setup.model.num_latents == 65 and setup.model.max_length == 66
    assert TASK.recipe_class(dataset="photo-crops").num_levels == 256


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_levels": 1}, "num_levels is 1"),
        ({"image_channels": 2}, "image_channels is 2"),
        ({"image_size": [1, 2, 3]}, "image_size is"),
        ({"label_dropout": 1.5}, "label_dropout is 1.5"),
        ({"num_latents": 1}, "num_latents is 1"),
        ({"augmentation": {"mixup": 0.2}}, "mixup is for classifiers"),
        ({"augmentation": {"sepia": 1}}, "no augmentation 'sepia'"),
        ({"pretrained": "runs/x", "num_levels": 5}, "num_levels cannot be chosen"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASK.recipe_class(dataset="digits", **settings)

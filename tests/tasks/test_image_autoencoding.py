"""Image autoencoding: the bottleneck, the measures, and what is read and written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.running import PredictOptions, runner
from perceiver_io.running.building import build
from perceiver_io.tasks.dense import squared_loss
from perceiver_io.tasks.dense.task import at_drawn_points
from perceiver_io.tasks.image_autoencoding import PerceiverIOForImageAutoencoding, config
from perceiver_io.tasks.image_autoencoding.data import photo_crops
from perceiver_io.tasks.image_autoencoding.task import ImageAutoencodingTask
from perceiver_io.tasks.image_classification.task import ImageClassificationTask

TASK = ImageAutoencodingTask()
SMALL: dict[str, Any] = {
    "batch_size": 16,
    "device": "cpu",
    "report_to": "none",
    "model": {
        "inputs": {"image": {"num_bands": 4}},
        "encoder": {"num_latents": 4, "latent_channels": 32, "num_self_attends_per_block": 1},
    },
    "augmentation": {"rotation": 0, "translation": 0, "scaling": 0, "brightness": 0},
}


def small_model(**decoder: Any) -> PerceiverIOForImageAutoencoding:
    made = config(size=(8, 12), encoder={"num_latents": 4, "latent_channels": 16}, decoder=decoder)
    return PerceiverIOForImageAutoencoding(made).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a left and a right half of any two colours, all in one folder."""
    path = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    for index in range(60):
        pixels = np.zeros((8, 12, 3), np.uint8)
        pixels[:, :6], pixels[:, 6:] = rng.integers(0, 255, (2, 3))
        Image.fromarray(pixels).save(path / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("autoencoder") / "run"
    recipe = TASK.recipe_class(
        dataset=str(folder), output_dir=str(path), max_steps=200, evaluate_every=200, **SMALL
    )
    runner.train(TASK, recipe)
    return path


def test_pictures_are_learned(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test_psnr"] > metrics["test_mean_image_psnr"] + 3
    assert {"reconstructions.png", "attention.png"} <= {path.name for path in run.iterdir()}


def test_the_measures_are_those_of_the_squared_error(run: Path, folder: Path) -> None:
    found = runner.evaluate(ImageAutoencodingTask(), run)
    recipe = TASK.recipe_class(dataset=str(folder), **SMALL)
    data = TASK.data(recipe)
    loaded = TASK.load(run, device="cpu")
    true, train = (
        np.stack([np.asarray(rows[index]["image"]) for index in range(len(rows))]) / 255.0
        for rows in (data.test, data.train)
    )
    pixels = loaded.processor([Image.fromarray((one * 255).astype(np.uint8)) for one in true])["pixel_values"]
    with torch.no_grad():
        made = (loaded.model(pixels).reconstruction.permute(0, 2, 3, 1).numpy() + 1) / 2
    error = ((made.clip(0, 1) - true) ** 2).mean()
    assert found["test_psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    of_mean = ((train.mean(0) - true) ** 2).mean()
    assert found["test_mean_image_psnr"] == pytest.approx(-10 * math.log10(of_mean), abs=1e-3)


def test_the_image_passes_through_the_latents() -> None:
    """Two images with the same latents would come out alike: the queries know nothing of an image."""
    model = small_model()
    first, second = torch.randn(2, 1, 3, 8, 12)
    encoded = [model.perceiver.encode({"image": one}) for one in (first, second)]
    swapped = type(encoded[0])(latents=encoded[0].latents, byte_arrays=encoded[1].byte_arrays)
    torch.testing.assert_close(model.perceiver.decode(swapped)["image"], model(first).reconstruction)
    with pytest.raises(ValueError, match="The queries of an autoencoder are positions"):
        small_model(query_input="image", query_input_channels=3, position="none")


def test_points_and_their_loss() -> None:
    model = small_model()
    pixels = torch.randn(2, 3, 8, 12)
    whole = model(pixels, labels=pixels)
    torch.testing.assert_close(whole.loss, (whole.reconstruction - pixels).square().mean())
    batch = at_drawn_points({"pixel_values": pixels, "labels": pixels}, 10, channels=True)
    assert batch["labels"].shape == (2, 10, 3)
    some = model(**batch)
    for sample in range(2):
        places = batch["points"][sample]
        torch.testing.assert_close(batch["labels"][sample], pixels[sample].flatten(1).T[places])
        expected = whole.reconstruction[sample].flatten(1).T[places]
        torch.testing.assert_close(some.reconstruction[sample], expected)
    every = at_drawn_points({"labels": pixels}, 1000, channels=True)  # more than there are
    assert sorted(every["points"][0].tolist()) == list(range(96))
    torch.testing.assert_close(model(pixels, labels=every["labels"], points=every["points"]).loss, whole.loss)
    two = at_drawn_points({"labels": pixels}, 2, channels=True)
    assert two["points"].shape == (2, 2, 2)  # by axis: (2, 2) would be misread


def test_what_is_unknown_is_not_drawn() -> None:
    labels = torch.randn(2, 3, 4, 5)
    labels[0, 1, :2] = torch.nan
    batch = at_drawn_points({"labels": labels}, 15, channels=True)
    assert sorted(batch["points"][0, :10].tolist()) == list(range(10, 20))
    assert batch["labels"][0, 10:].isnan().all() and not batch["labels"][1].isnan().any()
    values = torch.randn(2, 15, 3)
    known = ~batch["labels"].isnan()
    by_hand = [(values[b] - batch["labels"][b])[known[b]].square().mean() for b in range(2)]
    torch.testing.assert_close(squared_loss(values, batch["labels"]), torch.stack(by_hand).mean())


def test_what_comes_in_from_outside_is_not_learned(folder: Path) -> None:
    recipe = TASK.recipe_class(dataset=str(folder), **{**SMALL, "augmentation": {"translation": 0.5}})
    setup = build(TASK, recipe, TASK.data(recipe))
    vary = TASK.variation(setup.processor, recipe)
    rows = [vary(setup.data.train[index]) for index in range(8)]
    batch = TASK.collate(rows, setup.processor)
    outside = batch["labels"].isnan().all(1)
    assert outside.any() and not outside.all()
    torch.testing.assert_close(
        batch["labels"].nan_to_num(7)[:, 0], torch.where(outside, 7, batch["pixel_values"][:, 0])
    )


def test_predictions_have_the_size_of_their_file(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12], pixels[:, 12:] = (200, 30, 90), (20, 180, 60)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.new("RGB", (12, 8), (70, 70, 70)).save(tmp_path / "constant.png")
    files = [str(tmp_path / name) for name in ("large.png", "constant.png")]
    found = runner.predict(TASK, run, files, PredictOptions(output_dir=str(tmp_path / "out")))
    for one, file in zip(found, files, strict=True):
        with Image.open(one["files"][0]) as made, Image.open(file) as true:
            assert made.size == true.size == (one["width"], one["height"])
            error = (np.asarray(made).astype(float) - np.asarray(true)).astype(float)
        expected = -10 * math.log10((error**2).mean() / 255**2)
        assert one["psnr"] == pytest.approx(expected, abs=1e-3)
        assert f"PSNR {one['psnr']:.2f} dB" in TASK.describe_prediction(one)


def test_a_set_of_one_constant_colour(tmp_path: Path) -> None:
    for index in range(12):
        Image.new("RGB", (8, 8), (120, 120, 120)).save(tmp_path / f"{index}.png")
    recipe = TASK.recipe_class(
        dataset=str(tmp_path), output_dir=str(tmp_path / "run"), max_steps=1, evaluate_every=1, **SMALL
    )
    metrics = runner.train(TASK, recipe)
    assert math.isfinite(metrics["test_psnr"])


def test_a_classifier_starts_from_an_autoencoder(run: Path) -> None:
    task = ImageClassificationTask()
    recipe = task.recipe_class(dataset="digits", pretrained=str(run), train_fraction=0.05, image_size=[8, 12])
    data = task.data(recipe)
    setup = build(task, recipe, data)
    old = TASK.load(run, device="cpu").model
    for part in ("adapters", "encoder"):
        new = getattr(setup.model.perceiver, part).state_dict()
        assert (new or part == "adapters") and all(
            torch.equal(value, new[name]) for name, value in getattr(old.perceiver, part).state_dict().items()
        )


def test_embedded_crops_share_no_pixel() -> None:
    crops = photo_crops()
    assert len(crops.rows) == 520 and {row["image"].shape for row in crops.rows} == {(32, 32, 3)}
    assert len({row["image"].tobytes() for row in crops.rows}) > 500


def test_bad_settings() -> None:
    for changes, message in (
        ({"num_points": 0}, "num_points is 0"),
        ({"image_channels": 2}, "image_channels is 2"),
        ({"augmentation": {"sepia": 1}}, "The section augmentation"),
    ):
        with pytest.raises(ValueError, match=message):
            TASK.recipe_class(dataset="photo-crops", **changes)

"""Semantic segmentation and depth: from files to a run, and back with auto classes and pipelines of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForSemanticSegmentation,
    pipeline,
)

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.media.images import open_image
from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.running import PredictOptions, parse_recipe, read_recipe_file, runner
from perceiver_io.tasks import depth_estimation as de
from perceiver_io.tasks import semantic_segmentation as ss
from perceiver_io.tasks.dense import UNKNOWN, image_task
from perceiver_io.tasks.dense.image_maps import resized_map
from perceiver_io.tasks.dense.map_variation import MapAugmentation, MapVariation
from perceiver_io.tasks.depth_estimation.data import DEPTHS, depth_values, plain
from perceiver_io.tasks.depth_estimation.picture import in_colours
from perceiver_io.tasks.depth_estimation.task import DepthEstimationTask
from perceiver_io.tasks.semantic_segmentation.data import digit_canvases, mask_classes
from perceiver_io.tasks.semantic_segmentation.picture import draw_segmentation, overlay
from perceiver_io.tasks.semantic_segmentation.task import SemanticSegmentationTask

SEGMENTATION, DEPTH = SemanticSegmentationTask(), DepthEstimationTask()
SIZE = (12, 16)


@pytest.fixture(autouse=True, scope="module")
def plain_pictures() -> Iterator[None]:
    """Pictures of attention have tests of their own, and take longer than all else here."""

    def draw(*args: Any, **kwargs: Any) -> None:
        next(one for one in args if isinstance(one, Path)).write_bytes(b"png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_task, "draw_view", draw)
        patch.setattr(runner, "draw_learning_curve", draw)
        yield


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on dark ground, and which pixels are its."""
    rng = np.random.default_rng(index)
    pixels = rng.integers(0, 60, (24, 32, 3), dtype=np.uint8)
    mask = np.zeros((24, 32), dtype=np.uint8)
    top, left = rng.integers(0, 14), rng.integers(0, 22)
    mask[top : top + 10, left : left + 10] = 1
    pixels[mask == 1] += 150
    return pixels, mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images", "masks", "depths"):
        (root / name).mkdir()
    for index in range(20):
        pixels, mask = scene(index)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        depth = (mask.astype(np.uint16) + 1) * 500
        mask[:3], depth[:3] = 255, 0  # not known
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        Image.fromarray(depth).save(root / "depths" / f"{index}.png")
    return root


SMALL = {
    "encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_qk_channels": 16},
    "inputs": {"image": {"feature_channels": 32, "num_residual_convolutions": 2}},
}
SETTINGS: dict[str, Any] = {
    "image_size": list(SIZE),
    "model": SMALL,
    "max_steps": 40,
    "batch_size": 8,
    "num_points": 64,
    "device": "cpu",
    "num_threads": 1,
    "report_to": "none",
    "evaluate_every": 40,
}


@pytest.fixture(scope="module")
def segmented(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("segmented") / "run"
    recipe = SEGMENTATION.recipe_class(
        dataset=str(folder), output_dir=str(path), class_names=["ground", "square"], **SETTINGS
    )
    runner.train(SEGMENTATION, recipe)
    return path


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "run"
    longer = {**SETTINGS, "max_steps": 120, "evaluate_every": 120}
    recipe = DEPTH.recipe_class(dataset=str(folder), output_dir=str(path), unit=0.001, **longer)
    runner.train(DEPTH, recipe)
    return path


def test_a_bright_square_is_found(segmented: Path) -> None:
    metrics = json.loads((segmented / "metrics.json").read_text())
    assert metrics["test_mean_iou"] > 0.8
    assert set(metrics["iou_per_class"]) == {"ground", "square"}
    assert metrics["test_mean_iou"] == pytest.approx(
        np.mean(list(metrics["iou_per_class"].values())), rel=1e-5
    )
    names = {path.name for path in segmented.iterdir()}
    assert {"segmentation.png", "attention.png", "preprocessor_config.json"} <= names


def test_the_measures_are_those_of_counts(segmented: Path, folder: Path) -> None:
    found = runner.evaluate(SEGMENTATION, segmented)
    recipe = SEGMENTATION.recipe_class(dataset=str(folder), class_names=["ground", "square"], **SETTINGS)
    rows = list(SEGMENTATION.data(recipe).test)
    loaded = SEGMENTATION.load(segmented, device="cpu")
    batch = SEGMENTATION.collate(rows, loaded.processor)
    with torch.no_grad():
        classes = loaded.model(batch["pixel_values"]).logits.argmax(1)
    known = batch["labels"] != UNKNOWN
    assert not known.all()
    both = [((classes == one) & (batch["labels"] == one)).sum() for one in range(2)]
    either = [(((classes == one) | (batch["labels"] == one)) & known).sum() for one in range(2)]
    iou = np.mean([float(a / b) for a, b in zip(both, either, strict=True)])
    assert found["test_mean_iou"] == pytest.approx(iou, rel=1e-5)
    accuracy = (classes == batch["labels"])[known].float().mean()
    assert found["test_pixel_accuracy"] == pytest.approx(float(accuracy), rel=1e-5)


def test_depths_are_learned_in_their_unit(measured: Path) -> None:
    metrics = json.loads((measured / "metrics.json").read_text())
    assert metrics["test_r2"] > 0.4 and metrics["test_mae"] < 0.15  # the numbers are 0.5 and 1 metres
    config = json.loads((measured / "config.json").read_text())["outputs"]["depth"]
    assert 0.5 < config["offset"] < 0.8


def test_predictions_have_the_size_of_their_file(segmented: Path, folder: Path, tmp_path: Path) -> None:
    files = [str(folder / "images" / f"{index}.png") for index in (3, 4)]
    found = runner.predict(SEGMENTATION, segmented, files, PredictOptions(output_dir=str(tmp_path / "out")))
    for index, one in zip((3, 4), found, strict=True):
        classes = np.asarray(open_image(one["files"][0]))
        assert classes.shape == (24, 32) == (one["height"], one["width"])
        parts = {part["label"]: part["part"] for part in one["classes"]}
        assert parts["square"] == pytest.approx((classes == 1).mean())
        assert (classes == scene(index)[1]).mean() > 0.9
        assert open_image(one["files"][1]).size == (32, 24)


def test_depths_of_files(measured: Path, folder: Path, tmp_path: Path) -> None:
    (found,) = runner.predict(
        DEPTH, measured, [str(folder / "images" / "3.png")], PredictOptions(output_dir=str(tmp_path / "out"))
    )
    depth = np.load(found["files"][0])
    assert depth.shape == (24, 32) and depth.dtype == np.float32
    assert (found["nearest"], found["farthest"]) == (depth.min(), depth.max())
    assert found["mean"] == pytest.approx(depth.mean(), rel=1e-5)


def test_segmentation_by_transformers(segmented: Path, folder: Path) -> None:
    model = AutoModelForSemanticSegmentation.from_pretrained(segmented).eval()
    assert isinstance(model, ss.PerceiverIOForSemanticSegmentation)
    assert model.config.id2label == {0: "ground", 1: "square"}
    processor = AutoImageProcessor.from_pretrained(segmented)
    image = open_image(folder / "images" / "5.png")
    segment = pipeline("image-segmentation", model=str(segmented), device="cpu")
    with torch.no_grad():
        logits = model(**processor(image)).logits
    scaled = torch.nn.functional.interpolate(logits, size=(24, 32), mode="bilinear")[0].argmax(0)
    for one in segment(image):
        index = model.config.label2id[one["label"]]
        assert np.array_equal(np.asarray(one["mask"]) == 255, (scaled == index).numpy())
    with pytest.raises(ValueError, match="Got 2 target_sizes for 1 images"):
        processor.post_process_semantic_segmentation(model(**processor(image)), [(2, 2), (3, 3)])


def test_depths_by_transformers(measured: Path, folder: Path) -> None:
    model = AutoModelForDepthEstimation.from_pretrained(measured).eval()
    assert isinstance(model, de.PerceiverIOForDepthEstimation)
    image = open_image(folder / "images" / "5.png")
    found = pipeline("depth-estimation", model=str(measured), device="cpu")(image)
    with torch.no_grad():
        depth = model(**AutoImageProcessor.from_pretrained(measured)(image)).predicted_depth
    expected = torch.nn.functional.interpolate(depth[None], size=(24, 32), mode="bilinear")[0, 0]
    torch.testing.assert_close(torch.as_tensor(found["predicted_depth"]), expected)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_one_model_gives_outputs_of_other_resolutions(segmented: Path, folder: Path, factor: float) -> None:
    loaded = SEGMENTATION.load(segmented, device="cpu")
    size = (int(SIZE[0] * factor), int(SIZE[1] * factor))
    hits = []
    for index in range(6):
        pixels, mask = scene(index)
        values = loaded.processor(Image.fromarray(pixels))["pixel_values"]
        with torch.no_grad():
            classes = loaded.model(values, grid=size).logits.argmax(1)[0]
        assert tuple(classes.shape) == size
        hits.append((classes == resized_map(torch.from_numpy(mask), size)).float().mean())
    assert torch.stack(hits).mean() > 0.9


def test_images_of_other_sizes_give_maps_as_large(segmented: Path) -> None:
    model = SEGMENTATION.load(segmented, device="cpu").model
    with torch.no_grad():
        assert model(torch.randn(1, 3, 20, 28)).logits.shape == (1, 2, 20, 28)


def test_fine_tuning_for_other_classes(segmented: Path, folder: Path, tmp_path: Path) -> None:
    recipe = SEGMENTATION.recipe_class(
        dataset=str(folder),
        output_dir=str(tmp_path / "tuned"),
        pretrained=str(segmented),
        unknown_classes=[],
        class_names=[str(index) for index in range(256)],
        **{**SETTINGS, "model": {}, "max_steps": 1},
    )
    runner.train(SEGMENTATION, recipe)
    model = SEGMENTATION.load(tmp_path / "tuned").model
    assert model.config.outputs["classes"].output_channels == 256


def test_empty_lists_come_back_from_a_recipe_file(tmp_path: Path) -> None:
    recipe = SEGMENTATION.recipe_class(dataset="digit-canvases", unknown_classes=[])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(task="semantic-segmentation"))
    values = read_recipe_file(tmp_path / "recipe.yaml", task="semantic-segmentation")
    again = parse_recipe(SEGMENTATION.recipe_class, values=values)
    assert again == recipe and again.unknown_classes == again.class_names == []
    with pytest.raises(ValueError, match="expected at least one argument"):
        parse_recipe(SEGMENTATION.recipe_class, ["--class-names"])


@pytest.mark.parametrize("unlabelled", [True, False])
def test_batches_without_a_label(folder: Path, tmp_path: Path, unlabelled: bool) -> None:
    """Every pixel unknown: nothing is learned, nothing breaks."""
    recipe = SEGMENTATION.recipe_class(
        dataset=str(folder),
        output_dir=str(tmp_path / "run"),
        class_names=["a", "b"],
        unknown_classes=[0, 1, 255] if unlabelled else [255],
        **{**SETTINGS, "max_steps": 2, "weight_decay": 0.0},
    )
    metrics = runner.train(SEGMENTATION, recipe)
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert all((loss == 0) == unlabelled for loss in losses)


def test_masks_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for index in range(10):
            size = (32, 24) if name == "images" or index else (30, 24)
            Image.new("L", size, index % 2).save(tmp_path / name / f"{index}.png")
    recipe = SEGMENTATION.recipe_class(dataset=str(tmp_path), validation_fraction=0.0, **SETTINGS)
    with pytest.raises(ValueError, match="An image of 32x24 pixels has a mask of 30x24"):
        for rows in (SEGMENTATION.data(recipe).train, SEGMENTATION.data(recipe).test):
            [rows[index] for index in range(len(rows))]


def test_classes_are_counted_where_none_are_named(folder: Path) -> None:
    recipe = SEGMENTATION.recipe_class(dataset=str(folder), **SETTINGS)
    assert SEGMENTATION.data(recipe).class_names == ("0", "1")
    with pytest.raises(ValueError, match="class_names are"):
        SEGMENTATION.recipe_class(class_names=["one"])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), r"one class index a pixel, got uint8 \(4, 5, 3\)"),
        (np.zeros((4, 5)), r"got float64 \(4, 5\)"),
    ],
)
def test_what_is_no_mask(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_classes(mask, unknown=())


def test_masks_of_palettes_hold_indices() -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8), mode="P")
    mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert mask_classes(mask, unknown=[255, 1]).tolist() == [[0, UNKNOWN], [2, UNKNOWN]]


@pytest.mark.parametrize("suffix", ["npy", "npz", "png", "tiff"])
def test_files_of_depths(tmp_path: Path, suffix: str) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    file = tmp_path / f"depth.{suffix}"
    if suffix == "npy":
        np.save(file, values.astype(np.float64))
    elif suffix == "npz":
        np.savez(file, values)
    else:
        Image.fromarray(values).save(file)
    found = depth_values(DEPTHS.read(str(file)), unit=0.001, unknown=0.0)
    expected = torch.arange(12.0).reshape(3, 4)
    expected[0, 0] = torch.nan
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_bad_files_of_depths(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="an archive of 2 arrays, expected one"):
        DEPTHS.read(str(tmp_path / "two.npz"))
    np.save(tmp_path / "cut.npy", np.zeros((8, 8)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:200])
    assert "damaged" in str(DEPTHS.fault({"path": str(tmp_path / "cut.npy"), "bytes": None}))
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    assert "damaged" in str(DEPTHS.fault({"path": str(tmp_path / "objects.npy"), "bytes": None}))
    with pytest.raises(ValueError, match=r"one number a pixel, got float64 \(2, 2, 3\)"):
        depth_values(np.zeros((2, 2, 3)), unit=1.0, unknown=None)


def test_a_set_without_a_known_depth_is_refused(folder: Path) -> None:
    recipe = DEPTH.recipe_class(dataset=str(folder), unknown=500.0, **SETTINGS)
    data = DEPTH.data(recipe).mapped(lambda row: {**row, "depth": torch.full((24, 32), torch.nan)})
    with pytest.raises(ValueError, match="has a known number"):
        DEPTH.config(recipe, data)


def test_images_and_maps_vary_together() -> None:
    """The map is a channel of the image: after any variation of place it still is, where it is known."""
    torch.manual_seed(0)
    vary = MapVariation(
        MapAugmentation(horizontal_flip=True, rotation=0, translation=0.3, scaling=0, brightness=0),
        unknown=UNKNOWN,
    )
    image = torch.randint(1, 256, (3, 20, 30), dtype=torch.uint8)
    moved = 0
    for _ in range(20):
        varied, classes = vary(image, image[0].long())
        known = classes != UNKNOWN
        assert torch.equal(varied[0][known].long(), classes[known])
        assert not varied[:, ~known].any()
        moved += not torch.equal(varied, image)
    assert moved > 15


def test_nothing_varies_if_nothing_is_to() -> None:
    still = MapAugmentation(rotation=0, translation=0, scaling=0, brightness=0)
    image, classes = torch.randint(256, (3, 4, 5), dtype=torch.uint8), torch.randint(3, (4, 5))
    assert MapVariation(still, unknown=-100)(image, classes) == (image, classes)
    for wrong in ({"rotation": 200.0}, {"scaling": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MapAugmentation(**wrong)


def test_a_map_is_resized_without_mixing() -> None:
    classes = torch.randint(5, (7, 9))
    expected = torch.nn.functional.interpolate(
        classes[None, None].float(), size=(14, 4), mode="nearest-exact"
    )
    assert torch.equal(resized_map(classes, (14, 4)), expected[0, 0].long())
    assert resized_map(classes, (7, 9)) is classes


def test_embedded_sets() -> None:
    canvases = digit_canvases()
    assert len(canvases.rows) == 2000 and len(canvases.class_names) == 11
    present = [set(np.unique(row["mask"])) for row in canvases.rows]
    assert set.union(*present) == set(range(11)) and all(len(one) >= 2 for one in present)
    assert digit_canvases().rows[17]["image"].tolist() == canvases.rows[17]["image"].tolist()
    views = plain()
    depths = np.stack([row["depth"] for row in views.rows])
    assert len(views.rows) == 600 and np.nanmin(depths) > 0 and np.isnan(depths[:, 0]).mean() > 0.5
    # What stands on the plain is as far as the ground at its foot, or hidden: nowhere is it beyond the ground behind.
    assert np.nanmax(depths) <= 80


def test_overlays_and_colours() -> None:
    colours = class_colours(40)
    assert len({tuple(one) for one in colours.tolist()}) == 40
    image = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    laid = overlay(image, np.array([[0, 1], [2, UNKNOWN]]), colours)
    assert laid[1, 1].tolist() == [100, 100, 100]
    assert laid[0, 1].tolist() == [round(40 + 0.6 * int(part)) for part in colours[1]]
    depth = np.array([[1.0, 2.0], [3.0, np.nan]], dtype=np.float32)
    painted = in_colours(depth, 1.0, 3.0)
    assert painted[1, 1].tolist() == [128] * 3 and painted[0, 0].sum() > painted[1, 0].sum()


def test_pictures_show_what_is_wrong(tmp_path: Path) -> None:
    true = np.zeros((1, 32, 32), np.int64)
    found = true.copy()
    found[0, :16] = 1
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    draw_segmentation([image], true, found, ["a", "b"], tmp_path / "wrong.png")
    picture = np.asarray(open_image(tmp_path / "wrong.png").convert("L"))
    white = (picture[40:200, -190:-20] == 255).mean(1)  # the last panel
    assert white[10] > 0.9 and white[-1] < 0.1


def test_sizes_that_are_no_multiple_of_an_element() -> None:
    with pytest.raises(ValueError, match="Images of 30x32 pixels are 8x8 elements"):
        ss.config(size=(30, 32))
    with pytest.raises(ValueError, match="image_size is"):
        SEGMENTATION.recipe_class(image_size=[1, 2, 3])


def test_models_with_other_outputs_are_refused() -> None:
    config = ss.config(num_classes=3, size=(16, 16))
    with pytest.raises(ValueError, match="channel_axis=None"):
        de.PerceiverIOForDepthEstimation(config)
    model = de.PerceiverIOForDepthEstimation(de.config(size=(16, 16), decoder={"num_bands": 4}))
    with pytest.raises(ValueError, match="points and grid exclude each other"):
        model(torch.randn(1, 3, 16, 16), points=torch.arange(3), grid=(4, 4))


def test_a_depth_at_points_is_that_of_the_whole() -> None:
    model = de.PerceiverIOForDepthEstimation(de.config(size=(16, 16), offset=3.0, scale=2.0)).eval()
    images = torch.randn(2, 3, 16, 16)
    labels = torch.rand(2, 16, 16)
    with torch.no_grad():
        whole = model(images, labels=labels)
        some = model(images, points=torch.tensor([3, 70]), labels=labels.flatten(1)[:, [3, 70]])
    torch.testing.assert_close(some.predicted_depth, whole.predicted_depth.flatten(1)[:, [3, 70]])
    torch.testing.assert_close(whole.loss, (whole.predicted_depth - labels).abs().mean() / 2)
    assert isinstance(PerceiverIOImageProcessor(size=16), PerceiverIOImageProcessor)

"""Parts of point clouds: from files to a run and back, and that what should not matter does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import perceiver_io
from perceiver_io.media.clouds import read_labelled_cloud
from perceiver_io.running import PredictOptions, runner
from perceiver_io.tasks import point_cloud_segmentation as ps
from perceiver_io.tasks.dense import UNKNOWN
from perceiver_io.tasks.point_cloud_segmentation import task as parts_task
from perceiver_io.tasks.point_cloud_segmentation.data import assembled, point_classes
from perceiver_io.tasks.point_cloud_segmentation.picture import draw_parts
from perceiver_io.tasks.point_cloud_segmentation.task import (
    PointCloudSegmentationRecipe,
    PointCloudSegmentationTask,
)

TASK = PointCloudSegmentationTask()


@pytest.fixture(autouse=True, scope="module")
def plain_pictures() -> Iterator[None]:
    """Pictures of attention have tests of their own, and take longer than all else here."""

    def draw(*args: Any, **kwargs: Any) -> None:
        next(one for one in args if isinstance(one, Path)).write_bytes(b"png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_task, "draw_view", draw)
        patch.setattr(runner, "draw_learning_curve", draw)
        yield


def dumbbell(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bar (0) between two weights (1), along any direction on the ground, with a column of no meaning."""
    rng = np.random.default_rng(seed)
    number = int(rng.integers(20, 40))
    labels = rng.integers(0, 2, number)
    labels[:2] = 0, 1
    along = np.where(labels == 1, rng.choice([-1, 1], number) * rng.uniform(0.7, 1, number), 0)
    along = np.where(labels == 0, rng.uniform(-0.5, 0.5, number), along)
    points = np.column_stack([along, rng.normal(0, 0.05, (number, 2)), rng.normal(size=number)])
    return points + np.array([5, 0, 0, 0]), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clouds and labels in two folders, in several forms."""
    root = tmp_path_factory.mktemp("dumbbells")
    for name in ("clouds", "labels"):
        (root / name).mkdir()
    for seed in range(40):
        points, labels = dumbbell(seed)
        labels[-1] = 9  # not known
        if seed % 2:
            np.savetxt(root / "clouds" / f"{seed}.xyz", points)
            np.savetxt(root / "labels" / f"{seed}.seg", labels, fmt="%d")
        else:
            np.save(root / "clouds" / f"{seed}.npy", points)
            np.save(root / "labels" / f"{seed}.npy", labels)
    return root


def recipe(dataset: Path | str, output: Path, **changes: Any) -> PointCloudSegmentationRecipe:
    settings: dict[str, Any] = {
        "dataset": str(dataset),
        "output_dir": str(output),
        "cloud": {"max_points": 24},
        "unknown_classes": [9],
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_qk_channels": 16}},
        "max_steps": 80,
        "evaluate_every": 80,
        "batch_size": 8,
        "num_points": 16,
        "device": "cpu",
        "report_to": "none",
        "log_every": 0,
    }
    return PointCloudSegmentationRecipe(**{**settings, **changes})


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    runner.train(TASK, recipe(folder, path, class_names=["bar", "weight"]))
    return path


def test_the_weights_of_a_dumbbell_are_found(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test_mean_iou"] > 0.8 and set(metrics["iou_per_class"]) == {"bar", "weight"}
    assert (trained / "parts.png").stat().st_size > 10_000


def test_the_measures_are_those_of_counts(trained: Path, folder: Path) -> None:
    found = runner.evaluate(TASK, trained)
    rows = list(TASK.data(recipe(folder, trained, class_names=["bar", "weight"])).test)
    counts = np.zeros((2, 2))
    for row in rows:  # each by itself: all of its points, those too that are not read
        np.save(trained.parent / "cloud.npy", row["cloud"])
        (one,) = runner.predict(
            TASK, trained, [str(trained.parent / "cloud.npy")], PredictOptions(output_dir=str(trained.parent))
        )
        assert one["points"] == len(row["cloud"]) == len(row["labels"])
        classes = np.load(trained.parent / "cloud-labels.npy")
        known = row["labels"].numpy() != UNKNOWN
        assert known.sum() == len(known) - 1
        np.add.at(counts, (row["labels"].numpy()[known], classes[known]), 1)
        for name in ("cloud-labels.npy", "cloud-parts.ply"):
            (trained.parent / name).unlink()
    both = np.diag(counts)
    iou = both / (counts.sum(0) + counts.sum(1) - both)
    assert found["test_mean_iou"] == pytest.approx(iou.mean(), rel=1e-5)
    assert found["test_point_accuracy"] == pytest.approx(both.sum() / counts.sum(), rel=1e-5)
    assert list(found["iou_per_class"].values()) == pytest.approx(iou.tolist(), rel=1e-5)


def test_what_is_written_are_the_points_with_their_classes(
    trained: Path, folder: Path, tmp_path: Path
) -> None:
    file = folder / "clouds" / "0.npy"
    (one,) = runner.predict(TASK, trained, [str(file)], PredictOptions(output_dir=str(tmp_path)))
    assert one["files"] == [str(tmp_path / "0-labels.npy"), str(tmp_path / "0-parts.ply")]
    points, labels = read_labelled_cloud(one["files"][1])
    np.testing.assert_array_equal(points[:, :3], np.load(file)[:, :3].astype(np.float32))
    np.testing.assert_array_equal(labels, np.load(one["files"][0]))
    assert len({tuple(colour) for colour in points[:, 3:].tolist()}) == len(one["classes"]) == 2
    parts = {part["label"]: part["part"] for part in one["classes"]}
    assert parts["weight"] == pytest.approx((labels == 1).mean())
    line = TASK.describe_prediction(one)
    assert "weight" in line and "0-parts.ply" in line


def test_order_padding_place_and_size_change_nothing(trained: Path) -> None:
    model = perceiver_io.from_pretrained(trained).eval()
    assert isinstance(model, ps.PerceiverIOForPointCloudSegmentation)
    processor = TASK.load_processor(trained)
    clouds = [dumbbell(seed)[0][:size] for seed, size in enumerate((3, 20, 11, 24))]
    rows = [{"cloud": cloud} for cloud in clouds]

    def logits(rows: list[dict[str, Any]]) -> torch.Tensor:
        with torch.no_grad():
            return model(**TASK.collate(rows, processor)).logits

    together = logits(rows)
    assert together.shape == (4, 2, 24)
    order = torch.from_numpy(np.random.default_rng(0).permutation(24))
    turned = logits([{"cloud": clouds[3][order.numpy()] * 3.0 + 50}])
    torch.testing.assert_close(turned[0], together[3][:, order], atol=1e-4, rtol=0)
    for row, found in zip(rows, together, strict=True):
        alone = logits([row])
        torch.testing.assert_close(alone[0], found[:, : alone.shape[2]], atol=1e-5, rtol=0)


def test_points_that_are_not_read_are_asked_for_all_the_same(trained: Path) -> None:
    processor, model = TASK.load_processor(trained), perceiver_io.from_pretrained(trained).eval()
    cloud, labels = next((cloud, labels) for cloud, labels in map(dumbbell, range(99)) if len(cloud) > 30)
    rows = [
        {"cloud": cloud, "labels": torch.from_numpy(labels)},
        {"cloud": cloud[:7], "labels": torch.from_numpy(labels[:7])},
    ]
    batch = TASK.collate(rows, processor)
    assert batch["points"].shape == (2, 24, 3) and batch["query_points"].shape == (2, len(cloud), 3)
    assert batch["labels"][0].tolist() == labels.tolist()
    assert batch["labels"][1].tolist() == [*labels[:7], *[UNKNOWN] * (len(cloud) - 7)]
    # All points are where the whole cloud's sphere has them; those that are read are some of them.
    kept = torch.arange(24) * len(cloud) // 24
    torch.testing.assert_close(batch["points"][0], batch["query_points"][0][kept])
    with torch.no_grad():
        asked = model(**batch)
        read = model(batch["points"], batch["points_mask"])
    torch.testing.assert_close(asked.logits[0][:, kept], read.logits[0], atol=1e-5, rtol=0)
    # The loss is of each cloud the mean over its own points.
    losses = [
        torch.nn.functional.cross_entropy(asked.logits[index][:, :size].T, torch.from_numpy(labels[:size]))
        for index, size in enumerate((len(cloud), 7))
    ]
    assert asked.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_labels_stay_with_their_points_in_training(folder: Path, tmp_path: Path) -> None:
    cloud = {"max_points": 15, "rotation": "none", "jitter": 0, "scaling": 0, "drop_points": 0.5}
    of = recipe(folder, tmp_path / "run", cloud=cloud, num_points=5)
    data = TASK.data(of)
    processor = TASK.processor(of, data)
    torch.manual_seed(0)
    vary = TASK.variation(processor, of)
    row = data.train[0]
    whole = TASK.collate([row], TASK.processor(recipe(folder, tmp_path, cloud={}), data))
    place = {
        tuple(at): label
        for at, label in zip(*(whole[name][0].tolist() for name in ("points", "labels")), strict=True)
    }
    sizes = set()
    for _ in range(20):
        batch = TASK.drawn(TASK.collate([vary(row), vary(data.train[1])], processor), 5)
        assert batch["query_points"].shape[1] == batch["labels"].shape[1] <= 5
        sizes.add(batch["points"].shape[1])
        for at, label in zip(batch["query_points"][0].tolist(), batch["labels"][0].tolist(), strict=True):
            assert label in (place[tuple(at)], UNKNOWN)
    assert len(sizes) > 2 and max(sizes) <= 15


@pytest.mark.parametrize("kind", ["within", "sets", "table"])
def test_other_forms_of_data(kind: str, tmp_path: Path) -> None:
    made = [dumbbell(seed) for seed in range(12)]
    root = tmp_path / "data"
    root.mkdir()
    if kind == "table":
        table = {"scan": [points.tolist() for points, _ in made], "part": [one.tolist() for _, one in made]}
        datasets.Dataset.from_dict(table).to_parquet(root / "train.parquet")
    for seed, (points, labels) in enumerate(made):
        if kind == "within":
            np.save(root / f"{seed}.npy", np.column_stack([points, labels]))
        if kind == "sets":
            split = root / ("train" if seed < 9 else "test")
            for name, values in (("points", points), ("points_label", labels)):
                (split / name).mkdir(parents=True, exist_ok=True)
                np.savetxt(split / name / f"{seed}.txt", values)
    changes = {"input_column": "scan", "label_column": "part"} if kind == "table" else {}
    data = TASK.data(recipe(root, tmp_path / "run", **changes))
    assert data.class_names == ("0", "1")
    rows = [*data.train, *(data.validation or []), *data.test]
    found = {tuple(row["labels"].tolist()) for row in rows}
    assert found == {tuple(labels.tolist()) for _, labels in made}
    for row in rows:
        label = tuple(row["labels"].tolist())
        points = next(points for points, labels in made if tuple(labels.tolist()) == label)
        np.testing.assert_allclose(row["cloud"], points, rtol=1e-6)
    with_features = recipe(root, tmp_path / "run", cloud={"num_features": 1}, **changes)
    batch = TASK.collate([rows[0]], TASK.processor(with_features, data))
    np.testing.assert_allclose(batch["points"][0, :, 3], rows[0]["cloud"][:, 3], rtol=1e-6)
    if kind == "within":  # the labels are no feature
        two = TASK.processor(recipe(root, tmp_path / "run", cloud={"num_features": 2}), data)
        with pytest.raises(ValueError, match="columns, expected 3 coordinates and"):
            TASK.collate([rows[0]], two)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, int), r"A cloud of 4 points must have a label for each, got int64 \(3,\)"),
        (np.zeros((4, 2), int), r"got int64 \(4, 2\)"),
        (np.array(["a"] * 4), "a label for each, got <U1"),
        (np.array([0, 1, -2, 0]), r"from 0 to 2, got -2 to 1\. Say with unknown_classes"),
        (np.array([0, 1, 3, 0]), "from 0 to 2, got 0 to 3"),
        (np.array([0, 1.5, 2, 0]), r"integers, got 1\.5 at point 1"),
        (np.array([0, 1, np.nan, 0]), "integers, got nan at point 2"),
        (np.array([0, 1, 0, np.inf]), "integers, got inf at point 3"),
    ],
)
def test_bad_labels(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        point_classes(labels, num_points=4, unknown=[], num_classes=3)


def test_labels_of_files_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    for name in ("clouds", "labels"):
        (tmp_path / name).mkdir()
        for file in (folder / name).iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    (tmp_path / "labels" / "4.npy").unlink()
    np.save(tmp_path / "labels" / "4.npy", np.zeros(3, int))
    with pytest.raises(ValueError, match=r"4\.npy: A cloud of \d+ points must have a label for each"):
        data = TASK.data(recipe(tmp_path, tmp_path / "run"))
        list(data.test), list(data.validation or [])
    (tmp_path / "labels" / "4.npy").unlink()
    with pytest.raises(ValueError, match=r"has no labels for 4:"):
        TASK.data(recipe(tmp_path, tmp_path / "run"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), r"labels must be integers \(2, 7\)"),
        (torch.full((2, 7), 3), "labels must be classes from 0 to 2"),
        (torch.zeros(2, 7), "labels must be integers"),
    ],
)
def test_labels_that_do_not_fit_the_model(labels: torch.Tensor, message: str) -> None:
    model = ps.PerceiverIOForPointCloudSegmentation(ps.config(num_classes=3))
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 7, 3), labels=labels)


def test_padding_has_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    model = ps.PerceiverIOForPointCloudSegmentation(ps.config(class_names=["a", "b", "c"])).eval()
    points, labels = torch.randn(2, 9, 3), torch.randint(3, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 4:] = 0
    labels[1, 4:] = UNKNOWN
    one, two = model(points[:1], labels=labels[:1]).loss, model(points[1:, :4], labels=labels[1:, :4]).loss
    points[1, 4:] = torch.nan
    assert model(points, mask, labels).loss.item() == pytest.approx((one + two).item() / 2, rel=1e-5)
    assert model(points, mask, torch.full_like(labels, UNKNOWN)).loss == 0
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_models_and_settings_that_are_refused(tmp_path: Path) -> None:
    config = ps.config(num_classes=3, settings={"num_features": 2}, decoder={"num_heads": 2})
    assert config.inputs["cloud"].num_features == 2 and config.outputs["classes"].num_heads == 2
    with pytest.raises(ValueError, match="no variant 'giant' of the point cloud segmentation model"):
        ps.config(variant="giant")
    other = ps.config(decoder={"position": "fourier", "max_resolution": (4,)})
    with pytest.raises(ValueError, match=r"needs a DenseDecoder\.Config with query_input='cloud'"):
        ps.PerceiverIOForPointCloudSegmentation(other)
    model = ps.PerceiverIOForPointCloudSegmentation(ps.config())
    with pytest.raises(ValueError, match="query_mask goes with query_points"):
        model(torch.randn(1, 4, 3), query_mask=torch.ones(1, 4))
    for changes, message in (
        ({"class_names": ["a"]}, "class_names are"),
        ({"cloud": {"num_point": 3}}, "The section cloud: .*num_point"),
        ({"num_points": 0}, "num_points is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe("assembled", tmp_path / "run", **changes)


def test_fine_tuning_with_other_classes(trained: Path, folder: Path, tmp_path: Path) -> None:
    names = ["bar", "weight", "ring"]
    tuned = recipe(
        folder, tmp_path / "tuned", pretrained=str(trained), class_names=names, max_steps=1, model={}
    )
    runner.train(TASK, tuned)
    model = perceiver_io.from_pretrained(tmp_path / "tuned")
    assert list(model.config.id2label.values()) == names


def test_the_embedded_objects() -> None:
    made, again = assembled(), assembled()
    assert len(made.rows) == 1000 and len(made.class_names) == 12
    for one, two in zip(made.rows[::100], again.rows[::100], strict=True):
        assert np.array_equal(one["cloud"], two["cloud"]) and np.array_equal(one["labels"], two["labels"])
    assert all(200 <= len(row["cloud"]) == len(row["labels"]) <= 400 for row in made.rows)
    # Height alone does not tell: the best guess at each of 20 levels is wrong for many points.
    levels, labels = [], []
    for row in made.rows:
        z = row["cloud"][:, 2]
        levels.append(np.minimum((z - z.min()) / (z.max() - z.min()) * 20, 19).astype(int))
        labels.append(row["labels"])
    table = np.zeros((20, 12))
    np.add.at(table, (np.concatenate(levels), np.concatenate(labels)), 1)
    assert table.max(1).sum() / table.sum() < 0.5


@pytest.mark.parametrize("num_axes", [2, 3])
def test_the_picture_shows_what_is_wrong(tmp_path: Path, num_axes: int) -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(50, num_axes))
    true = rng.integers(0, 2, 50)

    def red(found: np.ndarray) -> int:
        draw_parts([cloud], [true], [found], ["a", "b"], tmp_path / "parts.png")
        from PIL import Image

        pixels = np.asarray(Image.open(tmp_path / "parts.png").convert("RGB")).astype(int)
        return int((np.abs(pixels - [0xC2, 0x18, 0x2B]).sum(-1) < 9).sum())

    assert red(true) == 0 and red(1 - true) > red(np.where(np.arange(50) < 25, true, 1 - true)) > 0
    unknown = np.full(50, UNKNOWN)
    draw_parts([cloud], [unknown], [true], ["a", "b"], tmp_path / "unknown.png")

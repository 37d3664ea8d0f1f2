"""Point cloud classification: from files to a run and back, and that what should not matter does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoProcessor

import perceiver_io
from perceiver_io.running import runner
from perceiver_io.tasks import point_cloud_classification as pc
from perceiver_io.tasks.classification import ClassPredictOptions
from perceiver_io.tasks.classification import task as class_task
from perceiver_io.tasks.modalities.cloud import CLOUD, CloudSettings
from perceiver_io.tasks.point_cloud_classification.data import solids
from perceiver_io.tasks.point_cloud_classification.task import (
    PointCloudClassificationRecipe,
    PointCloudClassificationTask,
)

TASK = PointCloudClassificationTask()


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


def points(kind: str, seed: int, num_points: int | None = None) -> np.ndarray:
    """A flat or a long cloud, with two further columns."""
    rng = np.random.default_rng(seed)
    num_points = num_points or int(rng.integers(6, 30))
    scale = {"flat": (2, 2, 0.1), "long": (5, 0.1, 0.1)}[kind]
    return np.hstack([rng.normal(size=(num_points, 3)) * scale + 9, rng.normal(size=(num_points, 2))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two kinds, of unequal numbers of points."""
    root = tmp_path_factory.mktemp("clouds")
    for kind in ("flat", "long"):
        (root / kind).mkdir()
        for seed in range(10):
            cloud = points(kind, seed)
            if seed % 2:
                np.savetxt(root / kind / f"{seed}.xyz", cloud)
            else:
                np.save(root / kind / f"{seed}.npy", cloud.astype(np.float32))
    return root


def recipe(dataset: Path | str, output: Path, **changes: Any) -> PointCloudClassificationRecipe:
    settings: dict[str, Any] = {
        "dataset": str(dataset),
        "output_dir": str(output),
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
        "num_epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "report_to": "none",
        "log_every": 0,
    }
    return PointCloudClassificationRecipe(**{**settings, **changes})


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    runner.train(TASK, recipe(folder, path))
    return path


def test_predictions_are_those_of_the_model_that_is_loaded(trained: Path, folder: Path) -> None:
    files = [str(folder / "flat" / "0.npy"), str(folder / "long" / "3.xyz")]
    ours = runner.predict(TASK, trained, files, ClassPredictOptions(top_k=2))
    model = perceiver_io.from_pretrained(trained).eval()
    assert isinstance(model, pc.PerceiverIOForPointCloudClassification)
    processor = AutoProcessor.from_pretrained(trained)
    batch = processor([{"cloud": file} for file in files])
    with torch.no_grad():
        logits = model(points=batch["inputs"]["cloud"], points_mask=batch["masks"]["cloud"]).logits
    for one, row in zip(ours, logits.softmax(-1), strict=True):
        by_name = {label["label"]: label["probability"] for label in one["labels"]}
        expected = {name: float(row[index]) for index, name in model.config.id2label.items()}
        assert by_name == pytest.approx(expected, abs=1e-6)


def test_padding_order_place_and_size_change_nothing(trained: Path) -> None:
    model = perceiver_io.from_pretrained(trained).eval()
    processor = TASK.load_processor(trained)
    rows = [{"cloud": points("flat", seed, number)} for seed, number in enumerate((1, 2, 17, 40))]
    with torch.no_grad():
        together = model(**TASK.collate(rows, processor)).logits
        alone = torch.cat([model(**TASK.collate([row], processor)).logits for row in rows])
        moved = [{"cloud": row["cloud"][::-1] * 3.0 + 50} for row in rows]
        elsewhere = model(**TASK.collate(moved, processor)).logits
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(elsewhere, together, atol=1e-4, rtol=0)


def test_resuming_and_fine_tuning(trained: Path, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "parts"
    whole = runner.train(TASK, recipe(folder, tmp_path / "whole", max_steps=4, evaluate_every=2))
    runner.train(TASK, recipe(folder, path, max_steps=4, evaluate_every=2))
    for name in ("metrics.json", "model.safetensors"):
        (path / name).unlink()
    (last,) = (path / "checkpoints").glob("checkpoint-4")
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    resumed = runner.train(TASK, recipe(folder, path, max_steps=4, evaluate_every=2, resume=True))
    assert resumed["test_loss"] == whole["test_loss"]
    (tmp_path / "three").mkdir()
    for name, source in (("a", "flat"), ("b", "long"), ("c", "flat")):
        (tmp_path / "three" / name).symlink_to(folder / source)
    tuned = recipe(tmp_path / "three", tmp_path / "tuned", max_steps=1, pretrained=str(trained), model={})
    runner.train(TASK, tuned)
    model = perceiver_io.from_pretrained(tmp_path / "tuned")
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_further_columns_are_read_where_they_are_asked_for(folder: Path, tmp_path: Path) -> None:
    of = recipe(folder, tmp_path / "run", cloud={"num_features": 2, "max_points": 20, "rotation": "any"})
    data = TASK.data(of)
    processor, config = TASK.processor(of, data), TASK.config(of, data)
    assert config.inputs["cloud"].num_features == 2
    batch = TASK.collate(data.test, processor)
    assert batch["points"].shape[1] <= 20 and batch["points"].shape[2] == 5
    with pytest.raises(ValueError, match="5 columns, expected 3 coordinates and 3 features"):
        runner.train(TASK, recipe(folder, tmp_path / "run", cloud={"num_features": 3}))
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["path", "bytes", "struct", "points"])
def test_tables_hold_clouds(folder: Path, tmp_path: Path, kind: str) -> None:
    files = sorted(folder.glob("*/*.npy"))
    forms = {
        "path": str,
        "bytes": Path.read_bytes,
        "struct": lambda path: {"path": None, "bytes": path.read_bytes()},
        "points": lambda path: np.load(path).tolist(),
    }
    table = datasets.Dataset.from_dict(
        {"scan": [forms[kind](path) for path in files], "label": [path.parent.name for path in files]}
    )
    (tmp_path / "tables").mkdir()
    table.to_parquet(tmp_path / "tables" / "train.parquet")
    of = recipe(tmp_path / "tables", tmp_path / "run", input_column="scan", validation_fraction=0.25)
    data = TASK.data(of)
    assert data.class_names == ("flat", "long")
    rows = [data.train[index] for index in range(len(data.train))]
    found = {CLOUD.content.decode(row["cloud"]).tobytes() for row in rows}
    assert len(found) == len(rows) and found <= {np.load(path).tobytes() for path in files}


def test_a_column_of_something_else_is_refused(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"cloud": [1.5, 2.5] * 10, "label": ["a", "b"] * 10})
    table.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"'cloud'.* holds no point clouds, it is of the type"):
        TASK.data(recipe(tmp_path, tmp_path / "run"))


def test_bad_files_are_named(folder: Path, tmp_path: Path) -> None:
    for kind in ("flat", "long"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for file in (folder / kind).iterdir():
            (tmp_path / "data" / kind / file.name).symlink_to(file)
    (tmp_path / "data" / "flat" / "text.npy").write_bytes(b"no cloud at all")
    np.save(tmp_path / "data" / "flat" / "none.npy", np.zeros((0, 3)))
    np.save(tmp_path / "data" / "long" / "nan.npy", np.full((3, 3), np.nan))
    message = r"3 of 23 point clouds are missing or corrupt: .*none\.npy.*text\.npy.*nan\.npy"
    with pytest.raises(ValueError, match=message):
        TASK.data(recipe(tmp_path / "data", tmp_path / "run"))
    data = TASK.data(recipe(tmp_path / "data", tmp_path / "run", skip_bad_files=True))
    assert len(data.train) + len(data.validation) + len(data.test) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "giant"}, "variant is 'giant', expected one of"),
        ({"cloud": {"num_point": 3}}, "The section cloud: .*num_point"),
        ({"cloud": {"max_points": 0}}, "max_points"),
        ({"cloud": {"jitter": -1.0}}, "jitter is -1.0, expected a deviation"),
        ({"cloud": {"drop_points": 1.0}}, "drop_points is 1.0, expected a fraction"),
        ({"cloud": {"rotation": "upside down"}}, "rotation"),
        ({"cloud": {"num_features": -1}}, "num_features is -1"),
        ({"cloud": {"num_coordinates": 4}}, "4 coordinates cannot be turned"),
    ],
)
def test_bad_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("solids", tmp_path / "run", **changes)


@pytest.mark.parametrize("rotation", ["none", "upright", "any"])
def test_rotations_keep_distances(rotation: str) -> None:
    torch.manual_seed(0)
    settings = CloudSettings(rotation=rotation, scaling=0.0, jitter=0.0, drop_points=0.0, num_features=2)
    processor = CLOUD.processor(settings, [])
    cloud = points("flat", 0, 12)
    plain = processor.prepare(cloud)
    turned = [CLOUD.varied(cloud, processor, settings) for _ in range(9)]
    for one in turned:
        assert torch.equal(one[:, 3:], plain[:, 3:])
        torch.testing.assert_close(one[:, :3] @ one[:, :3].T, plain[:, :3] @ plain[:, :3].T)
        assert torch.equal(one[:, 2], plain[:, 2]) == (rotation != "any")
        assert torch.equal(one[:, 0], plain[:, 0]) == (rotation == "none")
        basis = torch.linalg.lstsq(plain[:, :3], one[:, :3]).solution
        assert torch.linalg.det(basis) == pytest.approx(1, abs=1e-4)  # no mirror


def test_flat_clouds_are_turned_in_their_plane() -> None:
    torch.manual_seed(0)
    settings = CloudSettings(num_coordinates=2, rotation="any", scaling=0.0, jitter=0.0, drop_points=0.5)
    processor = CLOUD.processor(settings, [])
    sizes = set()
    for _ in range(20):
        varied = CLOUD.varied(points("flat", 0, 12)[:, :2], processor, settings)
        assert varied.norm(dim=1).max() <= 1 + 1e-5 and varied.shape[1] == 2
        sizes.add(len(varied))
    assert min(sizes) >= 6 and len(sizes) > 2


def test_solids_are_the_same_each_time() -> None:
    made, again = solids(), solids()
    assert len(made.rows) == 8 * 300 and len(set(made.class_names)) == 8
    for one, two in zip(made.rows[::100], again.rows[::100], strict=True):
        assert np.array_equal(one["cloud"], two["cloud"])
    sizes = [len(row["cloud"]) for row in made.rows]
    assert min(sizes) == 100 and max(sizes) == 200


def test_the_preset_and_its_processor_are_saved(tmp_path: Path) -> None:
    config = pc.config(
        class_names=["a", "b"], variant="tiny", settings={"max_points": 9}, cloud={"num_bands": 4}
    )
    assert config.inputs["cloud"].num_bands == 4
    model = pc.PerceiverIOForPointCloudClassification(config).eval()
    output = model(torch.randn(2, 7, 3), labels=torch.tensor([0, 1]))
    assert output.logits.shape == (2, 2) and output.loss.isfinite()
    perceiver_io.PerceiverIOProcessor({"cloud": pc.PointCloudProcessor(max_points=9)}).save_pretrained(
        tmp_path
    )
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["inputs"]["cloud"]["max_points"] == 9
    with pytest.raises(ValueError, match="no variant 'giant' of the point cloud classifier"):
        pc.config(variant="giant")

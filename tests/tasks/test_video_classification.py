"""Video classification: from files to a run, and back with the auto classes and the pipeline of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from perceiver_io.media.video_writer import write_video
from perceiver_io.running import runner
from perceiver_io.tasks import video_classification as vc
from perceiver_io.tasks.classification import ClassPredictOptions
from perceiver_io.tasks.classification import task as class_task
from perceiver_io.tasks.modalities.video import VIDEO, VideoSettings
from perceiver_io.tasks.video_classification.data import moving_digits
from perceiver_io.tasks.video_classification.task import VideoClassificationRecipe, VideoClassificationTask

TASK = VideoClassificationTask()


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


def moving(step: int, num_frames: int, seed: int) -> np.ndarray:
    """A bright bar on dark ground."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60, (num_frames, 24, 32, 3), dtype=np.uint8)
    start = rng.integers(0, 32)
    for time, frame in enumerate(frames):
        frame[:, (start + step * time + np.arange(6)) % 32] = 220
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bars that move left or right, in files of unequal length."""
    root = tmp_path_factory.mktemp("bars")
    for name, step in (("left", -3), ("right", 3)):
        (root / name).mkdir()
        for index in range(10):
            write_video(root / name / f"{index}.mp4", moving(step, 3 + index % 4, index))
    return root


def recipe(dataset: Path | str, output: Path, **changes: Any) -> VideoClassificationRecipe:
    settings: dict[str, Any] = {
        "dataset": str(dataset),
        "output_dir": str(output),
        "video": {"num_frames": 4, "size": [12, 16], "patch_size": [2, 4, 4]},
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
        "num_epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "report_to": "none",
        "log_every": 0,
    }
    return VideoClassificationRecipe(**{**settings, **changes})


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    runner.train(TASK, recipe(folder, path))
    return path


def test_the_processor_lies_beside_the_model(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"video_preprocessor_config.json", "confusion.png", "attention.png"} <= names
    processor = AutoVideoProcessor.from_pretrained(trained)
    assert isinstance(processor, vc.PerceiverIOVideoProcessor)
    assert (processor.settings.num_frames, processor.settings.size) == (4, (12, 16))


def test_predictions_are_those_of_the_auto_classes_and_of_a_pipeline(trained: Path, folder: Path) -> None:
    files = [str(folder / "left" / "0.mp4"), str(folder / "right" / "3.mp4")]  # the first one is short
    ours = runner.predict(TASK, trained, files, ClassPredictOptions(top_k=2))
    model = AutoModelForVideoClassification.from_pretrained(trained).eval()
    processor = AutoVideoProcessor.from_pretrained(trained)
    with torch.no_grad():
        probabilities = model(**processor(files)).logits.softmax(-1)
    classify = pipeline("video-classification", model=str(trained), device="cpu")
    for one, row, file in zip(ours, probabilities, files, strict=True):
        by_name = {label["label"]: label["probability"] for label in one["labels"]}
        expected = {name: float(row[index]) for index, name in model.config.id2label.items()}
        assert by_name == pytest.approx(expected, abs=1e-6)
        assert {label["label"]: label["score"] for label in classify(file)} == pytest.approx(
            expected, abs=1e-6
        )


def test_padding_changes_nothing(trained: Path) -> None:
    model = AutoModelForVideoClassification.from_pretrained(trained).eval()
    processor = TASK.load_processor(trained)
    rows = [{"video": moving(3, length, length)} for length in (1, 3, 4, 9)]
    with torch.no_grad():
        together = model(**TASK.collate(rows, processor)).logits
        alone = torch.cat([model(**TASK.collate([row], processor)).logits for row in rows])
        # Without the processor's padding: frames of a patch alone.
        short = processor.processors["video"].prepare(rows[0]["video"])
        values = torch.cat([short, torch.full_like(short, torch.nan)])[None]
        mask = torch.tensor([True, False])[None, :, None, None].expand(1, 2, 12, 16)
        shortest = model(values, mask).logits
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(shortest, together[:1], atol=1e-5, rtol=0)


def test_resuming_and_fine_tuning(trained: Path, folder: Path, tmp_path: Path) -> None:
    metrics = runner.train(TASK, recipe(folder, tmp_path / "whole", max_steps=4, evaluate_every=2))
    first = recipe(folder, tmp_path / "parts", max_steps=4, evaluate_every=2)
    runner.train(TASK, first)
    (tmp_path / "parts" / "metrics.json").unlink()
    (tmp_path / "parts" / "model.safetensors").unlink()
    for checkpoint in (tmp_path / "parts" / "checkpoints").glob("checkpoint-4*"):
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    resumed = runner.train(
        TASK, recipe(folder, tmp_path / "parts", max_steps=4, evaluate_every=2, resume=True)
    )
    assert resumed["test_loss"] == metrics["test_loss"]
    (tmp_path / "three").mkdir()
    for name, source in (("left", "left"), ("right", "right"), ("third", "left")):
        (tmp_path / "three" / name).symlink_to(folder / source)
    tuned = recipe(
        tmp_path / "three", tmp_path / "tuned", max_steps=1, pretrained=str(trained), video={}, model={}
    )
    runner.train(TASK, tuned)
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "tuned")
    assert model.config.id2label == {0: "left", 1: "right", 2: "third"}
    assert model.config.inputs["video"].size == (4, 12, 16)


@pytest.mark.parametrize("kind", ["path", "bytes", "struct"])
def test_tables_hold_videos(folder: Path, tmp_path: Path, kind: str) -> None:
    files = sorted(folder.glob("*/*.mp4"))
    forms = {
        "path": str,
        "bytes": Path.read_bytes,
        "struct": lambda path: {"path": None, "bytes": path.read_bytes()},
    }
    table = datasets.Dataset.from_dict(
        {"clip": [forms[kind](path) for path in files], "label": [path.parent.name for path in files]}
    )
    (tmp_path / "tables").mkdir()
    table.to_parquet(tmp_path / "tables" / "train.parquet")
    of = recipe(tmp_path / "tables", tmp_path / "run", input_column="clip")
    data = TASK.data(of)
    processor = TASK.processor(of, data)
    batch = TASK.collate([data.train[0], data.train[1]], processor)
    assert batch["pixel_values"].shape == (2, 4, 3, 12, 16)
    assert data.class_names == ("left", "right")


def test_splits_of_ones_own(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in ("left", "right"):
            (tmp_path / split / name).symlink_to(folder / name)
    data = TASK.data(recipe(tmp_path, tmp_path / "run"))
    assert (len(data.train) + len(data.validation), len(data.test)) == (20, 20)


def test_bad_files_are_named(folder: Path, tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in (folder / name).iterdir():
            (tmp_path / "data" / name / file.name).symlink_to(file)
    (tmp_path / "data" / "left" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "data" / "left" / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 22 videos are missing or corrupt: .*bad\.mp4.*empty\.mp4"):
        TASK.data(recipe(tmp_path / "data", tmp_path / "run"))
    data = TASK.data(recipe(tmp_path / "data", tmp_path / "run", skip_bad_files=True))
    assert len(data.train) + len(data.validation) + len(data.test) == 20


def test_files_that_cannot_be_predicted(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a\.mp4 is no video"):
        runner.predict(TASK, trained, [str(tmp_path / "a.mp4")])
    with pytest.raises(ValueError, match=r"b\.mp4.*missing|no file.*b\.mp4"):
        runner.predict(TASK, trained, [str(tmp_path / "b.mp4")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "giant"}, "variant is 'giant', expected one of"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"video": {"num_frame": 3}}, "The section video: .*num_frame"),
        ({"video": {"num_channels": 2}}, "num_channels is 2, expected 1"),
        ({"video": {"shift": 1.5}}, "shift is 1.5, expected a fraction"),
        ({"video": {"num_frames": 0}}, "num_frames"),
    ],
)
def test_bad_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("moving-digits", tmp_path / "run", **changes)


def test_patches_must_divide_a_video(folder: Path, tmp_path: Path) -> None:
    of = recipe(folder, tmp_path / "run", video={"num_frames": 5, "size": [12, 16]})
    with pytest.raises(ValueError, match="5x12x16 frames, rows and columns"):
        runner.train(TASK, of)
    assert not (tmp_path / "run").exists()


def test_the_size_is_that_of_the_first_video() -> None:
    def size_of(shape: tuple[int, ...], **settings: Any) -> tuple[int, int]:
        values = [np.zeros(shape, np.uint8)]
        found: tuple[int, int] = VIDEO.processor(VideoSettings(**settings), values).settings.size
        return found

    assert size_of((5, 16, 18, 3)) == (16, 16)
    assert size_of((5, 240, 320, 3)) == (48, 64)
    assert size_of((5, 2, 3, 3)) == (4, 4)
    assert size_of((5, 24, 32), patch_size=(1, 8, 8)) == (24, 32)
    assert VIDEO.processor(VideoSettings(), []).settings.size == (64, 64)


def test_variation_is_the_same_in_all_frames() -> None:
    torch.manual_seed(0)
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), 4, axis=0)
    settings = VideoSettings(noise=0.0, shift=0.25, brightness=0.3, horizontal_flip=True)
    processor = VIDEO.processor(settings, [still])
    seen = [VIDEO.varied(still, processor, settings) for _ in range(20)]
    assert all(torch.equal(one[0], one[3]) for one in seen)
    assert len({one.sum().item() for one in seen}) == 20
    off = VideoSettings(noise=0.0, shift=0.0, brightness=0.0)
    assert torch.equal(VIDEO.varied(still, processor, off), processor.prepare(still))


def test_moving_digits_are_the_same_each_time_and_move_as_they_are_called() -> None:
    made, again = moving_digits(), moving_digits()
    assert len(made.rows) == 1797 and made.class_names[0] == "right"
    for one, two in zip(made.rows[:5], again.rows[:5], strict=True):
        assert np.array_equal(one["video"], two["video"]) and one["label"] == two["label"]
    assert {len(row["video"]) for row in made.rows} == {5, 6, 7, 8}
    steps: dict[str, list[complex]] = {name: [] for name in made.class_names}
    for row in made.rows[:400]:  # the shift between frames, by the phase of the first harmonics
        spectrum = np.fft.fft2(row["video"].astype(float))
        turn = (spectrum[1:] * spectrum[:-1].conj()).sum(0)
        down, right = (-np.angle(turn[place]) * 16 / (2 * np.pi) for place in ((1, 0), (0, 1)))
        steps[made.class_names[row["label"]]].append(complex(right, down))
    for index, found in enumerate(steps.values()):
        assert abs(np.median(np.angle(np.array(found) / np.exp(1j * index * np.pi / 4)))) < 0.2


def test_the_preset() -> None:
    config = vc.config(
        class_names=["left", "right"],
        variant="tiny",
        settings={"num_frames": 4, "size": [16, 16], "features": "conv"},
        video={"num_bands": 4},
        encoder={"num_latents": 5},
    )
    part = config.inputs["video"]
    assert (part.size, part.features, part.num_bands, part.position_extent) == (
        (4, 16, 16),
        "conv",
        4,
        "nominal",
    )
    model = vc.PerceiverIOForVideoClassification(config).eval()
    output = model(torch.randn(2, 4, 3, 16, 16), labels=torch.tensor([0, 1]))
    assert output.logits.shape == (2, 2) and output.loss.isfinite()
    with pytest.raises(ValueError, match="no variant 'giant' of the video classifier"):
        vc.config(variant="giant")

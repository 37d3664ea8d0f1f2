"""Every trainable task of this package keeps the contract of tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from perceiver_io.media.midi import new_notes, write_midi
from perceiver_io.media.sound import write_wav
from perceiver_io.media.video_writer import write_video
from perceiver_io.registry import TASKS
from perceiver_io.running import TrainableTask
from perceiver_io.tasks.optical_flow import write_flo
from perceiver_io.testing.tasks import TASK_CHECKS, TaskCase, check_processes

pytestmark = pytest.mark.slow


def image_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for name in ("bright", "dark", "grey"):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(11):
            pixels = rng.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    settings = {
        "dataset": str(folder / "images"),
        "variant": "tiny",
        "image_size": [8],
        "image_channels": 1,
        "batch_size": 8,
        "eval_batch_size": 4,
        "augmentation": {"preset": "none"},
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
    }
    return settings, [str(folder / "images" / "dark" / "3.png")]


def image_generation(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    settings, files = image_classification(folder)
    kept = {name: settings[name] for name in ("dataset", "image_channels", "batch_size", "eval_batch_size")}
    settings = {
        **kept,
        "image_size": [4],
        "num_levels": 5,
        "label_dropout": 0.0,
        "model": {"encoder": {"latent_channels": 16, "num_self_attends": 1, "dropout": 0.0}},
    }
    return settings, files


def audio_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    write_recordings(folder / "sounds", ("high", "low"))
    settings = {**SMALL_MODAL, "dataset": str(folder / "sounds"), "audio": STILL_AUDIO}
    return settings, [str(folder / "sounds" / "high" / "3.wav")]


def multimodal_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    write_recordings(folder / "pairs", ("high", "low"))
    for name in ("high", "low"):
        for index in range(1, 11):  # the first has a sound alone
            Image.new("L", (8, 8), 20 * index).save(folder / "pairs" / name / f"{index}.png")
    settings = {
        **SMALL_MODAL,
        "dataset": str(folder / "pairs"),
        "input_dropout": 0.0,
        "audio": STILL_AUDIO,
        "image": {"rotation": 0, "translation": 0, "scaling": 0},
    }
    sample = folder / "pairs" / "high" / "3"
    return settings, [f"image={sample}.png,audio={sample}.wav"]


def write_recordings(folder: Path, names: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(11):
            samples = rng.uniform(-0.5, 0.5, 500 + 20 * index)
            write_wav(folder / name / f"{index}.wav", samples, sample_rate=4000)


# Nothing is drawn at random, so that two processes take the steps of one.
STILL_AUDIO = {"speed": 0, "shift": 0, "gain": 0, "noise": 0, "mask_time": 0, "mask_bands": 0}
SMALL_MODAL = {
    "batch_size": 8,
    "eval_batch_size": 4,
    "model": {"encoder": {"num_latents": 4, "latent_channels": 16, "dropout": 0.0}},
}


def masked_language_modeling(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    lines = [f"{number} times {number} is {number * number}, or so they say.\n" for number in range(200)]
    (folder / "text.txt").write_text("".join(lines))
    settings = {
        "dataset": str(folder / "text.txt"),
        "variant": "tiny",
        "max_length": 40,
        "batch_size": 4,
        "eval_batch_size": 8,
        "masking_probability": 0.15,
    }
    return settings, ["4 times 4 is [MASK][MASK], or so."]


def symbolic_music(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    (folder / "midi").mkdir()
    for index in range(22):
        number = int(rng.integers(6, 13))
        starts = 0.2 * np.arange(number)
        notes = new_notes(rng.integers(40, 80, number), 80, starts, starts + 0.2)
        write_midi(folder / "midi" / f"{index}.mid", notes)
    settings = {
        "dataset": str(folder / "midi"),
        "variant": "tiny",
        "max_length": 24,
        "num_latents": 16,
        # Nothing is drawn at random.
        "short_windows": 0.0,
        "move_windows": False,
        "transposition": 0,
        "batch_size": 8,
        "eval_batch_size": 4,
    }
    return settings, [str(folder / "midi" / f"{index}.mid") for index in (3, 4)]


def causal_language_modeling(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    settings, _ = masked_language_modeling(folder)
    kept = {
        name: settings[name] for name in ("dataset", "variant", "max_length", "batch_size", "eval_batch_size")
    }
    return {**kept, "short_windows": 0.0, "move_windows": False}, ["4 times 4 is "]


def optical_flow(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    """A folder in the layout of FlyingChairs, with true flow that is known in parts."""
    rng = np.random.default_rng(0)
    (folder / "chairs").mkdir()
    for index in range(11):
        for frame in (1, 2):
            pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "chairs" / f"{index:05d}_img{frame}.ppm")
        flow, valid = (
            torch.from_numpy(rng.normal(size=(2, 24, 32))),
            torch.from_numpy(rng.random((24, 32)) < 0.8),
        )
        write_flo(folder / "chairs" / f"{index:05d}_flow.flo", flow, valid)
    settings = {
        "dataset": str(folder / "chairs"),
        "variant": "tiny",
        "image_size": [24, 32],
        "num_points": 24 * 32,  # all: nothing is drawn at random
        "batch_size": 8,
        "eval_batch_size": 4,
        "augmentation": {"horizontal_flip": False, "vertical_flip": False, "brightness": 0.0},
        "model": {
            "inputs": {"frames": {"num_bands": 2, "feature_channels": 8}},
            "encoder": {"num_latents": 4, "latent_channels": 16},
        },
    }
    return settings, [str(folder / "chairs" / f"00003_img{frame}.ppm") for frame in (1, 2)]


def point_cloud_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for name, size in (("flat", (1, 1, 0)), ("long", (5, 1, 1)), ("round", (1, 1, 1))):
        (folder / "clouds" / name).mkdir(parents=True)
        for index in range(11):
            points = rng.normal(size=(rng.integers(5, 20), 3)) * size
            np.save(folder / "clouds" / name / f"{index}.npy", points)
    still = {"rotation": "none", "scaling": 0, "jitter": 0, "drop_points": 0}
    settings = {**SMALL_MODAL, "dataset": str(folder / "clouds"), "cloud": still}
    return settings, [str(folder / "clouds" / "flat" / f"{index}.npy") for index in (3, 4)]


def point_cloud_segmentation(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Clouds of unequal sizes with labels in the last column, some of them unknown."""
    rng = np.random.default_rng(0)
    (folder / "parts").mkdir()
    for index in range(33):
        points = rng.normal(size=(rng.integers(5, 20), 3))
        labels = (points[:, 2] > 0) + 2 * (points[:, 0] > 1) - 1
        np.savetxt(folder / "parts" / f"{index}.xyz", np.column_stack([points, labels]))
    settings = {
        "dataset": str(folder / "parts"),
        "cloud": {"rotation": "none", "scaling": 0, "jitter": 0, "drop_points": 0},
        "unknown_classes": [-1],
        "batch_size": 8,
        "eval_batch_size": 4,
        "num_points": 20,  # all: nothing is drawn at random
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_qk_channels": 16}},
    }
    return settings, [str(folder / "parts" / f"{index}.xyz") for index in (3, 4)]


def video_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 40), ("grey", 120)):
        (folder / "videos" / name).mkdir(parents=True)
        for index in range(11):
            shape = (rng.integers(3, 7), 16, 16, 3)
            frames = rng.normal(level, 20, shape).clip(0, 255).astype(np.uint8)
            first, *others = map(Image.fromarray, frames)
            first.save(folder / "videos" / name / f"{index}.gif", save_all=True, append_images=others)
    still = {"num_frames": 4, "size": [8, 8], "shift": 0, "brightness": 0, "noise": 0}
    settings = {**SMALL_MODAL, "dataset": str(folder / "videos"), "video": still}
    return settings, [str(folder / "videos" / "dark" / f"{index}.gif") for index in (3, 4)]


def multimodal_autoencoding(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 40)):
        (folder / "videos" / name).mkdir(parents=True)
        for index in range(6):
            frames = rng.normal(level, 20, (5 + index % 2, 16, 16, 3)).clip(0, 255).astype(np.uint8)
            sound = rng.uniform(-0.5, 0.5, 320 * len(frames))
            write_video(folder / "videos" / name / f"{index}.mp4", frames, audio=sound, sample_rate=8000)
    settings = {
        "dataset": str(folder / "videos"),
        "num_frames": 4,
        "image_size": [8],
        "validation_fraction": 0.2,
        # Nothing is drawn at random.
        "random_starts": False,
        "augmentation": {"polarity": False, "gain": 0.0, "cut_mix": 0.0},
        "num_points": 2 * 2 * 2,
        "num_sound_points": 20,
        "batch_size": 8,
        "eval_batch_size": 4,
        "model": {"encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_v_channels": 16}},
    }
    return settings, [str(folder / "videos" / "dark" / f"{index}.mp4") for index in (3, 4)]


def text_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    for name in ("long", "short"):
        (folder / "texts" / name).mkdir(parents=True)
        for index in range(11):
            text = f"The number {index}" + " and so on" * (5 if name == "long" else 1)
            (folder / "texts" / name / f"{index}.txt").write_text(text)
    settings = {
        **SMALL_MODAL,
        "dataset": str(folder / "texts"),
        "text": {"crop": 0, "byte_dropout": 0},
    }
    return settings, ["The number 4", str(folder / "texts" / "long" / "3.txt")]


def semantic_segmentation(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for index in range(22):
        pixels = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
        write_picture(folder / "pairs" / "images" / f"{index}.png", pixels)
        write_picture(folder / "pairs" / "masks" / f"{index}.png", pixels[..., 0] // 100)
    settings = {**SMALL_MAPS, "dataset": str(folder / "pairs"), "unknown_classes": [1]}
    return settings, [str(folder / "pairs" / "images" / f"{index}.png") for index in (3, 4)]


def depth_estimation(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for index in range(22):
        pixels = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
        write_picture(folder / "pairs" / "images" / f"{index}.png", pixels)
        (folder / "pairs" / "depths").mkdir(exist_ok=True)
        np.save(folder / "pairs" / "depths" / f"{index}.npy", pixels[..., 0].astype(np.float32) / 50)
    settings = {**SMALL_MAPS, "dataset": str(folder / "pairs")}
    return settings, [str(folder / "pairs" / "images" / f"{index}.png") for index in (3, 4)]


def image_autoencoding(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    rng = np.random.default_rng(0)
    for index in range(22):
        pixels = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
        write_picture(folder / "pictures" / f"{index}.png", pixels)
    return {**SMALL_MAPS, "dataset": str(folder / "pictures")}, [
        str(folder / "pictures" / f"{index}.png") for index in (3, 4)
    ]


def masked_autoencoding(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    write_recordings(folder / "pairs", ("high", "low"))
    for name in ("high", "low"):
        for index in range(1, 11):  # the first has a sound alone
            Image.new("L", (8, 8), 20 * index).save(folder / "pairs" / name / f"{index}.png")
    settings = {
        **SMALL_MODAL,
        "dataset": str(folder / "pairs"),
        "inputs": ["image", "audio"],
        "learning_rate": 1e-5,  # each process hides other elements, and soon has other weights
        "audio": STILL_AUDIO,
        "image": {"rotation": 0, "translation": 0, "scaling": 0},
    }
    sample = folder / "pairs" / "high"
    return settings, [f"image={sample / one}.png,audio={sample / one}.wav" for one in ("3", "5")]


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# Patches, because batch norm in two processes is another one; all points, because each process draws its own.
SMALL_MAPS = {
    "batch_size": 8,
    "eval_batch_size": 4,
    "num_points": 96,
    "augmentation": {"rotation": 0, "translation": 0, "scaling": 0, "brightness": 0},
    "model": {
        "inputs": {"image": {"features": "patches", "patch_size": 4}},
        "encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_qk_channels": 16},
    },
}


def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(40, 2)).tolist()
    rows = [f"{x:.3f},{'a' if x > 0 else 'b'},{'yes' if x > y else 'no'},{y:.3f}" for x, y in pairs]
    (folder / "table.csv").write_text("\n".join(["number,letter,kind,label", *rows, ",a,no,1"]))
    return folder / "table.csv"


def tabular_classification(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    file = str(table(folder))
    settings = {**SMALL_MODAL, "dataset": file, "label_column": "kind", "table": {"cell_dropout": 0}}
    return settings, [f"{file}:2"]


def tabular_regression(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    file = str(table(folder))
    return {**SMALL_MODAL, "dataset": file, "table": {"cell_dropout": 0}}, [f"{file}:2"]


# Of the label nothing is shown, and no other input is ever masked.
WITHOUT_GRADIENT = {
    "multimodal-autoencoding": tuple(
        f"perceiver.packer.{name}." for name in ("padding.label", "mask_tokens.audio", "mask_tokens.image")
    )
}
# Each process hides other bytes, or elements.
TOLERANCE = {"masked-autoencoding": 0.2, "masked-language-modeling": 0.05}
NUM_TOGETHER = {"optical-flow": 2}
MAKE = {
    "audio-classification": audio_classification,
    "causal-language-modeling": causal_language_modeling,
    "depth-estimation": depth_estimation,
    "image-autoencoding": image_autoencoding,
    "image-classification": image_classification,
    "image-generation": image_generation,
    "masked-autoencoding": masked_autoencoding,
    "masked-language-modeling": masked_language_modeling,
    "multimodal-autoencoding": multimodal_autoencoding,
    "multimodal-classification": multimodal_classification,
    "optical-flow": optical_flow,
    "point-cloud-classification": point_cloud_classification,
    "point-cloud-segmentation": point_cloud_segmentation,
    "semantic-segmentation": semantic_segmentation,
    "symbolic-music": symbolic_music,
    "tabular-classification": tabular_classification,
    "tabular-regression": tabular_regression,
    "text-classification": text_classification,
    "video-classification": video_classification,
}


@functools.cache
def case_of(name: str, folder: Path) -> TaskCase:
    (folder / name).mkdir()
    settings, inputs = MAKE[name](folder / name)
    return TaskCase(
        task_class=TASKS.get(name),
        settings=settings,
        inputs=inputs,
        folder=folder / name,
        num_together=NUM_TOGETHER.get(name, 1),
        tolerance=TOLERANCE.get(name, 1e-5),
        without_gradient=WITHOUT_GRADIENT.get(name, ()),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contracts")


def test_every_trainable_task_has_a_case() -> None:
    # Examples of the documentation, which other tests run, register theirs, too.
    ours = {name: TASKS.get(name) for name in TASKS.names()}
    ours = {name: task for name, task in ours.items() if task.__module__.startswith("perceiver_io.")}
    assert {name for name, task in ours.items() if issubclass(task, TrainableTask)} == set(MAKE)


CHECKS = {name: check for name, check in TASK_CHECKS.items() if check is not check_processes}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("name", MAKE)
def test_contract(name: str, check: Callable[[TaskCase], None], folder: Path) -> None:
    check(case_of(name, folder))


def test_two_processes_train_as_one(folder: Path) -> None:
    check_processes(*(case_of(name, folder) for name in MAKE))

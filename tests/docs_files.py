"""The files and folders that the commands of the documentation name, small: nothing in them is worth learning."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from perceiver_io.media.clouds import write_labelled_cloud
from perceiver_io.media.midi import new_notes, write_midi
from perceiver_io.media.sound import write_wav
from perceiver_io.media.video_writer import write_video
from perceiver_io.registry import TASKS
from perceiver_io.tasks import masked_language_modeling, multimodal_autoencoding, optical_flow
from perceiver_io.tasks.optical_flow import write_flo, write_flow_png

__all__ = ["SETS", "write_files", "write_models"]

CLASSES = ("one", "two")
NUM_EACH = 11


def write_files(folder: Path) -> None:
    """Writes what commands take besides data sets: files to predict, a recipe, texts."""
    for name in ("digit.png", "photo.jpg", "new.jpg", "street.jpg", "view.png", "7.png", "8.png"):
        picture(folder / name, (8, 8) if name == "digit.png" else (24, 32))
    for name in ("left.png", "right.png", "first.png", "second.png"):
        picture(folder / name, (24, 32))
    write_flo(folder / "truth.flo", flow((24, 32)))
    for name in ("new.wav", "7.wav"):
        sound(folder / name)
    for name in ("clip.mp4", "holiday.mp4", "ride.mp4"):
        video(folder / name)
    for name in ("scan.ply", "office.ply"):
        write_labelled_cloud(folder / name, cloud(), np.zeros(30, int), np.zeros((30, 3), np.uint8))
    song(folder / "song.mid")
    (folder / "passage.txt").write_text("import asyncio\nloop = asyncio.get_running_loop()\n")
    (folder / "book.txt").write_text(
        "".join(f"{n} times {n} is {n * n}, or so they say.\n" for n in range(400))
    )
    for name in ("houses.csv", "new_houses.csv"):
        table(folder / name)
    (folder / "recipe.yaml").write_text("task: image-classification\ndataset: photos\nvariant: small\n")
    (folder / "map.json").write_text(json.dumps([[0.1, -0.2, 11.5], [-0.4, 0.9, 3.0], [0.0, 0.3, 20.25]]))


def write_models(folder: Path) -> None:
    """Writes small models under the ids of published ones: a folder of such a name is not looked for on the hub."""
    encoder = {"num_latents": 4, "latent_channels": 16}
    made = {
        "optical-flow-perceiver": (
            "optical-flow",
            optical_flow.config(size=(24, 32), encoder=encoder | {"latent_channels": 32}),
        ),
        "language-perceiver": (
            "masked-language-modeling",
            masked_language_modeling.config(variant="tiny", max_length=128),
        ),
        "multimodal-perceiver": (
            "multimodal-autoencoding",
            multimodal_autoencoding.config(variant="tiny", num_classes=3),
        ),
    }
    for name, (task_name, config) in made.items():
        task = TASKS.get(task_name)()
        model = task.model_class(config)
        model.save_pretrained(folder / "deepmind" / name)
        task.save_processor(model, folder / "deepmind" / name)


def photos(folder: Path) -> None:
    each(folder, lambda path: picture(path.with_suffix(".png"), (24, 32)))


def recordings(folder: Path) -> None:
    each(folder, lambda path: sound(path.with_suffix(".wav")))


def videos(folder: Path) -> None:
    each(folder, lambda path: video(path.with_suffix(".mp4")))


def clips(folder: Path) -> None:
    """Videos, sounds and texts that are called alike."""
    videos(folder)
    recordings(folder)
    each(folder, lambda path: path.with_suffix(".txt").write_text(f"The {path.stem}th of them."))


def scans(folder: Path) -> None:
    """Clouds by class."""
    each(folder, lambda path: np.save(path.with_suffix(".npy"), cloud()))


def labelled_scans(folder: Path) -> None:
    """Clouds whose last column is a class."""
    folder.mkdir()
    for index in range(2 * NUM_EACH):
        np.savetxt(folder / f"{index}.xyz", np.column_stack([cloud(), np.arange(30) % 3]))


def midi(folder: Path) -> None:
    folder.mkdir()
    for index in range(2 * NUM_EACH):
        song(folder / f"{index}.mid", num_notes=6 + index % 5)


def streets(folder: Path) -> None:
    for index in range(2 * NUM_EACH):
        picture(folder / "images" / f"{index}.png", (16, 24))
        classes = np.tile([0, 1, 11, 255], (16, 6)).astype(np.uint8)
        picture(folder / "masks" / f"{index}.png", classes)


def rooms(folder: Path) -> None:
    for index in range(2 * NUM_EACH):
        picture(folder / "images" / f"{index}.png", (16, 24))
        (folder / "depths").mkdir(exist_ok=True)
        np.save(folder / "depths" / f"{index}.npy", RNG.uniform(1000, 3000, (16, 24)).astype(np.float32))


def chairs(folder: Path) -> None:
    for index in range(1, 7):
        for frame in (1, 2):
            picture(folder / "data" / f"{index:05d}_img{frame}.ppm", (24, 32))
        write_flo(folder / "data" / f"{index:05d}_flow.flo", flow((24, 32)))


def sintel(folder: Path) -> None:
    for scene in range(4):
        for frame in (1, 2):
            for rendering in ("clean", "final"):
                picture(folder / f"training/{rendering}/alley_{scene}/frame_{frame:04d}.png", (24, 32))
        path = folder / f"training/flow/alley_{scene}/frame_0001.flo"
        path.parent.mkdir(parents=True)
        write_flo(path, flow((24, 32)))


def kitti(folder: Path) -> None:
    for index in range(5):
        for frame in (10, 11):
            picture(folder / f"training/image_2/{index:06d}_{frame}.png", (24, 32))
        for name in ("flow_occ", "flow_noc"):
            path = folder / f"training/{name}/{index:06d}_10.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_flow_png(path, flow((24, 32)), torch.ones(24, 32, dtype=torch.bool))


SETS: Mapping[str, Callable[[Path], None]] = {
    "photos": photos,
    "recordings": recordings,
    "videos": videos,
    "clips": clips,
    "scans": scans,
    "midi": midi,
    "streets": streets,
    "rooms": rooms,
    "FlyingChairs_release": chairs,
    "MPI-Sintel": sintel,
    "kitti2015": kitti,
}
"""Data sets by the names that the pages give them."""

RNG = np.random.default_rng(0)


def each(folder: Path, write: Callable[[Path], object]) -> None:
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(NUM_EACH):
            write(folder / name / str(index))


def picture(path: Path, content: tuple[int, int] | NDArray[np.uint8]) -> None:
    """A picture of a height and width, or of given grey levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):
        content = RNG.integers(0, 256, (*content, 3), dtype=np.uint8)
    Image.fromarray(content).save(path)


def sound(path: Path) -> None:
    write_wav(path, RNG.uniform(-0.5, 0.5, 800), sample_rate=4000)


def video(path: Path) -> None:
    frames = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    write_video(path, frames, audio=RNG.uniform(-0.5, 0.5, 1920), sample_rate=8000)


def cloud() -> NDArray[np.float64]:
    return RNG.normal(size=(30, 3))


def song(path: Path, num_notes: int = 8) -> None:
    starts = 0.2 * np.arange(num_notes)
    write_midi(path, new_notes(RNG.integers(40, 80, num_notes), 80, starts, starts + 0.2))


def flow(size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=(2, *size)))


def table(path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["area", "town", "price"])
        rows.writerows(
            [RNG.integers(50, 150), RNG.choice(["Ulm", "Bonn"]), RNG.uniform(200, 400)] for _ in range(40)
        )

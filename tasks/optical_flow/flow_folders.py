"""Folders of image pairs with true flow, in the layouts of FlyingChairs, Sintel and KITTI 2015.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.extras import require
from perceiver_io.media.images import open_image
from perceiver_io.tasks.optical_flow.flow_io import read_flow

__all__ = ["FlowRows", "FoundPairs", "PairFiles", "Rendering", "find_pairs", "good_pairs"]

logger = logging.getLogger(__name__)

Rendering = Literal["clean", "final", "both"]

_LONGEST = 10.0  # times the longer side of a frame: no flow is as long
_NUM_NAMED = 10
_CHAIRS_SPLIT = "FlyingChairs_train_val.txt"
_CHAIRS_SETS = {"1": "train", "2": "validation"}
_LAYOUTS = (
    "FlyingChairs: 00001_img1.ppm, 00001_img2.ppm and 00001_flow.flo, in the folder or in its folder data",
    "Sintel: training/clean or training/final with <scene>/frame_0001.png, training/flow/<scene>/frame_0001.flo",
    "KITTI 2015: training/image_2/000000_10.png and 000000_11.png, training/flow_occ/000000_10.png",
)


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """The files of a pair.

    Attributes:
        first: The first frame.
        second: The second frame.
        flow: The true flow, `.flo` or 16-bit PNG.
        unknown: Images that are not black where the flow does not count: what is hidden, or invalid.
    """

    first: Path
    second: Path
    flow: Path
    unknown: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.first, self.second, self.flow, *self.unknown)


@dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """What a folder holds.

    Attributes:
        pairs: Its pairs.
        groups: What each is a part of, where pairs of one group belong into one set; None if nothing is known.
        sets: The set of each by its index, "train" or "validation", where the folder says so; None otherwise.
    """

    pairs: tuple[PairFiles, ...]
    groups: tuple[str, ...] | None = None
    sets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FlowRows:
    """Pairs by index, read when they are asked for.

    Rows are those of `WarpedPhotographs`, in the files' own sizes.

    Attributes:
        pairs: Their files.
        image_channels: 1 for greyscale, 3 for colour.
    """

    pairs: tuple[PairFiles, ...]
    image_channels: int = 3

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Reads a pair.

        Raises:
            ValueError: A file is missing or damaged, the sizes differ, or the flow is longer than any can be.
        """
        return _read(self.pairs[index], self.image_channels)


def find_pairs(root: Path, *, rendering: Rendering = "both", occluded: bool = True) -> FoundPairs:
    """Finds the pairs of a folder; its layout is seen by what it holds.

    Args:
        root: The folder.
        rendering: Which of Sintel's renderings.
        occluded: Whether pixels count that are hidden in the second frame, where a data set knows which these are.

    Raises:
        ValueError: The folder has another layout, or a file lacks its partner.
    """
    training = root / "training"
    if (training / "flow").is_dir():
        return _sintel(training, rendering, occluded=occluded)
    if (training / "image_2").is_dir():
        return _kitti(training, occluded=occluded)
    for folder in (root, root / "data"):
        if any(folder.glob("*_img1.*")):
            return _chairs(folder, root)
    raise ValueError(f"{root} has none of the layouts that are known. {'; '.join(_LAYOUTS)}.")


def good_pairs(pairs: Sequence[PairFiles], image_channels: int, *, skip: bool) -> list[int]:
    """Reads all pairs once and returns the indices of the good ones.

    Args:
        pairs: The pairs.
        image_channels: 1 for greyscale, 3 for colour.
        skip: Whether bad ones are left out, with a warning, instead of refused.

    Raises:
        ValueError: A pair is bad and not to be skipped; the message says what is wrong with the first ten.
    """

    def fault(pair: PairFiles) -> str | None:
        try:
            _read(pair, image_channels)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    bar = require("tqdm", extra="train").tqdm
    with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        faults = list(
            bar(pool.map(fault, pairs), total=len(pairs), desc="Checking pairs", delay=1, disable=None)
        )
    bad = [one for one in faults if one is not None]
    if bad:
        message = f"{len(bad)} of {len(pairs)} pairs are bad: {' '.join(bad[:_NUM_NAMED])}"
        if not skip:
            raise ValueError(f"{message} Repair or remove them, or set skip_bad_files to go on without them.")
        logger.warning("Skipped: %s", message)
    return [index for index, one in enumerate(faults) if one is None]


def _chairs(folder: Path, root: Path) -> FoundPairs:
    firsts = sorted(folder.glob("*_img1.*"))
    pairs = tuple(
        PairFiles(
            first=first,
            second=first.with_name(first.name.replace("_img1.", "_img2.")),
            flow=first.with_name(first.name.split("_img1.")[0] + "_flow.flo"),
        )
        for first in firsts
    )
    _check_present(pairs)
    lists = [path for path in (root / _CHAIRS_SPLIT, folder / _CHAIRS_SPLIT) if path.is_file()]
    if not lists:
        return FoundPairs(pairs=pairs)
    marks = lists[0].read_text().split()
    if len(marks) != len(pairs) or not set(marks) <= set(_CHAIRS_SETS):
        raise ValueError(
            f"{lists[0]} must have a 1 (train) or a 2 (validation) for each of the {len(pairs)} pairs of {folder}, got "
            f"{len(marks)} entries, among them {sorted(set(marks))[:5]}."
        )
    return FoundPairs(pairs=pairs, sets=tuple(_CHAIRS_SETS[mark] for mark in marks))


def _sintel(training: Path, rendering: Rendering, *, occluded: bool) -> FoundPairs:
    chosen = [name for name in ("clean", "final") if rendering in (name, "both")]
    if missing := [name for name in chosen if not (training / name).is_dir()]:
        raise ValueError(
            f"{training} has no folder {missing[0]!r} of frames. Add it, or choose the rendering that is there."
        )
    masks = ["invalid"] if occluded else ["invalid", "occlusions"]
    if not occluded and not (training / "occlusions").is_dir():
        raise ValueError(
            f"{training} has no folder 'occlusions' that says what is hidden. Add it, or count all pixels."
        )
    pairs, groups = [], []
    for flow in sorted((training / "flow").glob("*/*.flo")):
        scene, name = flow.parent.name, flow.stem
        for folder in chosen:
            first = training / folder / scene / f"{name}.png"
            unknown = [
                training / mask / scene / f"{name}.png" for mask in masks if (training / mask).is_dir()
            ]
            second = first.with_name(f"{_next(name)}.png")
            pairs.append(PairFiles(first=first, second=second, flow=flow, unknown=tuple(unknown)))
            groups.append(scene)
    if not pairs:
        raise ValueError(f"{training / 'flow'} has no <scene>/<frame>.flo in it.")
    _check_present(pairs)
    return FoundPairs(pairs=tuple(pairs), groups=tuple(groups))


def _kitti(training: Path, *, occluded: bool) -> FoundPairs:
    flows = training / ("flow_occ" if occluded else "flow_noc")
    if not flows.is_dir():
        raise ValueError(f"{training} has no folder {flows.name!r} of true flow.")
    firsts = sorted((training / "image_2").glob("*_10.png"))
    if not firsts:
        raise ValueError(f"{training / 'image_2'} has no <number>_10.png in it.")
    pairs = tuple(
        PairFiles(
            first=first,
            second=first.with_name(first.name.replace("_10.", "_11.")),
            flow=flows / first.name,
        )
        for first in firsts
    )
    _check_present(pairs)
    return FoundPairs(pairs=pairs)


def _next(name: str) -> str:
    """frame_0007 -> frame_0008."""
    match = re.fullmatch(r"(.*?)(\d+)", name)
    if match is None:
        raise ValueError(f"Frames end with their number, got the flow of {name!r}.")
    return f"{match[1]}{int(match[2]) + 1:0{len(match[2])}d}"


def _check_present(pairs: Sequence[PairFiles]) -> None:
    missing = sorted({str(file) for pair in pairs for file in pair.all if not file.is_file()})
    if missing:
        more = f" and {len(missing) - _NUM_NAMED} more" if len(missing) > _NUM_NAMED else ""
        raise ValueError(
            f"Files are missing that others of their pairs need: {', '.join(missing[:_NUM_NAMED])}{more}. Add them, or "
            "take their partners away."
        )


def _read(pair: PairFiles, image_channels: int) -> dict[str, Tensor]:
    first_FHW, second_FHW = (_pixels(file, image_channels) for file in (pair.first, pair.second))
    field = read_flow(pair.flow)
    valid_HW = field.valid.clone()
    sizes = {pair.first: first_FHW.shape[1:], pair.second: second_FHW.shape[1:], pair.flow: valid_HW.shape}
    masks = {file: torch.from_numpy(np.asarray(open_image(file).convert("L")) > 0) for file in pair.unknown}
    sizes |= {file: mask.shape for file, mask in masks.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{file} has {shape[1]}x{shape[0]}" for file, shape in sizes.items())
        raise ValueError(f"The files of a pair must have one size, but {listed} pixels.")
    for mask_HW in masks.values():
        valid_HW &= ~mask_HW
    longest = torch.linalg.vector_norm(field.flow, dim=0)[valid_HW].max().item() if valid_HW.any() else 0.0
    if longest > _LONGEST * max(valid_HW.shape):
        raise ValueError(
            f"{pair.flow} has a flow of {longest:.4g} pixels, in frames of {valid_HW.shape[1]}x{valid_HW.shape[0]}: it "
            "is damaged, or in another unit. What is not known is 10^9 or more in a .flo file."
        )
    return {"first": first_FHW, "second": second_FHW, "flow": field.flow, "valid": valid_HW}


def _pixels(file: Path, image_channels: int) -> Tensor:
    reader = _reader(image_channels)
    return reader.to_tensor(reader.to_pil(open_image(file))[0])


@functools.cache
def _reader(image_channels: int) -> PerceiverIOImageProcessor:
    return PerceiverIOImageProcessor(num_channels=image_channels)

"""Pairs of frames with their true flow: warped photographs, and folders of public sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Subset

from perceiver_io.data import Splits
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.splits import hold_out_missing
from perceiver_io.extras import require
from perceiver_io.tasks.optical_flow.flow_folders import FlowRows, Rendering, find_pairs, good_pairs
from perceiver_io.tasks.optical_flow.warps import TEST_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, WarpedPhotographs

__all__ = ["EMBEDDED", "read_flow_pairs", "warped_photographs"]

WARPED = "warped-photographs"
EMBEDDED = (WARPED,)

_NUM_VALIDATION, _NUM_TEST = 200, 300


def warped_photographs(size: tuple[int, int], *, num_pairs: int, with_validation: bool = True) -> Splits:
    """Returns pairs of warped photographs; those of the test set are of photographs that training does not see.

    Args:
        size: Height and width of the frames.
        num_pairs: How many to train on; 200 others of the same photographs are to validate on, 300 to test on.
        with_validation: Whether there is a validation set.
    """
    validation = WarpedPhotographs(names=TRAINING_PHOTOGRAPHS, size=size, num_pairs=_NUM_VALIDATION, seed=1)
    return Splits(
        train=WarpedPhotographs(names=TRAINING_PHOTOGRAPHS, size=size, num_pairs=num_pairs, seed=0),
        validation=validation if with_validation else None,
        test=WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=size, num_pairs=_NUM_TEST, seed=2),
    )


def read_flow_pairs(
    settings: DataSettings,
    *,
    size: tuple[int, int],
    image_channels: int,
    num_pairs: int,
    rendering: Rendering,
    occluded: bool,
    seed: int,
) -> Splits:
    """Reads what the settings name, and splits it. Rows are those of `WarpedPhotographs`.

    Pairs of a scene go into one set. FlyingChairs' own list of training and validation pairs is kept to, where it lies
    beside them.

    Args:
        settings: What to read, and how much to hold out; a recipe is such settings.
        size: Height and width of embedded pairs; those of files have their own.
        image_channels: 1 for greyscale, 3 for colour.
        num_pairs: How many embedded pairs to train on.
        rendering: Which of Sintel's renderings.
        occluded: Whether pixels count that are hidden in the second frame, where files say which these are.
        seed: Decides which pairs are validated on, where there is no validation set.

    Raises:
        ValueError: There is no such data, or it is bad.
    """
    name, path = settings.dataset, Path(settings.dataset or "").expanduser()
    if name == WARPED:
        made = warped_photographs(
            size,
            num_pairs=max(1, round(settings.train_fraction * num_pairs)),
            with_validation=settings.validation_fraction > 0,
        )
        return made if image_channels == 3 else made.mapped(_grey)
    if not name or not path.is_dir():
        raise ValueError(
            f"There is no dataset {name!r:.200}. Choose the embedded one ({WARPED}), or an existing folder in the "
            "layout of FlyingChairs, Sintel or KITTI 2015."
        )
    found = find_pairs(path, rendering=rendering, occluded=occluded)
    good = good_pairs(found.pairs, image_channels, skip=settings.skip_bad_files)
    sets: dict[str, list[int]] = {"train": [], "validation": []}
    for index in good:
        sets[found.sets[index] if found.sets else "train"].append(index)
    groups = found.groups and [found.groups[index] for index in sets["train"]]
    present = [split for split in ("validation",) if sets[split]]
    held = hold_out_missing(len(sets["train"]), settings, seed=seed, present=present, groups=groups)
    sets |= {split: [sets["train"][index] for index in indices] for split, indices in held.items()}
    rows: Any = FlowRows(found.pairs, image_channels)
    parts: dict[str, Any] = {split: Subset(rows, indices) for split, indices in sets.items() if indices}
    return Splits(train=parts["train"], validation=parts.get("validation"), test=parts["test"])


def _grey(row: dict[str, Tensor]) -> dict[str, Tensor]:
    grey = require("torchvision.transforms.v2.functional", extra="train").rgb_to_grayscale
    return {**row, **{name: grey(row[name]) for name in ("first", "second")}}

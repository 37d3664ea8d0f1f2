"""What is asked for on the command line: images of a class, or of an image file's kind, and how they are drawn.

Shape legend: B batch, F image channels, H height, W width, R rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.media.images import image_suffixes
from perceiver_io.tasks.autoregressive.options import SamplingOptions
from perceiver_io.tasks.image_generation.model import PerceiverARForImageGeneration

__all__ = ["DrawOptions", "Request", "draw", "draw_requests", "read_requests"]

_ANY = "any"  # what stands for no class in particular, where no class is called so
_AT_ONCE = 128  # images that are drawn together


@dataclass(kw_only=True)
class DrawOptions(SamplingOptions):
    """How images are drawn."""

    num_samples: int = field(default=8, metadata={"help": "How many images of each class, or of each file."})
    kept: float = field(
        default=0.5, metadata={"help": "Part of an image file, from above, that is kept; the rest is drawn."}
    )
    of_class: str | None = field(
        default=None, metadata={"help": "Class of the image files, so far as it is known."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.kept <= 1:
            raise ValueError(f"kept is {self.kept}, expected a part from 0 to 1.")

    @property
    def count(self) -> int:
        """How many images are drawn of each input: one, where all would be the same."""
        return 1 if self.greedy else self.num_samples


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one input asks for.

    Attributes:
        text: The input.
        label: The class, -1 for any.
        levels: (1, F, H, W) of an image file; None where a class is asked for.
    """

    text: str
    label: int
    levels: Tensor | None = None

    def file_names(self, count: int) -> list[str]:
        """Returns what the files of so many images are called."""
        stem = re.sub(r"[^\w.-]+", "_", self.text)
        if self.levels is not None:
            stem = f"{Path(self.text).stem}-completed"
        return [f"{stem}-{number + 1}.png" for number in range(count)]


def read_requests(
    inputs: Sequence[str],
    model: PerceiverARForImageGeneration,
    pixels: PixelSequenceProcessor,
    *,
    of_class: str | None = None,
) -> list[Request]:
    """Reads names of classes and image files.

    Args:
        inputs: Either, or `any`.
        model: Knows the classes.
        pixels: Brings image files to the model's size.
        of_class: The class of all image files; any if None.

    Raises:
        ValueError: An input is neither, or a file cannot be read.
    """
    names = model.config.id2label if model.num_classes else None
    known: dict[str, int] = {_ANY: -1}
    known |= {str(name): int(index) for index, name in (names or {}).items()}
    if of_class is not None and of_class not in known:
        raise ValueError(f"of_class is {of_class!r}, expected one of {list(known)!r:.200}.")
    requests = []
    for one in inputs:
        if one in known:
            requests.append(Request(text=one, label=known[one]))
            continue
        if not Path(one).is_file() and Path(one).suffix.lower() not in image_suffixes():
            raise ValueError(
                f"{one!r} is neither an image file nor a class: expected one of {list(known)!r:.200}."
            )
        label = known[_ANY if of_class is None else of_class]
        requests.append(Request(text=one, label=label, levels=pixels.to_levels([one])))
    return requests


def draw(
    model: PerceiverARForImageGeneration,
    labels: Sequence[int],
    start: Tensor | None = None,
    *,
    generator: torch.Generator,
    **settings: Any,
) -> Tensor:
    """Draws images, some at a time.

    Args:
        model: The model.
        labels: The class of each, -1 for any.
        start: (B, F, R, W) levels of their first rows; None for nothing.
        generator: What they are drawn by.
        **settings: Of `generate_images`.

    Returns:
        (B, F, H, W) levels, on the CPU.
    """
    parts = []
    for first in range(0, len(labels), _AT_ONCE):
        chosen = labels[first : first + _AT_ONCE]
        known = None if all(label < 0 for label in chosen) else list(chosen)
        rows = None if start is None else start[first : first + _AT_ONCE]
        drawn = model.generate_images(len(chosen), labels=known, start=rows, generator=generator, **settings)
        parts.append(drawn.cpu())
    return torch.cat(parts)


def draw_requests(
    model: PerceiverARForImageGeneration, requests: Sequence[Request], options: DrawOptions
) -> list[Tensor]:
    """Draws (count, F, H, W) levels for each request, with random numbers that begin anew."""
    settings: dict[str, Any] = {
        "temperature": 0.0 if options.greedy else options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
    }
    if options.refill_latents is not None:
        settings["refill_latents"] = options.refill_latents
    num_rows = round(options.kept * model.tokens.size[0])
    drawn = []
    for one in requests:
        start = None
        if one.levels is not None and num_rows:
            start = one.levels[:, :, :num_rows].expand(options.count, -1, -1, -1)
        generator = torch.Generator().manual_seed(options.seed)
        drawn.append(draw(model, [one.label] * options.count, start, generator=generator, **settings))
    return drawn

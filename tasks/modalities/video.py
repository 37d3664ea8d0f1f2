"""Videos as tasks see them: frames that are spread over files of any length, cut and resized.

Shape legend: T frames, F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_io.adapters.video import VideoAdapter
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.data import Content
from perceiver_io.extras import require
from perceiver_io.input_tools import check_positive
from perceiver_io.media.source import is_source
from perceiver_io.media.video import sample_frames, video_fault, video_suffixes
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_video import SeenVideo
from perceiver_io.tasks.modalities.modality import Modality
from perceiver_io.tasks.modalities.variation import check_fractions, uniform

__all__ = ["VIDEO", "VideoModality", "VideoSettings"]

_LARGEST = 64


@dataclass(frozen=True, kw_only=True)
class VideoSettings(ComponentConfig):
    """What a recipe says of videos.

    Attributes:
        num_frames: So many frames are taken, spread evenly over a video. Shorter ones give all that they have.
        size: Height and width in pixels. Frames are cut to this shape, from the middle, and resized. If None, it is the
            first training video's, but 64 at most, and a multiple of a patch.
        num_channels: 3 for RGB, 1 for greyscale.
        features: "patches" of several frames, or what a "conv" makes of each frame: an element of 1x4x4 pixels.
        patch_size: Frames, rows and columns of a patch; it sees what moves if it has several frames.
        num_bands: Frequencies of the Fourier positions, along each axis.
        shift: Largest shift of a video in training, as a part of its height and width.
        brightness: Largest change of brightness and contrast in training.
        noise: Strongest noise in training, as a part of the range of values.
        horizontal_flip: Whether every second video is mirrored in training. Not where left and right are classes.
    """

    num_frames: int = 8
    size: tuple[int, int] | None = None
    num_channels: int = 3
    features: Literal["patches", "conv"] = "patches"
    patch_size: tuple[int, int, int] = (4, 4, 4)
    num_bands: int = 8
    shift: float = 0.1
    brightness: float = 0.2
    noise: float = 0.05
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "num_frames", "size", "patch_size", "num_bands")
        check_fractions(self, "shift", "brightness", "noise")
        if self.num_channels not in (1, 3):
            raise ValueError(
                f"VideoSettings.num_channels is {self.num_channels}, expected 1 (greyscale) or 3 (RGB)."
            )

    @property
    def element_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns of an element."""
        return self.patch_size if self.features == "patches" else (1, 4, 4)


class VideoModality(Modality):
    """Videos."""

    name = "video"
    Settings = VideoSettings
    content = Content(
        column="video",
        noun="videos",
        feature=lambda **settings: require("datasets", extra="train").Video(decode=False),
        suffixes=video_suffixes,
        fault=video_fault,
    )

    def processor(self, settings: VideoSettings, values: Iterable[Any]) -> PerceiverIOVideoProcessor:
        """Returns a video processor of the first training video's size, if the settings leave it open."""
        return PerceiverIOVideoProcessor(
            num_frames=settings.num_frames,
            size=settings.size or _size_of(values, settings.element_size[1:]),
            num_channels=settings.num_channels,
        )

    def adapter(self, settings: VideoSettings, processor: PerceiverIOVideoProcessor) -> ComponentConfig:
        """Returns the adapter of videos; an element has the same position in videos of any number of frames."""
        of = processor.settings
        return VideoAdapter.Config(
            size=(of.num_frames, *of.size),
            image_channels=of.num_channels,
            features=settings.features,
            patch_size=settings.element_size,
            num_bands=settings.num_bands,
            position_extent="nominal",
        )

    def varied(self, value: Any, processor: PerceiverIOVideoProcessor, settings: VideoSettings) -> Tensor:
        """Shifts and mirrors a video, changes its light, adds noise; the same in all frames, but for the noise."""
        x_TFHW = processor.prepare(value)
        x_TFHW = _shifted(x_TFHW, settings.shift)
        if settings.horizontal_flip and uniform(0, 1) < 0.5:
            x_TFHW = x_TFHW.flip(-1)
        contrast = 1 + uniform(-1, 1) * settings.brightness
        brightness = uniform(-1, 1) * settings.brightness
        noise = 2 * uniform(0, settings.noise)
        return x_TFHW * contrast + brightness + torch.randn_like(x_TFHW) * noise

    def seen(self, value: Any, sample: Tensor, processor: PerceiverIOVideoProcessor) -> Seen:
        """Returns the frames."""
        of = processor.settings
        mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (of.image_mean, of.image_std))
        pixels_TFHW = ((sample * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        frames_THWF = pixels_TFHW.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
        padding = of.num_frames - len(frames_THWF)
        return SeenVideo(
            frames=np.pad(frames_THWF, [(0, padding), (0, 0), (0, 0), (0, 0)]), num_real=len(frames_THWF)
        )


VIDEO = VideoModality()


def _size_of(videos: Iterable[Any], step: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the first of some videos, as multiples of `step`."""
    size = (_LARGEST, _LARGEST)
    for video in videos:
        frame = sample_frames(video, 1)[0] if is_source(video) else video[0]
        size = frame.size[::-1] if hasattr(frame, "getbbox") else frame.shape[:2]
        break
    shrunk = min(1, _LARGEST / max(size))
    height, width = (max(one, round(side * shrunk / one) * one) for side, one in zip(size, step, strict=True))
    return height, width


def _shifted(x_TFHW: Tensor, part: float) -> Tensor:
    """Moves a video by up to a part of its sides; the pixels at its edges go on where it moved away from."""
    height, width = x_TFHW.shape[-2:]
    reach_y, reach_x = round(part * height), round(part * width)
    top, left = (int(uniform(0, 2 * reach + 1)) for reach in (reach_y, reach_x))
    wide_TFHW = torch.nn.functional.pad(x_TFHW, [reach_x, reach_x, reach_y, reach_y], mode="replicate")
    return wide_TFHW[..., top : top + height, left : left + width]

"""Videos of any length and size to frames of one number and size: the processor that is saved beside a model.

Shape legend: B batch, T frames, F image channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers import BatchFeature
from transformers.video_processing_utils import VideoProcessorMixin

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_positive
from perceiver_io.media.source import is_source
from perceiver_io.media.video import sample_frames
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

__all__ = ["PerceiverIOVideoProcessor", "VideoSettings"]

# What transformers writes into a video_preprocessor_config.json beside the settings.
_SERVICE_KEYS = {"auto_map", "processor_class", "video_processor_type"}


@dataclass(frozen=True, kw_only=True)
class VideoSettings(ComponentConfig):
    """Settings of `PerceiverIOVideoProcessor`.

    Attributes:
        num_frames: T. So many are taken from the middles of as many equal parts of a video, whatever its length is. A
            video of fewer frames gives all that it has, once each; batches are filled up with frames that are masked.
        size: Height and width in pixels.
        num_channels: 1 for greyscale, 3 for RGB.
        resample: Interpolation, a `PIL.Image.Resampling` number (3 is bicubic).
        do_center_crop: Whether to keep the aspect ratio by cutting off what sticks out. If not, frames are stretched.
        crop_fraction: How much of the largest centred box to keep, in (0, 1].
        image_mean: Subtracted from values in [0, 1].
        image_std: Divided by after that: by default, values come to lie in [-1, 1].
    """

    num_frames: int = 16
    size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    resample: int = 3
    do_center_crop: bool = True
    crop_fraction: float = 1.0
    image_mean: float | tuple[float, ...] = 0.5
    image_std: float | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "num_frames", "size")
        self.image_processor()

    def image_processor(self) -> PerceiverIOImageProcessor:
        """Returns what treats each frame.

        Raises:
            ValueError: A setting is out of its range.
        """
        return PerceiverIOImageProcessor(
            size=self.size,
            num_channels=self.num_channels,
            resample=self.resample,
            do_center_crop=self.do_center_crop,
            crop_fraction=self.crop_fraction,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )


@register_processor("video")
class PerceiverIOVideoProcessor(VideoProcessorMixin):
    """Turns videos of any length and size into normalised pixel values (T, F, H, W).

    Args:
        **settings: As `VideoSettings`.

    Raises:
        ValueError: A setting is unknown or out of range.
    """

    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012 - transformers declares it so

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        fields = {name: value for name, value in settings.items() if name not in _SERVICE_KEYS}
        self.settings = VideoSettings.from_dict(fields)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, as JSON values."""
        return {"video_processor_type": type(self).__name__, **self.settings.to_dict()}

    @classmethod
    def from_dict(  # type: ignore[override]  # named as video processors name it
        cls, video_processor_dict: dict[str, Any], **kwargs: Any
    ) -> Any:
        """Builds a processor from what `to_dict` returned.

        Args:
            video_processor_dict: The settings.
            **kwargs: Settings that replace them; others are left to the caller.

        Raises:
            ValueError: A setting is unknown, out of range or of a wrong type.
        """
        returns_rest = kwargs.pop("return_unused_kwargs", False)
        names = {field.name for field in dataclasses.fields(VideoSettings)}
        processor = cls(**video_processor_dict | {name: kwargs.pop(name) for name in names & set(kwargs)})
        return (processor, kwargs) if returns_rest else processor

    def __call__(  # type: ignore[override]  # it takes videos, as all video processors do
        self,
        videos: Any,
        *,
        num_frames: int | None = None,
        do_sample_frames: bool = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares one video or several, and makes a batch of them.

        Args:
            videos: A video as `prepare` takes it, or a list of them.
            num_frames: Another number of frames than the processor is set for.
            do_sample_frames: For pipelines of `transformers`, which say so: frames are always sampled.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            `pixel_values` (B, T, F, H, W), and `pixel_mask` (B, T, H, W) where a video has fewer frames.

        Raises:
            ValueError: As `prepare`, or there are no videos.
        """
        if not do_sample_frames:
            raise ValueError("Frames are always sampled, got do_sample_frames=False. Leave it out.")
        if num_frames not in (None, self.settings.num_frames):
            settings = dataclasses.replace(self.settings, num_frames=num_frames)
            return type(self)(**settings.to_dict())(videos, return_tensors=return_tensors)
        videos = _as_list(videos)
        if not videos:
            raise ValueError("Got no videos, expected one or more.")
        values, mask = self.collate([self.prepare(video) for video in videos])
        batch = {"pixel_values": values.numpy()} | ({} if mask is None else {"pixel_mask": mask.numpy()})
        return BatchFeature(batch, tensor_type=return_tensors)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """As calling the processor."""
        return self(videos, **kwargs)

    def prepare(self, value: Any) -> Tensor:
        """Returns the frames of one video.

        Args:
            value: A file: a path, bytes, or a mapping of `path` and `bytes`; or all frames: uint8 values as a NumPy
                array (T, H, W), (T, H, W, F) or a PyTorch tensor (T, F, H, W), or a list of images.

        Returns:
            (T, F, H, W) float32, T at most `num_frames`.

        Raises:
            ValueError: It is no video, empty or damaged.
        """
        if is_source(value):
            frames = list(sample_frames(value, self.settings.num_frames))
        elif isinstance(value, (np.ndarray, Tensor)) and value.ndim not in (3, 4):
            raise ValueError(
                f"The video has the shape {tuple(value.shape)}, expected (frames, height, width) or with channels."
            )
        elif isinstance(value, (np.ndarray, Tensor, list, tuple)):
            frames = [value[index] for index in _spread(len(value), self.settings.num_frames)]
        else:
            raise ValueError(
                f"Got {type(value).__name__}, expected a video: its path, its bytes, or its frames."
            )
        if not frames:
            raise ValueError("The video has no frames, expected one or more. Leave it out.")
        images = self.settings.image_processor()
        return images.normalize_pixels(images.to_uint8(frames))

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, T, F, H, W) of `num_frames` frames, and its mask (B, T, H, W)."""
        return pad_ragged(samples, axes=(0, 2, 3), multiples=(self.settings.num_frames, 1, 1))


def _spread(number: int, wanted: int) -> list[int]:
    """Places in the middle of equal parts; each place once."""
    if number <= wanted:
        return list(range(number))
    return [(2 * index + 1) * number // (2 * wanted) for index in range(wanted)]


def _as_list(videos: Any) -> list[Any]:
    if isinstance(videos, (np.ndarray, Tensor)):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, (list, tuple)) or isinstance(videos, Mapping):
        return [videos]
    is_one = videos and not any(_is_video(one) for one in videos)
    return [list(videos)] if is_one else list(videos)


def _is_video(value: Any) -> bool:
    """Whether an item of a list is a video of its own, and not a frame."""
    if isinstance(value, (np.ndarray, Tensor)):
        return value.ndim == 4
    return is_source(value) or isinstance(value, (list, tuple))

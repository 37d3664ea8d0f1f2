"""Videos with sound to what a multimodal autoencoder takes: its processor, saved beside the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.media.clips import Clip, ClipFormat, read_clips
from perceiver_io.processor import save_whole
from perceiver_io.registry import register_processor
from perceiver_io.tasks.multimodal_autoencoding.inputs import clip_inputs
from perceiver_io.tasks.multimodal_autoencoding.model import AUDIO, IMAGE

__all__ = ["ClipProcessor"]


@register_processor("clips")
@dataclass(frozen=True, kw_only=True)
class ClipProcessor(ComponentConfig):
    """Takes clips of video files, their frames and their sound at the same time.

    Attributes:
        num_frames: T of a clip.
        size: Height and width in pixels.
        frame_rate: Frames a second.
        num_samples: S of a clip, as long as its frames.
    """

    num_frames: int = 16
    size: tuple[int, int] = (224, 224)
    frame_rate: float = 25.0
    num_samples: int = 30720

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.clip_format

    @classmethod
    def of(cls, config: PerceiverIOConfig, *, frame_rate: float = 25.0) -> ClipProcessor:
        """Returns the processor of a model.

        Args:
            config: The configuration of a model for videos with sound.
            frame_rate: Frames a second that it was trained with; no configuration says that.

        Raises:
            ValueError: Its sound has no whole number of samples a second then.
        """
        image: Any = config.inputs[IMAGE]
        audio: Any = config.inputs[AUDIO]
        return cls(
            num_frames=image.size[0],
            size=(image.size[1], image.size[2]),
            frame_rate=float(frame_rate),
            num_samples=audio.num_samples,
        )

    @property
    def clip_format(self) -> ClipFormat:
        """What a clip looks like."""
        return ClipFormat(
            num_frames=self.num_frames,
            size=self.size,
            frame_rate=self.frame_rate,
            num_samples=self.num_samples,
        )

    def __call__(self, videos: Any) -> dict[str, Any]:
        """Makes a batch of the first clip of each video.

        Args:
            videos: A video file, a `Clip` (of `perceiver_io.media.clips.read_clips`, for other clips than the first),
                or several of these.

        Returns:
            `inputs` and `masks` by name, as the model takes them. Sound that no video has is in neither.

        Raises:
            ValueError: A file is no video, or cannot be read; or there are none.
        """
        one = isinstance(videos, (str, bytes, os.PathLike, Mapping, Clip))
        chosen: Sequence[Any] = [videos] if one else list(videos)
        if not chosen:
            raise ValueError("There are no videos, expected one or more.")
        return self.collate([self.prepare(video) for video in chosen])

    def prepare(self, value: Any) -> Clip:
        """Returns the first clip of a video.

        Args:
            value: A video file: a path, bytes, or a mapping of `path` and `bytes`; or a clip, which stays.

        Raises:
            ValueError: It is no video, or cannot be read.
        """
        return value if isinstance(value, Clip) else read_clips(value, self.clip_format)[0]

    def collate(self, samples: Sequence[Clip]) -> dict[str, Any]:
        """Makes a batch of clips, as when called."""
        inputs, masks = clip_inputs(samples)
        return {"inputs": inputs, "masks": masks}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes processor_config.json into a folder.

        Args:
            save_directory: The folder; made if need be.
            **kwargs: What `transformers` passes besides; not used.
        """
        save_whole(self, save_directory)

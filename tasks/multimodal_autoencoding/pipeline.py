"""From a video file to its reconstruction: frames, sound and labels.

Shape legend: T frames, H height, W width, S samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.video import VideoAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.media.clips import Clip, read_clips
from perceiver_io.running.evaluator import to_device
from perceiver_io.tasks.multimodal_autoencoding.inputs import clip_inputs
from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr
from perceiver_io.tasks.multimodal_autoencoding.model import (
    AUDIO,
    IMAGE,
    LABEL,
    PerceiverIOForMultimodalAutoencoding,
)
from perceiver_io.tasks.multimodal_autoencoding.processor import ClipProcessor

__all__ = ["MultimodalAutoencodingPipeline", "VideoReconstruction"]

Frames: TypeAlias = NDArray[np.uint8]
Sound: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class VideoReconstruction:
    """A video, what the model made of it, and how close that is.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, as the model gave them.
        audio: (S,) samples in [-1, 1], as the model gave them; it gives sound for silent films too.
        labels: Pairs of a class name and its probability, the most probable first; the mean of all clips. Empty if the
            model knows no labels.
        input_frames: (T, H, W, 3) uint8 RGB, as the model saw them.
        input_audio: (S,) samples, as the model heard them; None if the file has no sound.
        frame_rate: Frames a second.
        sample_rate: Samples a second.
        num_clips: How many clips the model saw.
        psnr_video: Peak signal-to-noise ratio of the frames, in decibels.
        psnr_audio: The same of the sound, whose peak is 1; None if the file has no sound.
    """

    frames: Frames
    audio: Sound
    labels: list[tuple[str, float]]
    input_frames: Frames
    input_audio: Sound | None
    frame_rate: float
    sample_rate: int
    num_clips: int
    psnr_video: float
    psnr_audio: float | None


class MultimodalAutoencodingPipeline:
    """Reconstructs video files clip by clip, each from one encoding.

    Args:
        model: The model; it is used where it is and in its own type.
        id2label: Class names by index; those of the model's configuration if None.
        frame_rate: Frames a second that the model takes. With the length of its clips and of its sound that gives the
            sample rate: 48,000 for the published model.

    Raises:
        ValueError: The model is none for videos with sound and labels, or there are not as many names as classes.
    """

    def __init__(
        self,
        model: PerceiverIOForMultimodalAutoencoding,
        id2label: Mapping[int, str] | None = None,
        *,
        frame_rate: float = 25,
    ) -> None:
        config: Any = model.config
        image, audio = config.inputs.get(IMAGE), config.inputs.get(AUDIO)
        outputs = [config.outputs.get(name) for name in (IMAGE, AUDIO)]
        if (
            not isinstance(image, VideoAdapter.Config)
            or not isinstance(audio, AudioAdapter.Config)
            or not all(isinstance(output, DenseDecoder.Config) for output in outputs)
        ):
            raise ValueError(
                f"Videos are reconstructed by a model with the inputs {IMAGE!r} (video) and {AUDIO!r} (audio) and the "
                f"outputs {IMAGE!r} and {AUDIO!r}, got the inputs {list(config.inputs)} and the outputs "
                f"{list(config.outputs)}."
            )
        if image.image_channels != 3:
            raise ValueError(f"Video files have 3 colours, the model takes {image.image_channels}.")
        num_classes = getattr(config.outputs.get(LABEL), "num_classes", 0)
        names: Mapping[Any, str] = id2label or config.id2label or {}
        if names and sorted(names) != list(range(num_classes)):
            raise ValueError(
                f"There must be names for the classes 0 to {num_classes - 1}, got {len(names)} names."
            )
        self.model = model
        self.names = [names.get(index, f"LABEL_{index}") for index in range(num_classes)]
        self.clip_format = ClipProcessor.of(config, frame_rate=frame_rate).clip_format

    @property
    def num_queries(self) -> int:
        """How many output queries the dense outputs of a clip take: what `on_decoded` counts."""
        grids = (getattr(output, "grid", None) for output in self.model.config.outputs.values())
        return sum(math.prod(grid) for grid in grids if grid is not None)

    def __call__(
        self,
        file: str | os.PathLike[str],
        *,
        num_clips: int | None = 1,
        start: float = 0.0,
        top_k: int = 5,
        memory_budget: int | None = None,
        on_decoded: Callable[[int], None] | None = None,
    ) -> VideoReconstruction:
        """Reads a video file and reconstructs it.

        Args:
            file: The file.
            num_clips: As `read_clips`.
            start: As `read_clips`.
            top_k: How many labels to return.
            memory_budget: As `PerceiverIO.decode`.
            on_decoded: Called after each chunk with the number of output queries in it, to show progress.

        Raises:
            ValueError: The file cannot be read, see `read_clips`; `top_k` is not positive; the weights are damaged.
        """
        clips = read_clips(file, self.clip_format, num_clips=num_clips, start=start)
        return self.reconstruct(clips, top_k=top_k, memory_budget=memory_budget, on_decoded=on_decoded)

    def reconstruct(
        self,
        clips: Sequence[Clip],
        *,
        top_k: int = 5,
        memory_budget: int | None = None,
        on_decoded: Callable[[int], None] | None = None,
    ) -> VideoReconstruction:
        """Reconstructs clips that follow one another.

        What a clip lacks is masked, so that the model knows only what is real, and cut off what comes out. Sound that
        is not there is left out, and made up by the model from the frames.

        Args:
            clips: What `read_clips` returned.
            top_k: As when called.
            memory_budget: As when called.
            on_decoded: As when called.

        Raises:
            ValueError: There are no clips, `top_k` is not positive, or the weights are damaged.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected 1 or more.")
        if not clips:
            raise ValueError("There are no clips to reconstruct.")
        samples_per_frame = self.clip_format.num_samples / self.clip_format.num_frames
        frames, sounds, heard, probabilities, pairs = [], [], [], [], []
        for clip in clips:
            inputs, masks = self.inputs(clip)
            decoded = self.model.reconstruct(
                **inputs, masks=masks, memory_budget=memory_budget, on_decoded=on_decoded
            )
            if not all(output.isfinite().all() for output in decoded.values()):
                raise ValueError("The model gives values that are not numbers: its weights are damaged.")
            pixels = decoded[IMAGE][0].float().clamp(0, 1).movedim(1, -1).mul(255).round()
            frames.append(pixels.to(torch.uint8).cpu().numpy()[: clip.num_real_frames])
            # A partly real clip is as long as its frames: its sound may end a little before or after them.
            length = round(clip.num_real_frames * samples_per_frame)
            sounds.append(decoded[AUDIO][0].float().clamp(-1, 1).cpu().numpy()[:length])
            if clip.audio is not None:
                real = min(clip.num_real_samples, length)
                pairs.append((sounds[-1][:real], clip.audio[:real]))
            heard.append(np.zeros(length, np.float32) if clip.audio is None else clip.audio[:length])
            if self.names:
                probabilities.append(decoded[LABEL][0].float().softmax(-1).cpu())

        seen = np.concatenate([clip.frames[: clip.num_real_frames] for clip in clips])
        made = np.concatenate(frames)
        labels = []
        if self.names:
            best, classes = torch.stack(probabilities).mean(dim=0).topk(min(top_k, len(self.names)))
            labels = [
                (self.names[index], p) for p, index in zip(best.tolist(), classes.tolist(), strict=True)
            ]
        return VideoReconstruction(
            frames=made,
            audio=np.concatenate(sounds),
            labels=labels,
            input_frames=seen,
            input_audio=np.concatenate(heard) if pairs else None,
            frame_rate=self.clip_format.frame_rate,
            sample_rate=self.clip_format.sample_rate,
            num_clips=len(clips),
            psnr_video=psnr(made, seen, peak=255),
            psnr_audio=_joint_psnr(pairs) if pairs else None,
        )

    def inputs(self, clip: Clip) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns what the model takes of a clip: inputs and masks by name, a batch of one.

        Args:
            clip: The clip. Sound that is not there has no input, and what is all real no mask.
        """
        inputs, masks = clip_inputs([clip])
        device = self.model.device
        return to_device(inputs, device, dtype=self.model.dtype), to_device(masks, device)


def _joint_psnr(pairs: Sequence[tuple[Sound, Sound]]) -> float:
    made, heard = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return psnr(made, heard)

"""The multimodal autoencoding task."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.clips import read_clips
from perceiver_io.media.images import write_image
from perceiver_io.media.sound import write_wav
from perceiver_io.media.video_writer import write_video
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_sound import SeenSound
from perceiver_io.pictures.seen_video import SeenVideo
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Task
from perceiver_io.tasks.multimodal_autoencoding.model import (
    AUDIO,
    IMAGE,
    PerceiverIOForMultimodalAutoencoding,
)
from perceiver_io.tasks.multimodal_autoencoding.picture import reconstruction_picture
from perceiver_io.tasks.multimodal_autoencoding.pipeline import (
    MultimodalAutoencodingPipeline,
    VideoReconstruction,
)

__all__ = ["MultimodalAutoencodingTask", "MultimodalPredictOptions"]

_VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
_SUFFIXES = (".mp4", ".wav", ".png", ".json")


@dataclass(kw_only=True)
class MultimodalPredictOptions(PredictOptions):
    """What the reconstruction of videos may be told.

    Raises:
        ValueError: A number is out of range.
    """

    num_clips: int = field(
        default=1,
        metadata={"help": "How many clips to reconstruct, one after the other; 0 for the whole file."},
    )
    start: float = field(default=0.0, metadata={"help": "Where to start in the file, in seconds."})
    top_k: int = field(default=5, metadata={"help": "How many labels to print."})

    def __post_init__(self) -> None:
        if self.num_clips < 0:
            raise ValueError(f"num_clips is {self.num_clips}, expected 1 or more, or 0 for the whole file.")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start is {self.start} seconds, expected 0 or more.")
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, expected 1 or more.")


@register_task("multimodal-autoencoding")
class MultimodalAutoencodingTask(Task):
    """Applies `PerceiverIOForMultimodalAutoencoding` to video files."""

    model_class = PerceiverIOForMultimodalAutoencoding
    input_metavar = "VIDEO"
    options_class = MultimodalPredictOptions
    writes_files = True

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: MultimodalPredictOptions
    ) -> list[dict[str, Any]]:
        """Reconstructs video files.

        Args:
            loaded: The model.
            inputs: The video files.
            options: `num_clips`, `start` and `top_k` as `MultimodalAutoencodingPipeline` takes them (0 clips are all);
                `output_dir`, where each file leaves a video with sound, a WAV file, a picture that compares it with
                the reconstruction, and the result as JSON, all with the file's name. Nothing is written if None.

        Returns:
            For each file its name, `num_clips`, `num_frames`, `has_sound`, `labels` with probabilities, `psnr_video`
            and `psnr_audio` in decibels (None where there is nothing to compare), and `written`, the files.

        Raises:
            ValueError: A file cannot be read or would be overwritten.
            OSError: A file cannot be written.
        """
        for file in inputs:
            if not Path(file).is_file():
                raise ValueError(f"There is no video file {file}.")
        if options.output_dir is not None:
            names = [Path(file).stem + suffix for file in inputs for suffix in _SUFFIXES]
            check_outputs(options.output_dir, names, inputs)
        pipeline = MultimodalAutoencodingPipeline(loaded.model)
        results = []
        for file in inputs:
            video = _reconstructed(pipeline, file, options)
            result = _result(file, video)
            if options.output_dir is not None:
                _write(options.output_dir, Path(file).stem, video, result)
            results.append(result)
        return results

    def file_suffixes(self) -> set[str]:
        """Returns the usual endings of video files."""
        return _VIDEOS

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns some lines: the file, its labels, how close the reconstruction is, and what was written."""
        labels = "  ".join(f"{one['label']} {one['probability']:.1%}" for one in prediction["labels"])
        video, audio = (_decibels(prediction[name]) for name in ("psnr_video", "psnr_audio"))
        sound = f"sound {audio}" if prediction["has_sound"] else "the file has no sound"
        lines = [
            f"{prediction['file']}: {labels}",
            f"  {prediction['num_frames']} frames, PSNR: video {video}, {sound}",
        ]
        if prediction["written"]:
            lines.append(f"  written: {'  '.join(prediction['written'])}")
        return "\n".join(lines)

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the model attends to in the first clip of a video file, its frames and its sound."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one video at a time, got {len(inputs)} files.")
        pipeline = MultimodalAutoencodingPipeline(loaded.model)
        (clip,) = read_clips(inputs[0], pipeline.clip_format)
        tensors, masks = pipeline.inputs(clip)
        maps = loaded.model.perceiver.attention_maps(tensors, masks)
        clip_format = pipeline.clip_format
        seen: dict[str, Seen] = {
            IMAGE: SeenVideo(
                frames=clip.frames, frame_rate=clip_format.frame_rate, num_real=clip.num_real_frames
            )
        }
        if clip.audio is not None:
            seen[AUDIO] = SeenSound(
                samples=clip.audio, sample_rate=clip_format.sample_rate, num_real=clip.num_real_samples
            )
        return AttentionView(maps=maps, seen=seen, title=Path(inputs[0]).name)


def _reconstructed(
    pipeline: MultimodalAutoencodingPipeline, file: str, options: MultimodalPredictOptions
) -> VideoReconstruction:
    """Reconstructs a file, with a bar on stderr."""
    clips = read_clips(file, pipeline.clip_format, num_clips=options.num_clips or None, start=options.start)
    with tqdm(
        total=len(clips) * pipeline.num_queries,
        desc=Path(file).name,
        unit=" queries",
        unit_scale=True,
        delay=1,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # to a file, a line each ten seconds is enough
        dynamic_ncols=True,
    ) as bar:
        return pipeline.reconstruct(clips, top_k=options.top_k, on_decoded=bar.update)


def _result(file: str, video: VideoReconstruction) -> dict[str, Any]:
    return {
        "file": str(file),
        "num_clips": video.num_clips,
        "num_frames": len(video.frames),
        "has_sound": video.input_audio is not None,
        "labels": [{"label": label, "probability": p} for label, p in video.labels],
        "psnr_video": _finite(video.psnr_video),
        "psnr_audio": _finite(video.psnr_audio),
        "written": [],
    }


def _write(folder: str, name: str, video: VideoReconstruction, result: dict[str, Any]) -> None:
    names = [f"{name}{suffix}" for suffix in _SUFFIXES]
    sound = f"sound {_decibels(result['psnr_audio'])}" if result["has_sound"] else "no sound in the file"
    picture = reconstruction_picture(
        video.input_frames,
        video.frames,
        audio=video.input_audio,
        audio_reconstruction=video.audio,
        captions=[
            f"{name}   PSNR: video {_decibels(result['psnr_video'])}, {sound}",
            "   ".join(f"{label} {p:.1%}" for label, p in video.labels[:3]),
        ],
    )
    result["written"] = [str(Path(folder, name)) for name in names]
    content = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    with writing_into(folder) as partial:
        files = [partial / name for name in names]
        write_video(
            files[0],
            video.frames,
            frame_rate=video.frame_rate,
            audio=video.audio,
            sample_rate=video.sample_rate,
        )
        write_wav(files[1], video.audio, sample_rate=video.sample_rate)
        write_image(files[2], picture)
        files[3].write_text(content, encoding="utf-8")


def _finite(decibels: float | None) -> float | None:
    """JSON has no infinity; equal arrays have nothing to measure."""
    return decibels if decibels is not None and math.isfinite(decibels) else None


def _decibels(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f} dB"

"""The multimodal autoencoding task: what the command line runs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

import perceiver_io
from perceiver_io.media.video import read_clips
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.registry import register_task
from perceiver_io.running import RunFolder, Task
from perceiver_io.tasks.multimodal_autoencoding.model import PerceiverIOForMultimodalAutoencoding
from perceiver_io.tasks.multimodal_autoencoding.pipeline import (
    MultimodalAutoencodingPipeline,
    VideoReconstruction,
)

__all__ = ["MultimodalAutoencodingTask"]


@register_task("multimodal-autoencoding")
class MultimodalAutoencodingTask(Task):
    """Applies `PerceiverIOForMultimodalAutoencoding` to video files."""

    name = "multimodal-autoencoding"
    architectures = ("PerceiverIOForMultimodalAutoencoding",)
    input_metavar = "VIDEO"

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds `--num-clips`, `--start` and `--top-k`."""
        parser.add_argument(
            "--num-clips",
            type=int,
            default=1,
            metavar="N",
            help="how many clips to reconstruct, one after the other; 0 for the whole file (default: 1)",
        )
        parser.add_argument(
            "--start",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="where to start in the file (default: 0)",
        )
        parser.add_argument("--top-k", type=int, default=5, help="how many labels to print (default: 5)")

    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        """Reconstructs video files.

        Args:
            source: The model.
            inputs: The video files.
            options: `num_clips`, `start` and `top_k` as `MultimodalAutoencodingPipeline` takes them (0 clips are all);
                `output_dir`, where each file leaves a video with sound, a WAV file, a picture that compares it with
                the reconstruction, and the result as JSON, all with the file's name. Nothing is written if None.

        Returns:
            For each file its name, `num_clips`, `num_frames`, `has_sound`, `labels` with probabilities, `psnr_video`
            and `psnr_audio` in decibels (None where there is nothing to compare), and `written`, the files.

        Raises:
            ValueError: A file cannot be read, would be overwritten, or the model is of another task.
            OSError: A file cannot be written.
        """
        if options.num_clips < 0:
            raise ValueError(
                f"num_clips is {options.num_clips}, expected 1 or more, or 0 for the whole file."
            )
        if options.top_k < 1:
            raise ValueError(f"top_k is {options.top_k}, expected 1 or more.")
        names = _names(inputs, options.output_dir)
        pipeline = MultimodalAutoencodingPipeline(_load(source))
        interval = 0.2 if sys.stderr.isatty() else 10  # to a file, a line each ten seconds is enough
        results = []
        for file, name in zip(inputs, names, strict=True):
            clips = read_clips(
                file, pipeline.clip_format, num_clips=options.num_clips or None, start=options.start
            )
            total = len(clips) * pipeline.num_queries
            with tqdm(
                total=total,
                desc=Path(file).name,
                unit=" queries",
                unit_scale=True,
                delay=1,
                mininterval=interval,
                dynamic_ncols=True,
            ) as bar:
                video = pipeline.reconstruct(clips, top_k=options.top_k, on_decoded=bar.update)
            result = _result(file, video)
            if options.output_dir is not None:
                _write(Path(options.output_dir), name, video, result)
            results.append(result)
        return results

    def describe_prediction(self, prediction: dict[str, Any]) -> str:
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


def _load(source: str | Path) -> PerceiverIOForMultimodalAutoencoding:
    with no_progress_bars():
        model = perceiver_io.from_pretrained(source).eval()
    if not isinstance(model, PerceiverIOForMultimodalAutoencoding):
        raise ValueError(
            f"The model in {source} is a {type(model).__name__}, not one that autoencodes videos."
        )
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]
    return model


def _names(inputs: Sequence[str], output_dir: str | None) -> list[str]:
    """Returns what each file's results are called, and refuses early what would fail after minutes of work."""
    for file in inputs:
        if not Path(file).is_file():
            raise ValueError(f"There is no video file {file}.")
    names = [Path(file).stem for file in inputs]
    if output_dir is None:
        return names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Several files are called {', '.join(twice)}, and their results would replace each other in {output_dir}. "
            "Rename them, or predict one at a time."
        )
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"The output folder {folder} is a file. Choose another one.")
    for name in names:
        for target in (folder / f"{name}{suffix}" for suffix in (".mp4", ".wav", ".png", ".json")):
            if target.exists() and any(target.samefile(file) for file in inputs):
                raise ValueError(
                    f"{target} is an input, and would be overwritten. Choose another --output-dir."
                )
    return names


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


def _write(folder: Path, name: str, video: VideoReconstruction, result: dict[str, Any]) -> None:
    from perceiver_io.media.video_writer import write_video, write_wav
    from perceiver_io.tasks.multimodal_autoencoding.picture import draw_reconstruction

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}{suffix}" for suffix in (".mp4", ".wav", ".png", ".json")]
    write_video(
        files[0], video.frames, frame_rate=video.frame_rate, audio=video.audio, sample_rate=video.sample_rate
    )
    write_wav(files[1], video.audio, sample_rate=video.sample_rate)
    sound = f"sound {_decibels(result['psnr_audio'])}" if result["has_sound"] else "no sound in the file"
    draw_reconstruction(
        files[2],
        video.input_frames,
        video.frames,
        audio=video.input_audio,
        audio_reconstruction=video.audio,
        captions=[
            f"{name}   PSNR: video {_decibels(result['psnr_video'])}, {sound}",
            "   ".join(f"{label} {p:.1%}" for label, p in video.labels[:3]),
        ],
    )
    result["written"] = [str(file) for file in files]
    content = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    RunFolder(folder).write_text(files[3].name, content)


def _finite(decibels: float | None) -> float | None:
    """JSON has no infinity; equal arrays have nothing to measure."""
    return decibels if decibels is not None and math.isfinite(decibels) else None


def _decibels(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f} dB"

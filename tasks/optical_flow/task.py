"""The optical flow task: what the command line runs.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.loading import from_pretrained
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.registry import register_task
from perceiver_io.running import Task
from perceiver_io.tasks.optical_flow.colour_wheel import flow_to_colours
from perceiver_io.tasks.optical_flow.flow_io import FlowField, png_range, read_flow, write_flo, write_flow_png
from perceiver_io.tasks.optical_flow.metrics import flow_metrics
from perceiver_io.tasks.optical_flow.model import PerceiverIOForOpticalFlow
from perceiver_io.tasks.optical_flow.picture import flow_picture, write_image
from perceiver_io.tasks.optical_flow.pipeline import OpticalFlowPipeline
from perceiver_io.tasks.optical_flow.video import video_frames

__all__ = ["OpticalFlowTask", "load_flow_model"]

logger = logging.getLogger(__name__)


@register_task("optical-flow")
class OpticalFlowTask(Task):
    """Applies `PerceiverIOForOpticalFlow` to images, or to the frames of a video."""

    name = "optical-flow"
    architectures = (PerceiverIOForOpticalFlow.__name__,)
    input_metavar = "FRAME"

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flags for tiles, videos, colours and the true flow.

        Args:
            parser: The parser of `perceiver-io predict`.
        """
        parser.add_argument(
            "--ground-truth",
            action="append",
            metavar="FILE",
            help="true flow of a pair, .flo or 16-bit PNG, to compare with; once for each pair",
        )
        parser.add_argument("--batch-size", type=int, default=1, help="tiles at once (default: 1)")
        parser.add_argument(
            "--min-overlap", type=int, default=20, help="pixels that tiles share at least (default: 20)"
        )
        parser.add_argument(
            "--max-magnitude",
            type=float,
            help="pixels of motion that have the full colour (default: the longest)",
        )
        parser.add_argument(
            "--stride", type=int, default=1, help="take every so many frames of a video (default: 1)"
        )
        parser.add_argument("--max-pairs", type=int, help="stop after so many pairs of a video")

    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        """Estimates the flow between consecutive images, or between consecutive frames of one video file.

        Args:
            source: A folder with a model of optical flow, in any layout, or a hub id.
            inputs: Two or more image files of one size, or one video file.
            options: The flags; with `output_dir` each pair leaves `NAME-flow.flo`, `NAME-flow.png` (16 bits),
                `NAME-flow-colours.png` and `NAME-flow-picture.png` there, NAME being its first frame's.

        Returns:
            For each pair its `frames`, `width`, `height`, `mean_magnitude` and `max_magnitude` in pixels, the names of
            the `files`, and with a true flow the metrics of `flow_metrics`.

        Raises:
            ValueError: A file cannot be read, sizes differ, a flag is out of range, or it is another kind of model.
            OSError: A file cannot be written, or the model cannot be fetched.
        """
        _check_options(inputs, options)
        pipeline = OpticalFlowPipeline(
            load_flow_model(source), batch_size=options.batch_size, min_overlap=options.min_overlap
        )
        truths: Sequence[FlowField | None] = [read_flow(file) for file in options.ground_truth or []]
        if len(inputs) == 1:
            pairs = _video_pairs(inputs[0], options)
        else:
            _check_images(pipeline, inputs, truths)
            pairs = _image_pairs(pipeline, inputs)
        results = []
        for index, pair in enumerate(pairs):
            flow_2HW = pipeline(pair.first, pair.second)
            result = _describe(pair, flow_2HW)
            if truths and (truth := truths[index]) is not None:
                result |= flow_metrics(flow_2HW, truth.flow, truth.valid)
            if options.output_dir is not None:
                result["files"] = _write(pair, flow_2HW, Path(options.output_dir), options, inputs)
            results.append(result)
        if not results:
            raise ValueError(
                f"{inputs[0]} has fewer than two frames at a stride of {options.stride}. Pass two images, or a video."
            )
        return results

    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        """Returns one line: the frames, how far they move, the errors, and what was written."""
        first, second = prediction["frames"]
        parts = [
            f"{prediction['width']}x{prediction['height']} pixels",
            f"motion {prediction['mean_magnitude']:.2f} pixels on average, {prediction['max_magnitude']:.2f} at most",
        ]
        if "end_point_error" in prediction:
            parts.append(
                f"end-point error {prediction['end_point_error']:.2f} pixels, outliers {prediction['outliers']:.1%}"
            )
        if "files" in prediction:
            parts.append(f"written to {Path(prediction['files']['flo']).with_suffix('')}*")
        return f"{first} -> {second}: {'; '.join(parts)}"


def load_flow_model(source: str | Path) -> PerceiverIOForOpticalFlow:
    """Loads a model of optical flow, ready to be applied, on the accelerator if there is one.

    Args:
        source: A folder with a model in any layout, or a hub id.

    Raises:
        ValueError: It is a model of something else, or cannot be loaded.
        OSError: There is no such folder or id.
    """
    with no_progress_bars():
        model = from_pretrained(source)
    if not isinstance(model, PerceiverIOForOpticalFlow):
        raise ValueError(
            f"The model in {source} is no model of optical flow: it is a {type(model).__name__}."
        )
    model.eval()
    if torch.accelerator.is_available():
        device: Any = torch.accelerator.current_accelerator()
        model.to(device)
    return model


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two frames.

    Attributes:
        first: (F, H, W) or (H, W, 3) uint8.
        second: The same.
        names: What the two are called in results.
        stem: What the names of the written files begin with.
    """

    first: Tensor | NDArray[np.uint8]
    second: Tensor | NDArray[np.uint8]
    names: tuple[str, str]
    stem: str


def _check_options(inputs: Sequence[str], options: argparse.Namespace) -> None:
    num_truths, num_pairs = len(options.ground_truth or []), len(inputs) - 1
    if num_truths and not num_pairs:
        raise ValueError("--ground-truth is for image files, not for a video.")
    if num_truths not in (0, num_pairs):
        raise ValueError(
            f"{len(inputs)} images are {num_pairs} pairs, but --ground-truth was given {num_truths} times."
        )
    if options.max_pairs is not None and options.max_pairs < 1:
        raise ValueError(f"--max-pairs must be at least 1, got {options.max_pairs}.")
    if options.stride < 1:
        raise ValueError(f"--stride must be at least 1, got {options.stride}.")
    if options.max_magnitude is not None and not options.max_magnitude > 0:
        raise ValueError(f"--max-magnitude must be positive, got {options.max_magnitude}.")


def _check_images(
    pipeline: OpticalFlowPipeline, files: Sequence[str], truths: Sequence[FlowField | None]
) -> None:
    """Finds what cannot be read or does not fit before anything is computed."""
    sizes = {file: tuple(pipeline.pixels(file).shape[1:]) for file in files}
    sizes |= {
        f"the true flow of {file}": tuple(truth.valid.shape)
        for file, truth in zip(files, truths, strict=False)
        if truth is not None
    }
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {width}x{height}" for name, (height, width) in sizes.items())
        raise ValueError(f"All frames must have one size, but {listed} pixels. Crop or pad them alike.")


def _image_pairs(pipeline: OpticalFlowPipeline, files: Sequence[str]) -> Iterator[_Pair]:
    stems: set[str] = set()
    for first, second in pairwise(files):
        stem, count = Path(first).stem, 1
        while stem in stems:  # files of one name in several folders
            count += 1
            stem = f"{Path(first).stem}-{count}"
        stems.add(stem)
        yield _Pair(
            first=pipeline.pixels(first), second=pipeline.pixels(second), names=(first, second), stem=stem
        )


def _video_pairs(file: str, options: argparse.Namespace) -> Iterator[_Pair]:
    pairs = pairwise(video_frames(file, stride=options.stride))
    for (number, first), (next_number, second) in islice(pairs, options.max_pairs):
        yield _Pair(
            first=first,
            second=second,
            names=(f"{file}#{number}", f"{file}#{next_number}"),
            stem=f"{Path(file).stem}-{number:06d}",
        )


def _describe(pair: _Pair, flow_2HW: Tensor) -> dict[str, Any]:
    magnitude_HW = torch.linalg.vector_norm(flow_2HW, dim=0)
    height, width = magnitude_HW.shape
    return {
        "frames": list(pair.names),
        "width": width,
        "height": height,
        "mean_magnitude": magnitude_HW.mean().item(),
        "max_magnitude": magnitude_HW.max().item(),
    }


def _write(
    pair: _Pair, flow_2HW: Tensor, folder: Path, options: argparse.Namespace, inputs: Sequence[str]
) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    endings = {"flo": ".flo", "png": ".png", "colours": "-colours.png", "picture": "-picture.png"}
    files = {kind: folder / f"{pair.stem}-flow{ending}" for kind, ending in endings.items()}
    kept = {Path(file).resolve() for file in (*inputs, *(options.ground_truth or []))}
    if overwritten := [str(file) for file in files.values() if file.resolve() in kept]:
        raise ValueError(
            f"The results would replace the input {overwritten[0]}. Choose another --output-dir."
        )
    fits_HW = png_range(flow_2HW)
    if not fits_HW.all():
        logger.warning(
            "%d pixels move further than a 16-bit PNG can say; %s marks them as unknown.",
            int((~fits_HW).sum()),
            files["png"],
        )
    write_flo(files["flo"], flow_2HW)
    write_flow_png(files["png"], flow_2HW, fits_HW)
    write_image(files["colours"], flow_to_colours(flow_2HW, max_magnitude=options.max_magnitude))
    first, second = (_as_rgb(frame) for frame in (pair.first, pair.second))
    picture = flow_picture(first, second, flow_2HW, max_magnitude=options.max_magnitude)
    write_image(files["picture"], picture)
    return {kind: str(file) for kind, file in files.items()}


def _as_rgb(frame: Tensor | NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = frame if isinstance(frame, np.ndarray) else frame.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

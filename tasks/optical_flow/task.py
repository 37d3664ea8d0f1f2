"""The optical flow task.

Shape legend: B batch, F image channels, H height, W width, O points.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.frame_pair_processor import FramePairProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.drawn_points import draw_points
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.images import write_image
from perceiver_io.media.video import video_frames
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Setup, TrainableTask
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.measures import mean_metric
from perceiver_io.running.task import OURS, Batch, Collate, Drawing, Layout, as_number
from perceiver_io.tasks.optical_flow.colour_wheel import flow_to_colours
from perceiver_io.tasks.optical_flow.data import read_flow_pairs
from perceiver_io.tasks.optical_flow.flow_io import FlowField, png_range, read_flow, write_flo, write_flow_png
from perceiver_io.tasks.optical_flow.flow_variation import FlowAugmentation, cut, varied
from perceiver_io.tasks.optical_flow.metrics import end_point_error, flow_metrics
from perceiver_io.tasks.optical_flow.model import FLOW, FRAMES, PerceiverIOForOpticalFlow
from perceiver_io.tasks.optical_flow.picture import draw_flows, flow_picture
from perceiver_io.tasks.optical_flow.pipeline import OpticalFlowPipeline
from perceiver_io.tasks.optical_flow.presets import config
from perceiver_io.tasks.optical_flow.recipe import OpticalFlowRecipe

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["FlowPredictOptions", "OpticalFlowTask"]

logger = logging.getLogger(__name__)

_NUM_DRAWN = 6
_ENDINGS = {
    "flo": "-flow.flo",
    "png": "-flow.png",
    "colours": "-flow-colours.png",
    "picture": "-flow-picture.png",
}


@dataclass(kw_only=True)
class FlowPredictOptions(PredictOptions):
    """What the prediction of flow may be told.

    Raises:
        ValueError: A number is out of range.
    """

    ground_truth: list[str] = field(
        default_factory=list,
        metadata={"help": "True flow, .flo or 16-bit PNG, to compare with: a file for each pair of images."},
    )
    batch_size: int = field(default=1, metadata={"help": "Tiles at once."})
    min_overlap: int = field(default=20, metadata={"help": "Pixels that tiles share at least."})
    max_magnitude: float | None = field(
        default=None,
        metadata={"help": "Pixels of motion that have the full colour; if not given, the longest."},
    )
    stride: int = field(default=1, metadata={"help": "Take every so many frames of a video."})
    max_pairs: int | None = field(default=None, metadata={"help": "Stop after so many pairs of a video."})

    def __post_init__(self) -> None:
        limits = {"batch_size": 1, "min_overlap": 0, "stride": 1, "max_pairs": 1}
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, expected {least} or more.")
        if self.max_magnitude is not None and not 0 < self.max_magnitude < math.inf:
            raise ValueError(f"max_magnitude is {self.max_magnitude}, expected a number above zero.")


@register_task("optical-flow")
class OpticalFlowTask(TrainableTask):
    """Trains `PerceiverIOForOpticalFlow`, and applies it to images, or to the frames of a video."""

    model_class = PerceiverIOForOpticalFlow
    recipe_class = OpticalFlowRecipe
    input_metavar = "FRAME"
    options_class = FlowPredictOptions
    writes_files = True

    def data(self, recipe: OpticalFlowRecipe) -> Splits:
        """Reads pairs of frames with their true flow, or makes some."""
        return read_flow_pairs(
            recipe,
            size=recipe.frame_size,
            image_channels=recipe.image_channels,
            num_pairs=recipe.num_pairs,
            rendering=recipe.rendering,
            occluded=recipe.occluded,
            seed=recipe.seed,
        )

    def config(self, recipe: OpticalFlowRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        changes = recipe.model_settings
        return config(
            variant=recipe.variant,
            size=recipe.frame_size,
            frames={"image_channels": recipe.image_channels, **changes.input(FRAMES)},
            encoder=changes.encoder,
            decoder=changes.output(FLOW),
        )

    def processor(self, recipe: OpticalFlowRecipe, data: Splits) -> PerceiverIOProcessor:
        """Returns what makes inputs of pairs of images."""
        return PerceiverIOProcessor({FRAMES: FramePairProcessor(num_channels=recipe.image_channels)})

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes processor_config.json; the layout of `transformers` has none for pairs of frames."""
        if layout == OURS:
            frames = FramePairProcessor(num_channels=model.config.inputs[FRAMES].image_channels)
            PerceiverIOProcessor({FRAMES: frames}).save_pretrained(folder)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what cuts pairs to what the model sees; in training they are varied, and few points have labels."""
        size, recipe = setup.model.tile_size, setup.recipe
        if not train:
            return partial(_whole_batch, size=size)
        settings = recipe.augmentation_settings()
        return partial(_training_batch, size=size, settings=settings, num_points=recipe.num_points)

    def weight(self, batch: Batch) -> Tensor:
        """Returns of how many pairs anything is known: of so many the loss is the mean."""
        valid: Tensor = batch["valid"]
        return valid.flatten(1).any(1).sum()

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """The end-point error, that of no motion, and the shares of pixels that are off by more than 1 and 3 pixels.

        All are means over all pixels whose flow is known.
        """
        names = ("end_point_error", "zero_flow_error", "off_by_1", "off_by_3")
        return {name: mean_metric(higher_is_better=False) for name in names}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares all pixels whose flow is known."""
        flow, labels, valid = output.flow.float(), batch["labels"].float(), batch["valid"]
        labels = torch.where(valid[:, None], labels, 0)
        error = end_point_error(flow, labels)[valid]
        measures["end_point_error"].update(error)
        measures["zero_flow_error"].update(end_point_error(torch.zeros_like(labels), labels)[valid])
        measures["off_by_1"].update(error > 1)
        measures["off_by_3"].update(error > 3)

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """The true and the estimated flow of some test pairs, and what the latents attend to in the first."""
        rows = [setup.data.test[index] for index in range(min(len(setup.data.test), _NUM_DRAWN))]
        model = setup.model.eval()
        batch = to_device(self.collator(setup, train=False)(rows), model.device)
        with torch.inference_mode():
            flows_B2HW = model(frames=batch["frames"]).flow.float().cpu()
        rows = [cut(row, model.tile_size, at_random=False) for row in rows]
        maps = model.attention_maps(batch["frames"][:1])
        seen = SeenImage(pixels=_as_rgb(rows[0]["first"]))
        view = AttentionView(maps=maps, seen={FRAMES: seen}, title="A test pair")
        return {
            "flows.png": partial(draw_flows, rows, flows_B2HW),
            "attention.png": partial(draw_view, view),
        }

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        value = {
            name.removeprefix(f"{split}_"): as_number(results[name])
            for name in results
            if name.startswith(f"{split}_")
        }
        line = (
            f"{split} end-point error {value['end_point_error']:.3f} pixels (of no motion "
            f"{value['zero_flow_error']:.3f}), off by more than 1 pixel {value['off_by_1']:.1%}, more than 3 "
            f"{value['off_by_3']:.1%}, {results[f'{split}_samples']} pairs"
        )
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: FlowPredictOptions
    ) -> list[dict[str, Any]]:
        """Estimates the flow between consecutive images, or between consecutive frames of one video file.

        Args:
            loaded: The model.
            inputs: Two or more image files of one size, or one video file.
            options: With `output_dir` each pair leaves `NAME-flow.flo`, `NAME-flow.png` (16 bits),
                `NAME-flow-colours.png` and `NAME-flow-picture.png` there, NAME being its first frame's.

        Returns:
            For each pair its `frames`, `width`, `height`, `mean_magnitude` and `max_magnitude` in pixels, the names of
            the `files`, and with a true flow the metrics of `flow_metrics`.

        Raises:
            ValueError: A file cannot be read or would be overwritten, sizes differ, or there are not as many true
                flows as pairs.
            OSError: A file cannot be written.
        """
        _check_number(inputs, options.ground_truth)
        pipeline = OpticalFlowPipeline(
            loaded.model, batch_size=options.batch_size, min_overlap=options.min_overlap
        )
        truths = [read_flow(file) for file in options.ground_truth]
        image_pairs = _image_pairs(inputs)
        if image_pairs:
            _check_sizes(pipeline, inputs, truths)
        if options.output_dir is not None:
            names = [pair.stem + ending for pair in image_pairs for ending in _ENDINGS.values()]
            check_outputs(
                options.output_dir, names, [*inputs, *options.ground_truth], overwrite=options.overwrite
            )
        results = []
        for index, pair in enumerate(image_pairs or _video_pairs(inputs[0], options)):
            flow_2HW = pipeline(pair.first, pair.second)
            result = _describe(pair, flow_2HW)
            if truths:
                result |= flow_metrics(flow_2HW, truths[index].flow, truths[index].valid)
            if options.output_dir is not None:
                result["files"] = _write(pipeline, pair, flow_2HW, options.output_dir, options.max_magnitude)
            results.append(result)
        if not results:
            raise ValueError(
                f"{inputs[0]} has fewer than two frames at a stride of {options.stride}. Pass two images, or a video."
            )
        return results

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
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

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the model attends to in two image files of one size, over the first of them.

        The images go into the model whole, not in tiles.
        """
        if len(inputs) != 2:
            raise ValueError(f"Attention of a flow model is drawn for two images, got {len(inputs)} files.")
        pipeline = OpticalFlowPipeline(loaded.model)
        first_FHW, second_FHW = (pipeline.pixels(file) for file in inputs)
        maps = loaded.model.attention_maps(pipeline.normalized(first_FHW, second_FHW)[None])
        seen = SeenImage(pixels=first_FHW.permute(1, 2, 0).squeeze(-1).numpy())
        title = " and ".join(Path(file).name for file in inputs)
        return AttentionView(maps=maps, seen={FRAMES: seen}, title=title)


def _whole_batch(rows: Sequence[Mapping[str, Tensor]], *, size: tuple[int, int]) -> dict[str, Tensor]:
    """Frames with their true flow, cut from the middle."""
    return _stacked([cut(row, size, at_random=False) for row in rows])


def _training_batch(
    rows: Sequence[Mapping[str, Tensor]],
    *,
    size: tuple[int, int],
    settings: FlowAugmentation,
    num_points: int,
) -> dict[str, Tensor]:
    """Frames that are cut and varied at random, with their true flow at points that are drawn."""
    batch = _stacked([varied(cut(row, size, at_random=True), settings) for row in rows])
    points_BO, is_drawn_BO = draw_points(batch["valid"].flatten(1), num_points)
    labels_B2O = batch["labels"].flatten(2).gather(2, points_BO[:, None].expand(-1, 2, -1))
    return {
        **batch,
        "labels": labels_B2O.mT,
        "valid": is_drawn_BO,
        "points": torch.stack(torch.unravel_index(points_BO, size), dim=-1),
    }


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    frames_B2FHW = torch.stack([torch.stack([row["first"], row["second"]]) for row in rows])
    scaled = PerceiverIOImageProcessor(num_channels=frames_B2FHW.shape[2]).normalize_pixels(frames_B2FHW)
    labels_B2HW, valid_BHW = (torch.stack([row[name] for row in rows]) for name in ("flow", "valid"))
    return {"frames": scaled, "labels": labels_B2HW, "valid": valid_BHW}


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two frames.

    Attributes:
        first: An image file, or (H, W, 3) uint8.
        second: The same.
        names: What the two are called in results.
        stem: What the names of the written files begin with.
    """

    first: str | NDArray[np.uint8]
    second: str | NDArray[np.uint8]
    names: tuple[str, str]
    stem: str


def _check_number(inputs: Sequence[str], truths: Sequence[str]) -> None:
    num_pairs = len(inputs) - 1
    if truths and not num_pairs:
        raise ValueError("ground_truth is for image files, not for a video.")
    if len(truths) not in (0, num_pairs):
        raise ValueError(
            f"{len(inputs)} images are {num_pairs} pairs, but ground_truth has {len(truths)} files: give one for each "
            "pair."
        )


def _check_sizes(pipeline: OpticalFlowPipeline, files: Sequence[str], truths: Sequence[FlowField]) -> None:
    """Finds what cannot be read or does not fit before anything is computed."""
    sizes = {file: tuple(pipeline.pixels(file).shape[1:]) for file in files}
    for file, truth in zip(files, truths, strict=False):
        sizes[f"the true flow of {file}"] = tuple(truth.valid.shape)
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {width}x{height}" for name, (height, width) in sizes.items())
        raise ValueError(f"All frames must have one size, but {listed} pixels. Crop or pad them alike.")


def _image_pairs(files: Sequence[str]) -> list[_Pair]:
    pairs: dict[str, _Pair] = {}
    for first, second in pairwise(files):
        stem, count = Path(first).stem, 1
        while stem in pairs:  # files of one name in several folders
            count += 1
            stem = f"{Path(first).stem}-{count}"
        pairs[stem] = _Pair(first=first, second=second, names=(first, second), stem=stem)
    return list(pairs.values())


def _video_pairs(file: str, options: FlowPredictOptions) -> Iterator[_Pair]:
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
    pipeline: OpticalFlowPipeline, pair: _Pair, flow_2HW: Tensor, folder: str, max_magnitude: float | None
) -> dict[str, str]:
    names = {kind: f"{pair.stem}{ending}" for kind, ending in _ENDINGS.items()}
    fits_HW = png_range(flow_2HW)
    if not fits_HW.all():
        logger.warning(
            "%d pixels move further than a 16-bit PNG can say; %s marks them as unknown.",
            int((~fits_HW).sum()),
            Path(folder, names["png"]),
        )
    first, second = (_as_rgb(pipeline.pixels(frame)) for frame in (pair.first, pair.second))
    with writing_into(folder) as partial:
        write_flo(partial / names["flo"], flow_2HW)
        write_flow_png(partial / names["png"], flow_2HW, fits_HW)
        write_image(partial / names["colours"], flow_to_colours(flow_2HW, max_magnitude=max_magnitude))
        picture = flow_picture(first, second, flow_2HW, max_magnitude=max_magnitude)
        write_image(partial / names["picture"], picture)
    return {kind: str(Path(folder, name)) for kind, name in names.items()}


def _as_rgb(pixels_FHW: Tensor) -> NDArray[np.uint8]:
    return pixels_FHW.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()

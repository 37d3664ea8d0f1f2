"""The task of point cloud segmentation: the parts of objects, or what is where in a scene.

Shape legend: B batch, P points, C coordinates and further features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.data.paired import read_paired
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.clouds import read_labelled_cloud, read_labels, write_labelled_cloud
from perceiver_io.media.source import is_source
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Setup
from perceiver_io.running.task import Batch, Drawing
from perceiver_io.tasks.dense.classes import (
    check_class_names,
    class_measures,
    class_parts,
    found_classes,
    iou_per_class,
    parts_line,
    segmented_line,
    update_classes,
    with_classes,
)
from perceiver_io.tasks.dense.losses import UNKNOWN
from perceiver_io.tasks.dense.task import DenseRecipe, DenseTask, at_drawn_points
from perceiver_io.tasks.modalities.cloud import CLOUD as CLOUDS
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.point_cloud_segmentation.data import (
    EMBEDDED,
    LABELS,
    LABELS_WITHIN,
    point_classes,
)
from perceiver_io.tasks.point_cloud_segmentation.model import (
    CLASSES,
    CLOUD,
    PerceiverIOForPointCloudSegmentation,
)
from perceiver_io.tasks.point_cloud_segmentation.picture import draw_parts
from perceiver_io.tasks.point_cloud_segmentation.presets import INPUTS, VARIANTS, cloud_map_config

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["PointCloudSegmentationTask"]

_NUM_DRAWN = 8
_ENDINGS = ("-labels.npy", "-parts.ply")
_FOLDERS = {
    CLOUD: ("clouds", "cloud", "points"),
    LABELS.column: ("labels", "label", "points_label", "parts", "segmentations"),
}
_PREPARED = "prepared"


@dataclass(kw_only=True)
class PointCloudSegmentationRecipe(DenseRecipe):
    """What a model of point cloud segmentation is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = tuple(EMBEDDED)

    cloud: dict[str, Any] = settings_section(CLOUDS, "the point clouds")
    variant: str = field(default="small", metadata={"help": f"Model preset, one of {', '.join(VARIANTS)}."})
    label_column: str = field(
        default=LABELS.column, metadata={"help": "The dataset's column with the labels."}
    )
    class_names: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Names of the classes, by their index in the labels; by default as many as the labels have, called "
            "by their index."
        },
    )
    unknown_classes: list[int] = field(
        default_factory=list,
        metadata={"help": "Labels that stand for no class: such points count for nothing."},
    )
    num_points: int = field(
        default=128,
        metadata={
            "help": "Points of a cloud that a training step asks for, drawn at random among those with a label; all, "
            "where there are no more."
        },
    )
    batch_size: int = field(default=16, metadata={"help": "Clouds in a batch, per process."})
    eval_batch_size: int = field(
        default=16,
        metadata={"help": "Clouds in a batch of an evaluation, per process, with all of their points."},
    )
    learning_rate: float = field(
        default=2e-3, metadata={"help": "Highest learning rate, reached after the warm-up."}
    )
    num_threads: int | None = 1  # as fast as two for models of this size

    def __post_init__(self) -> None:
        """Checks all values, those of the section too."""
        super().__post_init__()
        check_class_names(self.class_names)
        INPUTS.settings(self)


@register_task("point-cloud-segmentation")
class PointCloudSegmentationTask(DenseTask):
    """Trains and applies `PerceiverIOForPointCloudSegmentation`."""

    model_class = PerceiverIOForPointCloudSegmentation
    recipe_class = PointCloudSegmentationRecipe
    writes_files = True

    def data(self, recipe: PointCloudSegmentationRecipe) -> Splits:
        """Reads clouds and labels, and finds out how many classes there are."""
        read = read_paired(
            recipe,
            CLOUDS.content,
            LABELS,
            folders=_FOLDERS,
            embedded=EMBEDDED,
            seed=recipe.seed,
            within=LABELS_WITHIN,
        )
        unknown = recipe.unknown_classes
        names = recipe.class_names or read.class_names
        names = names or found_classes(read.mapped(partial(_with_labels, unknown=unknown)).train, LABELS)
        labelled = read.mapped(partial(_with_labels, unknown=unknown, num_classes=len(names)))
        return replace(labelled, class_names=tuple(names))

    def config(self, recipe: PointCloudSegmentationRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        changes = recipe.model_settings
        return cloud_map_config(
            INPUTS.adapters(INPUTS.settings(recipe), self.processor(recipe, data), changes)[CLOUD],
            num_classes=len(data.class_names),
            variant=recipe.variant,
            encoder=changes.encoder,
            decoder=changes.output(CLASSES),
            id2label=dict(enumerate(data.class_names)),
        )

    def processor(self, recipe: PointCloudSegmentationRecipe, data: Splits) -> PerceiverIOProcessor:
        """Returns the processor of a new model; the data decides nothing."""
        return INPUTS.processor(INPUTS.settings(recipe), [])

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model."""
        return INPUTS.load_processor(source)

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has."""
        return with_classes(config, data.class_names), processor

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor) -> Batch:
        """Makes points that are read, all points that are asked for if these are more, and their labels."""
        of = _of(processor)
        width = of.num_coordinates + of.num_features
        samples = [row[_PREPARED] if _PREPARED in row else _prepared(row, of) for row in rows]
        read = [sample[of.kept(len(sample)), :width] for sample in samples]
        batch: dict[str, Any] = {}
        batch["points"], batch["points_mask"] = pad_ragged(read)
        if any(len(some) < len(sample) for some, sample in zip(read, samples, strict=True)):
            whole = [sample[:, :width] for sample in samples]
            batch["query_points"], batch["query_mask"] = pad_ragged(whole)
        if samples[0].shape[1] > width:
            batch["labels"] = pad_ragged([sample[:, width].long() for sample in samples], value=UNKNOWN)[0]
        return batch

    def variation(
        self, processor: PerceiverIOProcessor, recipe: PointCloudSegmentationRecipe
    ) -> Callable[[Any], Any]:
        """Returns what varies a cloud; labels ride along as a feature, so that they are thinned out with the points."""
        of = _with_a_label(_of(processor))
        settings = INPUTS.settings(recipe)[CLOUD]
        return lambda row: {_PREPARED: CLOUDS.varied(_joined(row, of), of, settings)}

    def drawn(self, batch: Batch, number: int) -> Batch:
        """Returns a batch that asks for points that are drawn among those that are read."""
        drawn = at_drawn_points({"labels": batch["labels"]}, number)
        at_BO1 = drawn["points"].reshape(*drawn["labels"].shape, 1)
        asked_BOC = batch["points"].gather(1, at_BO1.expand(-1, -1, batch["points"].shape[-1]))
        return {**batch, "query_points": asked_BOC, "labels": drawn["labels"]}

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Mean intersection over union, and that of each class; the accuracy of points, and the classes' mean."""
        return class_measures(len(setup.data.class_names), element="point")

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares the most probable classes of all points that have one."""
        update_classes(measures, output, batch)

    def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
        """The intersection over union of each class, by name."""
        return iou_per_class(setup.data.class_names, values)

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Test clouds with their true and their predicted classes, and what the latents attend to in the first."""
        test, model, processor = setup.data.test, setup.model.eval(), setup.processor
        rows = [test[index * len(test) // _NUM_DRAWN] for index in range(min(len(test), _NUM_DRAWN))]
        clouds = [np.asarray(row[CLOUD])[:, : _of(processor).num_coordinates] for row in rows]
        found = [self._classes(model, processor, row) for row in rows]
        true = [row[LABELS.column].numpy() for row in rows]
        view = self.row_view(model, processor, rows[0], "A test sample")
        return {
            "parts.png": partial(draw_parts, clouds, true, found, setup.data.class_names),
            "attention.png": partial(draw_view, view),
        }

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a cloud, over the points that they read."""
        view = super().row_view(model, processor, {CLOUD: row[CLOUD]}, title)
        return AttentionView(maps=view.maps, seen=INPUTS.seen(row, processor), title=title)

    def read(self, file: str) -> dict[str, Any]:
        """Opens a file of a cloud."""
        return {CLOUD: CLOUDS.content.read(file)}

    def file_suffixes(self) -> set[str]:
        """Returns the endings of files of clouds."""
        return CLOUDS.content.suffixes()

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: PredictOptions
    ) -> list[dict[str, Any]]:
        """Finds the classes of all points of files.

        Args:
            loaded: The model and its processor.
            inputs: The files.
            options: With `output_dir` each file leaves `NAME-labels.npy` there, the class index of each of its points,
                and `NAME-parts.ply`, its points in the colours of their classes.

        Returns:
            For each file its name, as `points` how many it has, as `classes` the part of them that each class
            takes, the largest first; and the `files` that were written.

        Raises:
            ValueError: A file cannot be read or would be overwritten, or the weights are damaged.
            OSError: A file cannot be written.
        """
        if options.output_dir is not None:
            names = [Path(file).stem + ending for file in inputs for ending in _ENDINGS]
            check_outputs(options.output_dir, names, inputs)
        labels = loaded.model.config.id2label
        results = []
        for file in inputs:
            row = self.read(file)
            classes_P = self._classes(loaded.model, loaded.processor, row)
            parts = class_parts(classes_P, labels)
            result = {"file": str(file), "points": len(classes_P), "classes": parts}
            if options.output_dir is not None:
                points_PA = row[CLOUD][:, : min(3, _of(loaded.processor).num_coordinates)]
                result["files"] = _write(
                    options.output_dir, Path(file).stem, points_PA, classes_P, len(labels)
                )
            results.append(result)
        return results

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        return segmented_line(results, element="point", noun="clouds")

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and its classes with the part of the points that each takes."""
        return parts_line(prediction)

    def _classes(self, model: Any, processor: PerceiverIOProcessor, row: Any) -> NDArray[np.int64]:
        """The class of each point of a cloud."""
        with torch.inference_mode():
            logits_1KP = model(**self._inputs(model, [{CLOUD: row[CLOUD]}], processor)).logits.float()
        if not logits_1KP.isfinite().all():
            raise ValueError("The model gives values that are not numbers: its weights are damaged.")
        classes_P: NDArray[np.int64] = logits_1KP[0].argmax(0).cpu().numpy()
        return classes_P


def _with_labels(
    row: Mapping[str, Any], *, unknown: Sequence[int], num_classes: int | None = None
) -> dict[str, Any]:
    """A row with its cloud, and with its labels as int64 classes."""
    cloud, labels = row[CLOUD], row[LABELS.column]
    where = cloud.get("path") if isinstance(cloud, Mapping) else None
    if is_source(cloud) and cloud == labels:
        cloud, labels = read_labelled_cloud(cloud)
    else:
        cloud = CLOUDS.content.decode(cloud)
        labels = read_labels(labels) if is_source(labels) else labels
    try:
        classes_P = point_classes(labels, num_points=len(cloud), unknown=unknown, num_classes=num_classes)
    except ValueError as error:
        raise ValueError(f"{where or 'A cloud'}: {error}") from error
    return {CLOUD: cloud, LABELS.column: torch.from_numpy(classes_P)}


def _of(processor: PerceiverIOProcessor) -> PointCloudProcessor:
    of = processor.processors[CLOUD]
    assert isinstance(of, PointCloudProcessor)
    return of


def _with_a_label(of: PointCloudProcessor) -> PointCloudProcessor:
    return replace(of, num_features=of.num_features + 1)


def _joined(row: Mapping[str, Any], of: PointCloudProcessor) -> Tensor:
    """The columns of a cloud that are read, and its labels as the last of them."""
    cloud_PC = torch.as_tensor(np.asarray(row[CLOUD]))
    if cloud_PC.ndim != 2:
        return cloud_PC  # the processor says what is wrong
    cloud_PC = cloud_PC[:, : of.num_coordinates + of.num_features - 1]
    return torch.cat([cloud_PC, row[LABELS.column][:, None].to(cloud_PC.dtype)], dim=1)


def _prepared(row: Mapping[str, Any], of: PointCloudProcessor) -> Tensor:
    """All points of a cloud, with their labels if there are any."""
    if LABELS.column not in row:
        return replace(of, max_points=None).prepare(row[CLOUD])
    labelled = replace(_with_a_label(of), max_points=None)
    return labelled.prepare(_joined(row, labelled))


def _write(
    folder: str, stem: str, points_PA: NDArray[Any], classes_P: NDArray[np.int64], num_classes: int
) -> list[str]:
    names = [stem + ending for ending in _ENDINGS]
    with writing_into(folder) as partial_folder:
        np.save(partial_folder / names[0], classes_P)
        colours_P3 = class_colours(num_classes)[classes_P]
        write_labelled_cloud(partial_folder / names[1], points_PA, classes_P, colours_P3)
    return [str(Path(folder, name)) for name in names]

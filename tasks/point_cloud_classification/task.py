"""The point cloud classification task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiver_io.registry import register_task
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.point_cloud_classification.data import EMBEDDED
from perceiver_io.tasks.point_cloud_classification.model import PerceiverIOForPointCloudClassification
from perceiver_io.tasks.point_cloud_classification.presets import INPUTS

__all__ = ["PointCloudClassificationTask"]


@dataclass(kw_only=True)
class PointCloudClassificationRecipe(ModalRecipe):
    """What a point cloud classifier is trained on, and how."""

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    cloud: dict[str, Any] = settings_section(CLOUD, "the point clouds")
    variant: str = "tiny"
    num_epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 2e-3
    num_threads: int | None = 1  # as fast as two for models of this size


@register_task("point-cloud-classification")
class PointCloudClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForPointCloudClassification`."""

    model_class = PerceiverIOForPointCloudClassification
    recipe_class = PointCloudClassificationRecipe
    inputs = INPUTS
    embedded = EMBEDDED

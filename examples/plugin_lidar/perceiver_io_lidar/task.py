"""The task: what stands before the sensor."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.cloud import CloudModality, CloudSettings
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io_lidar.adapter import LidarAdapter
from perceiver_io_lidar.scenes import street


@dataclass(frozen=True, kw_only=True)
class LidarSettings(CloudSettings):
    """What a recipe says of sweeps: as of other clouds, but where points lie is where they are."""

    num_features: int = 1  # the intensity
    normalize: Literal["unit-sphere", "none"] = "none"
    rotation: Literal["none", "upright", "any"] = "none"


class LidarModality(CloudModality):
    """Sweeps: clouds that have an adapter of their own."""

    name = "lidar"
    Settings = LidarSettings
    content = replace(CloudModality.content, column="lidar", noun="sweeps")

    def adapter(self, settings: LidarSettings, processor: PointCloudProcessor) -> LidarAdapter.Config:
        """Returns what a new model reads them with."""
        return LidarAdapter.Config()


LIDAR = LidarModality()


@dataclass(kw_only=True)
class LidarRecipe(ModalRecipe):
    """What a run is made of."""

    embedded = ("street",)
    inputs_of_task = Inputs.of(LIDAR)

    lidar: dict[str, Any] = settings_section(LIDAR, "the sweeps")


class LidarClassificationTask(ModalClassificationTask):
    """Trains and applies a classifier of sweeps."""

    name = "lidar-classification"
    recipe_class = LidarRecipe
    inputs = LidarRecipe.inputs_of_task
    embedded = {"street": street}  # noqa: RUF012 - a ClassVar of the base class

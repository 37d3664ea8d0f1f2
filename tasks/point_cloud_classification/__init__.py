"""Point cloud classification: presets, the model class, its processor."""

from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.tasks.point_cloud_classification.model import PerceiverIOForPointCloudClassification
from perceiver_io.tasks.point_cloud_classification.presets import config

__all__ = ["PerceiverIOForPointCloudClassification", "PointCloudProcessor", "config"]

"""Point cloud segmentation: presets, the model class, its processor."""

from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.tasks.point_cloud_segmentation.model import PerceiverIOForPointCloudSegmentation
from perceiver_io.tasks.point_cloud_segmentation.presets import config

__all__ = ["PerceiverIOForPointCloudSegmentation", "PointCloudProcessor", "config"]

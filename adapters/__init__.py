"""Modality adapters: one file a modality, each registered under a short name."""

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.features import FeaturesAdapter
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.optical_flow import FramePairAdapter
from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.point_cloud import PointCloudAdapter
from perceiver_io.adapters.spectrogram import SpectrogramAdapter
from perceiver_io.adapters.table import TableAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.adapters.time_series import TimeSeriesAdapter
from perceiver_io.adapters.video import VideoAdapter

__all__ = [
    "AudioAdapter",
    "FeaturesAdapter",
    "FramePairAdapter",
    "ImageAdapter",
    "LabelAdapter",
    "PixelSequenceAdapter",
    "PointCloudAdapter",
    "SpectrogramAdapter",
    "TableAdapter",
    "TextAdapter",
    "TimeSeriesAdapter",
    "VideoAdapter",
]

"""Modality adapters: one file a modality, each registered under a short name."""

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.optical_flow import FramePairAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.adapters.video import VideoAdapter

__all__ = [
    "AudioAdapter",
    "FramePairAdapter",
    "ImageAdapter",
    "LabelAdapter",
    "TextAdapter",
    "VideoAdapter",
]

"""Modality adapters: one file a modality, each registered under a short name."""

from perceiver_io.adapters.image import ImageAdapter

__all__ = ["ImageAdapter"]

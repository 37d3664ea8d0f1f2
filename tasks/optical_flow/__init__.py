"""Optical flow: presets, the model class, its pipeline, files and colours of flow fields.

The command line's task is imported where it is used.
"""

from perceiver_io.tasks.optical_flow.colour_wheel import flow_to_colours
from perceiver_io.tasks.optical_flow.flow_io import (
    FlowField,
    read_flo,
    read_flow,
    read_flow_png,
    write_flo,
    write_flow_png,
)
from perceiver_io.tasks.optical_flow.metrics import flow_metrics
from perceiver_io.tasks.optical_flow.model import OpticalFlowOutput, PerceiverIOForOpticalFlow
from perceiver_io.tasks.optical_flow.pipeline import OpticalFlowPipeline
from perceiver_io.tasks.optical_flow.presets import VARIANTS, config

__all__ = [
    "VARIANTS",
    "FlowField",
    "OpticalFlowOutput",
    "OpticalFlowPipeline",
    "PerceiverIOForOpticalFlow",
    "config",
    "flow_metrics",
    "flow_to_colours",
    "read_flo",
    "read_flow",
    "read_flow_png",
    "write_flo",
    "write_flow_png",
]

"""Labelled and unlabelled data from embedded sets, folders, tables and the hub, split once and for all."""

from perceiver_io.data.content import Content, file_feature
from perceiver_io.data.labelled import read_labelled
from perceiver_io.data.sources import LabelledRows
from perceiver_io.data.splits import Splits, hold_out, split_rows
from perceiver_io.data.texts import ByteWindows, byte_windows, read_texts, standard_library

__all__ = [
    "ByteWindows",
    "Content",
    "LabelledRows",
    "Splits",
    "byte_windows",
    "file_feature",
    "hold_out",
    "read_labelled",
    "read_texts",
    "split_rows",
    "standard_library",
]

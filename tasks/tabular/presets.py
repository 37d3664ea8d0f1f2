"""Configurations of models of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceiver_io.adapters.table import TableAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import laid_over, variant_parts
from perceiver_io.tasks.classification.presets import ENCODERS, classifier_config
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.table import ROWS, SMALL
from perceiver_io.vector_decoders import RegressionDecoder

__all__ = ["INPUTS", "VALUE", "classification_config", "regression_config"]

INPUTS = Inputs.of(ROWS)
VALUE = "value"

Columns = Sequence[tuple[Any, ...]]


def classification_config(
    *,
    columns: Columns,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "nano",
    table: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a classifier of rows.

    Args:
        columns: As `TableAdapter.Config`: ("number", mean, scale) or ("category", count). Where a `TableProcessor`
            makes the rows, mean and scale are 0 and 1.
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: "nano", "tiny", "small" or "base".
        table: Further fields of `TableAdapter.Config`.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return classifier_config(
        {ROWS.name: laid_over(TableAdapter.Config, SMALL, {"columns": columns}, table)},
        variant=variant,
        num_classes=num_classes,
        class_names=class_names,
        encoder=encoder,
        decoder=decoder,
        of="classifier of rows",
    )


def regression_config(
    *,
    columns: Columns,
    offset: float = 0.0,
    scale: float = 1.0,
    variant: str = "nano",
    table: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that gives a number for a row.

    Args:
        columns: As `classification_config`.
        offset: Mean of the numbers that it learns.
        scale: Their standard deviation.
        variant: "nano", "tiny", "small" or "base".
        table: Further fields of `TableAdapter.Config`.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `RegressionDecoder.Config` that differ from its defaults.

    Raises:
        ValueError: The variant or a field is unknown.
    """
    of_decoder = {"num_outputs": 1, "offset": (offset,), "scale": (scale,)}
    of_encoder = variant_parts(ENCODERS, variant, of="regression of rows")
    return PerceiverIOConfig(
        inputs={ROWS.name: laid_over(TableAdapter.Config, SMALL, {"columns": columns}, table)},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={VALUE: laid_over(RegressionDecoder.Config, of_decoder, decoder)},
    )

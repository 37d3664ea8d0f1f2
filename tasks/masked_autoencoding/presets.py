"""Configurations of masked autoencoders: the adapters and encoder of a classifier, with a decoder for each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import laid_over
from perceiver_io.registry import ADAPTERS

__all__ = ["RECONSTRUCTION", "config"]

RECONSTRUCTION: dict[str, Any] = {
    "position": "none",
    "query_input_from": "end",
    "query_channels": 128,
    "num_heads": 4,
    "widening_factor": 2,
    "channel_axis": -1,
}
"""Fields of decoders that ask what elements hold: a query is made of an element's position alone."""


def config(
    inputs: Mapping[str, ComponentConfig],
    encoder: EncoderConfig,
    *,
    decoders: Mapping[str, Mapping[str, Any]] | None = None,
    packing: Any = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a masked autoencoder of any inputs.

    Args:
        inputs: Configurations of adapters, by input.
        encoder: The encoder's.
        decoders: By input the fields of `DenseDecoder.Config` that differ from `RECONSTRUCTION`.
        packing: How inputs are joined; the defaults if None.

    Raises:
        ValueError: An adapter has no targets, or no positions beside its content that queries could be made of.
    """
    outputs = {}
    for name, part in inputs.items():
        adapter_class = ADAPTERS.class_of(part)
        with torch.device("meta"):
            adapter = adapter_class(part)
        if adapter.num_target_channels is None:
            raise ValueError(
                f"The input {name!r} ({adapter_class.__name__}) has no targets: nothing of it can be reconstructed. "
                "Texts have the task masked-language-modeling."
            )
        num_position_channels = adapter.num_channels - adapter.num_content_channels
        if not num_position_channels:
            raise ValueError(
                f"The input {name!r} has no positions beside its content, of which hidden elements could be asked by. "
                "Give its adapter positions, and combine='concat'."
            )
        asked = {
            "output_channels": adapter.num_target_channels,
            "query_input": name,
            "query_input_channels": num_position_channels,
        }
        outputs[name] = laid_over(DenseDecoder.Config, RECONSTRUCTION, asked, (decoders or {}).get(name))
    return PerceiverIOConfig(inputs=dict(inputs), encoder=encoder, outputs=outputs, packing=packing)

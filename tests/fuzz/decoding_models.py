"""Small models with outputs of all kinds, for the tests of encoding and decoding."""

from __future__ import annotations

import functools
from typing import Any

import torch

import perceiver_io as pio
from perceiver_io.adapters import ImageAdapter, PointCloudAdapter, TableAdapter, TextAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.testing.common import tiny_encoder

__all__ = ["MODELS", "model"]

_IMAGE = ImageAdapter.Config(
    size=(4, 6), image_channels=1, features="patches", patch_size=2, num_bands=2, position_extent="nominal"
)
_CLOUD = PointCloudAdapter.Config(num_axes=2, num_features=1, num_bands=2)
_TEXT = TextAdapter.Config(vocab_size=7, max_length=6, num_channels=8)
_TABLE = TableAdapter.Config(
    columns=(("number", 0.0, 1.0), ("category", 3)), num_channels=4, position_channels=2, num_frequencies=2
)

_Dense = pio.DenseDecoder.Config

# Inputs and outputs, and what else a configuration has.
MODELS: dict[str, dict[str, Any]] = {
    "image": {
        "inputs": {"image": _IMAGE},
        "outputs": {
            "label": pio.ClassificationDecoder.Config(num_classes=3),
            "number": pio.RegressionDecoder.Config(num_outputs=2, offset=(0.0, 1.0), scale=(1.0, 2.0)),
            "pooled": pio.PooledClassificationDecoder.Config(num_classes=2),
            "token": pio.NextTokenDecoder.Config(vocab_size=5),
            "fourier": _Dense(grid=(3, 4), output_channels=2, num_bands=2),
            "learned": _Dense(grid=(3, 4), output_channels=2, position="learned", position_channels=4),
            "follows": _Dense(
                grid_input="image", max_resolution=(4, 6), output_channels=2, num_bands=2, channel_axis=-1
            ),
            "upsampled": _Dense(
                query_input="image",
                query_input_channels=4,
                upsampling=(2, 3),
                max_resolution=(4, 9),
                output_channels=1,
                channel_axis=None,
                num_bands=2,
                scale=3.0,
                offset=-1.0,
            ),
            "elements": _Dense(
                query_input="image",
                query_input_channels=6,
                query_input_from="end",
                position="none",
                output_channels=2,
            ),
            "patches": _Dense(
                grid=(2, 2),
                patch_size=(2, 3),
                output_channels=3,
                num_bands=2,
                channel_axis=1,
                query_channels=5,
            ),
            "steps": _Dense(
                grid=(5,), spacing="steps", position="learned", position_channels=4, output_channels=2
            ),
            "cut": _Dense(
                grid=(6,),
                position="learned",
                position_channels=4,
                position_resize="truncate",
                output_channels=1,
                channel_axis=-1,
                num_heads=2,
            ),
            "volume": _Dense(grid=(2, 1, 3), output_channels=1, channel_axis=None, num_bands=1),
        },
    },
    "mixture": {
        "inputs": {"cloud": _CLOUD, "image": _IMAGE, "text": _TEXT},
        "outputs": {
            "label": pio.ClassificationDecoder.Config(num_classes=3),
            "each_point": _Dense(
                query_input="cloud",
                query_input_channels=3,
                position="none",
                output_channels=2,
                channel_axis=-1,
            ),
            "letters": _Dense(
                grid=(6,),
                grid_input="text",
                position="learned",
                position_channels=8,
                position_resize="truncate",
                output_channels=7,
                channel_axis=-1,
                tied_to="text",
                query_mask_input="text",
            ),
            "pixels": _Dense(grid=(2, 3), output_channels=4, num_bands=2),
            "shared": _Dense(grid=(2, 2), output_channels=2, num_bands=1),
            "shared_number": pio.RegressionDecoder.Config(num_outputs=1),
        },
        "packing": PackingConfig(min_padding=2),
        "shared_attention": SharedAttentionConfig(outputs=("shared", "shared_number"), output_channels=5),
    },
    "tokens": {
        "inputs": {"table": _TABLE, "text": _TEXT},
        "outputs": {
            "label": pio.ClassificationDecoder.Config(num_classes=3),
            "pixels": _Dense(grid=(2, 3), output_channels=4, num_bands=2),
        },
        "packing": PackingConfig(
            mask_probabilities=(("table", 0.3), ("text", 0.5)), input_dropout=(("text", 0.5),)
        ),
    },
}


@functools.cache
def model(name: str) -> pio.PerceiverIO:
    """Returns a model, the same one each time, with weights of which none is as at the start."""
    torch.manual_seed(0)
    made = pio.PerceiverIO(pio.PerceiverIOConfig(encoder=tiny_encoder(), **MODELS[name])).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return made

"""The published model of optical flow: what `transformers` and the original release call and compute."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from perceiver_io.adapters.optical_flow import FramePairAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.published.fields import (
    activation,
    check_same,
    encoder_config,
    encoder_fields,
    query_qk_channels,
)
from perceiver_io.published.krasserm import decoder_fields, krasserm_encoder, perceiver_io_loader
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.tasks.optical_flow.model import FLOW, FRAMES, PerceiverIOForOpticalFlow
from perceiver_io.tasks.optical_flow.presets import config

__all__ = ["LAYOUT"]

_CLASS = "PerceiverForOpticalFlow"
_FEATURES = 64
_BANDS = 64
# Features, the two coordinates, and a sine and a cosine of each at every frequency.
_QUERY_CHANNELS = _FEATURES + 2 * (2 * _BANDS + 1)


def _read(fields: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what the class computes, in pixels: its output counts units of 20 of them."""
    height, width = fields["train_size"]
    encoder = encoder_config(fields)
    return PerceiverIOConfig(
        inputs={
            FRAMES: FramePairAdapter.Config(
                size=(height, width), neighbourhood=3, feature_channels=_FEATURES, num_bands=_BANDS
            )
        },
        encoder=encoder,
        outputs={
            FLOW: DenseDecoder.Config(
                output_channels=2,
                query_input=FRAMES,
                query_input_channels=_FEATURES,
                num_bands=_BANDS,
                max_resolution=(height, width),
                scale=20 / 100,
                qk_channels=query_qk_channels(fields, query_channels=_QUERY_CHANNELS),
                use_query_residual=False,
                activation=activation(fields),
                attention_dropout=encoder.attention_dropout,
            )
        },
    )


def _to_transformers(config: PerceiverIOConfig) -> dict[str, Any]:
    frames, decoder = config.inputs[FRAMES], config.outputs[FLOW]
    if not isinstance(frames, FramePairAdapter.Config) or not isinstance(decoder, DenseDecoder.Config):
        raise ValueError(
            "The class of transformers reads frame pairs and decodes densely, this model does something else."
        )
    fields = {
        **encoder_fields(config.encoder),
        "architectures": [_CLASS],
        "train_size": list(frames.max_resolution or frames.size),
    }
    check_same(_resolved(config), _resolved(_read(fields)), architecture=_CLASS)
    return fields


def _resolved(config: PerceiverIOConfig) -> PerceiverIOConfig:
    """Returns the configuration with defaults as numbers, and without what does not matter to what it computes."""
    frames, decoder = config.inputs[FRAMES], config.outputs[FLOW]
    assert isinstance(frames, FramePairAdapter.Config)
    assert isinstance(decoder, DenseDecoder.Config)
    resolution = frames.max_resolution or frames.size
    qk_channels = decoder.qk_channels or config.encoder.latent_channels
    return PerceiverIOConfig(
        inputs={FRAMES: dataclasses.replace(frames, size=resolution, max_resolution=resolution)},
        encoder=config.encoder,
        outputs={
            FLOW: dataclasses.replace(
                decoder,
                grid=None,  # that of the frames
                grid_input=None,
                max_resolution=decoder.max_resolution or decoder.grid,
                qk_channels=qk_channels,
                v_channels=decoder.v_channels or qk_channels,
            )
        },
    )


def _of_krasserm(config_json: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what his "perceiver-io-optical-flow" computes, in pixels: his processor multiplies the flow by 20."""
    values = config_json["model_config"]
    encoder, decoder = values["encoder"], values["decoder"]
    height, width = encoder["image_shape"]
    features, bands = encoder["num_patch_hidden_channels"], encoder["num_frequency_bands"]
    channels = features + 2 * (2 * bands + 1)
    side = math.isqrt(encoder["num_patch_input_channels"] // 3)
    if side * side * 3 != encoder["num_patch_input_channels"] or side % 2 == 0:
        raise ValueError(
            f"num_patch_input_channels is {encoder['num_patch_input_channels']}, expected 3 times the square of an odd "
            "number."
        )
    return PerceiverIOConfig(
        inputs={
            FRAMES: FramePairAdapter.Config(
                size=(height, width), neighbourhood=side, feature_channels=features, num_bands=bands
            )
        },
        encoder=krasserm_encoder(values, qk_channels=channels, v_channels=channels),
        outputs={
            FLOW: DenseDecoder.Config(
                output_channels=2,
                query_input=FRAMES,
                query_input_channels=features,
                num_bands=bands,
                max_resolution=(height, width),
                scale=20 / decoder["rescale_factor"],
                **decoder_fields(values, query_channels=channels),
            )
        },
    )


_KRASSERM_NAMES = {
    "adapters.frames.projection": "0.input_adapter.linear",
    "decoders.flow.cross_attend": "1.cross_attn",
    "decoders.flow.output": "1.output_adapter.linear",
}

LAYOUT = PublishedLayout(
    model_class=PerceiverIOForOpticalFlow,
    inputs=(FRAMES,),
    outputs=(FLOW,),
    models={"optical-flow-perceiver": config},
    architectures={_CLASS: _read},
    to_transformers=_to_transformers,
    transformers_names={
        "adapters.frames.projection": "perceiver.input_preprocessor.conv_after_patches",
        "decoders.flow.cross_attend": "perceiver.decoder.decoder.decoding_cross_attention",
        "decoders.flow.output": "perceiver.decoder.decoder.final_layer",
    },
    deepmind_names={
        "adapters.frames.projection": "image_preprocessor/patches_linear",
        "encoder": "perceiver_encoder/~",
        "decoders.flow.cross_attend": "flow_decoder/~/basic_decoder/cross_attention",
        "decoders.flow.output": "flow_decoder/~/basic_decoder/output",
    },
    loaders={
        "perceiver-io-optical-flow": perceiver_io_loader(
            PerceiverIOForOpticalFlow, read=_of_krasserm, names=lambda _: _KRASSERM_NAMES
        )
    },
)

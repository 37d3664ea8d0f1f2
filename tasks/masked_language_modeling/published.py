"""The published language model: what `transformers` and the original release call and compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.published.fields import activation, check_same, encoder_config, encoder_fields
from perceiver_io.published.krasserm import decoder_fields, krasserm_encoder, perceiver_io_loader
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.tasks.masked_language_modeling.model import TEXT, PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.presets import config

__all__ = ["LAYOUT"]

_CLASS = "PerceiverForMaskedLM"


def _read(fields: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what the class computes: its decoder's heads and widths are fixed, and its queries have no mask."""
    vocab_size, max_length, num_channels = (
        fields[name] for name in ("vocab_size", "max_position_embeddings", "d_model")
    )
    encoder = encoder_config(fields)
    return PerceiverIOConfig(
        inputs={
            TEXT: TextAdapter.Config(vocab_size=vocab_size, max_length=max_length, num_channels=num_channels)
        },
        encoder=encoder,
        outputs={
            TEXT: DenseDecoder.Config(
                output_channels=vocab_size,
                grid=(max_length,),
                grid_input=TEXT,
                position="learned",
                position_channels=num_channels,
                position_resize="truncate",
                channel_axis=-1,
                tied_to=TEXT,
                num_heads=8,
                qk_channels=256,
                v_channels=num_channels,
                use_query_residual=False,
                activation=activation(fields),
                attention_dropout=encoder.attention_dropout,
            )
        },
    )


def _of_krasserm(config_json: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what his "perceiver-io-masked-language-model" computes."""
    values = config_json["model_config"]
    encoder, decoder = values["encoder"], values["decoder"]
    own_width = decoder["num_output_query_channels"]
    width = own_width or encoder["num_input_channels"]
    return PerceiverIOConfig(
        inputs={
            TEXT: TextAdapter.Config(
                vocab_size=encoder["vocab_size"],
                max_length=encoder["max_seq_len"],
                num_channels=encoder["num_input_channels"],
            )
        },
        encoder=krasserm_encoder(values),
        outputs={
            TEXT: DenseDecoder.Config(
                output_channels=decoder["vocab_size"],
                grid=(decoder["max_seq_len"],),
                grid_input=TEXT,
                position="learned",
                position_channels=width,
                position_resize="truncate",
                channel_axis=-1,
                tied_to=TEXT if own_width is None else None,
                **decoder_fields(values, query_channels=width),
            )
        },
    )


def _to_transformers(config: PerceiverIOConfig) -> dict[str, Any]:
    text = config.inputs[TEXT]
    if not isinstance(text, TextAdapter.Config) or not isinstance(config.outputs[TEXT], DenseDecoder.Config):
        raise ValueError(
            "The class of transformers reads token ids and decodes densely, this model does something else."
        )
    fields = {
        **encoder_fields(config.encoder),
        "architectures": [_CLASS],
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_length,
        "d_model": text.num_channels,
    }
    check_same(_resolved(config), _resolved(_read(fields)), architecture=_CLASS)
    return fields


def _resolved(config: PerceiverIOConfig) -> PerceiverIOConfig:
    """Returns the configuration with the decoder's defaults as numbers."""
    decoder = config.outputs[TEXT]
    assert isinstance(decoder, DenseDecoder.Config)
    qk_channels = decoder.qk_channels or config.encoder.latent_channels
    decoder = dataclasses.replace(
        decoder, qk_channels=qk_channels, v_channels=decoder.v_channels or qk_channels
    )
    return PerceiverIOConfig(inputs=config.inputs, encoder=config.encoder, outputs={TEXT: decoder})


def _krasserm_names(config: PerceiverIOConfig) -> dict[str, str]:
    decoder = config.outputs[TEXT]
    assert isinstance(decoder, DenseDecoder.Config)
    return {
        "adapters.text.embedding": "0.input_adapter.txt_embedding",
        "adapters.text.position.table": "0.input_adapter.pos_embedding",
        "decoders.text.position.table.weight": "1.output_query_provider._query",
        "decoders.text.cross_attend": "1.cross_attn",
        "decoders.text.output": f"1.output_adapter{'' if decoder.tied_to else '.linear'}",
    }


LAYOUT = PublishedLayout(
    model_class=PerceiverIOForMaskedLM,
    inputs=(TEXT,),
    outputs=(TEXT,),
    models={"language-perceiver": config},
    architectures={_CLASS: _read},
    to_transformers=_to_transformers,
    transformers_names={
        "adapters.text.embedding": "perceiver.input_preprocessor.embeddings",
        "adapters.text.position.table": "perceiver.input_preprocessor.position_embeddings",
        "decoders.text.position.table.weight": (
            "perceiver.decoder.output_position_encodings.position_embeddings"
        ),
        "decoders.text.cross_attend": "perceiver.decoder.decoding_cross_attention",
        "decoders.text.output": "embedding_decoder",
    },
    deepmind_names={
        "adapters.text.embedding.weight": "embed/embeddings",
        "adapters.text.position.table": "trainable_position_encoding",
        "encoder": "perceiver_encoder/~",
        "decoders.text.position.table": "basic_decoder/~/trainable_position_encoding",
        "decoders.text.cross_attend": "basic_decoder/cross_attention",
        "decoders.text.output.bias": "embedding_decoder/bias",
    },
    loaders={
        "perceiver-io-masked-language-model": perceiver_io_loader(
            PerceiverIOForMaskedLM, read=_of_krasserm, names=_krasserm_names
        )
    },
)

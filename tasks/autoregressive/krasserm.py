"""Perceiver AR in the layout of krasserm's implementation: config.json and pytorch_model.bin, read and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.files import writing_into
from perceiver_io.published.krasserm import ATTENTION_PARTS, FEED_FORWARD_PARTS, ROOT
from perceiver_io.published.krasserm import load_krasserm as load_shared
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.presets import TOKENS
from perceiver_io.token_decoder import NextTokenDecoder
from perceiver_io.weight_files import PICKLE

__all__ = ["MODEL_TYPES", "load_krasserm", "save_krasserm"]

_TEXT, _MUSIC = "perceiver-ar-causal-language-model", "perceiver-ar-symbolic-audio-model"
MODEL_TYPES = (_TEXT, _MUSIC)
_ARCHITECTURES = {_TEXT: "PerceiverCausalLanguageModel", _MUSIC: "PerceiverSymbolicAudioModel"}
# What his configurations are where they say nothing.
_DEFAULTS = {
    "vocab_size": 262,
    "max_seq_len": 4096,
    "max_latents": 512,
    "num_channels": 512,
    "num_heads": 8,
    "num_self_attention_layers": 8,
    "num_self_attention_rotary_layers": 1,
    "self_attention_widening_factor": 4,
    "cross_attention_widening_factor": 4,
    "cross_attention_dropout": 0.5,
    "post_attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "output_norm": False,
    "output_bias": True,
    "abs_pos_emb": True,
    "init_scale": 0.02,
}
_MUSIC_DEFAULTS = {"vocab_size": 389, "max_seq_len": 6144, "max_latents": 2048, "num_channels": 768}
_FREQUENCIES = "backend_model.input_adapter.frq_pos_encoding.inv_freq"

_PARTS = {**{ours: f"0.module.{theirs}" for ours, theirs in ATTENTION_PARTS.items()}, **FEED_FORWARD_PARTS}


def load_krasserm(
    source: str | os.PathLike[str], *, config: PerceiverIOConfig | None = None, **kwargs: Any
) -> PerceiverARForCausalLM:
    """Loads a Perceiver AR that krasserm's implementation wrote, strictly.

    Args:
        source: A folder or hub id with config.json and pytorch_model.bin, such as "krasserm/perceiver-ar-clm-base".
            Pickles are read with ``weights_only=True``.
        config: What the model shall compute; as his class does if None.
        **kwargs: As `PerceiverIO.from_pretrained`.

    Raises:
        ValueError: config.json is none of his, a tensor is missing, not expected, or of a wrong shape, or a file cannot
            be read.
        OSError: There is no such folder or id, or a file is missing in it.
    """
    loaded = load_shared(
        source,
        PerceiverARForCausalLM,
        read=lambda config_json: _config_of(config_json, source=source),
        names=lambda tensors, _: _names(tensors),
        config=config,
        **kwargs,
    )
    return cast(PerceiverARForCausalLM, loaded)


def save_krasserm(model: PerceiverARForCausalLM, folder: str | os.PathLike[str]) -> None:
    """Writes a model so that krasserm's implementation loads it and computes the same, where its cache is exact.

    Args:
        model: A model of his kind.
        folder: Where to write config.json and pytorch_model.bin. It need not exist.

    Raises:
        ValueError: His classes do not compute what the model computes.
        OSError: The folder cannot be written. Nothing half-written is left.
    """
    config = cast(PerceiverIOConfig, model.config)
    config_json = _json_of(config)
    encoder = cast(CausalEncoderConfig, config.encoder)
    state_dict = model.state_dict()
    tensors = {
        ROOT + theirs: state_dict[ours].detach().cpu().contiguous()
        for ours, theirs in _names(state_dict).items()
    }
    rotated = 2 * int(encoder.rotary_fraction * encoder.latent_channels / encoder.num_heads / 2)
    tensors[_FREQUENCIES] = 1.0 / 10_000 ** (torch.arange(0, rotated, 2).float() / rotated)
    with writing_into(folder) as partial:
        torch.save(tensors, partial / PICKLE)
        (partial / "config.json").write_text(json.dumps(config_json, indent=2) + "\n")


def _config_of(config_json: Mapping[str, Any], *, source: str | os.PathLike[str]) -> PerceiverIOConfig:
    kind = config_json.get("model_type")
    given = config_json.get("model_config")
    if kind not in MODEL_TYPES or not isinstance(given, Mapping):
        raise ValueError(
            f"{source} must have a config.json with the model_type {' or '.join(MODEL_TYPES)} and its settings under "
            f"model_config, got {kind!r:.80} and {given!r:.80}."
        )
    values: dict[str, Any] = {**_DEFAULTS, **(_MUSIC_DEFAULTS if kind == _MUSIC else {})}
    values |= {name: value for name, value in given.items() if name in values}
    widening = values["self_attention_widening_factor"], values["cross_attention_widening_factor"]
    rotated = values["num_self_attention_rotary_layers"]
    return PerceiverIOConfig(
        inputs={
            TOKENS: TextAdapter.Config(
                vocab_size=values["vocab_size"],
                max_length=values["max_seq_len"],
                num_channels=values["num_channels"],
                position="learned" if values["abs_pos_emb"] else "none",
                counts_real=True,
            )
        },
        encoder=CausalEncoderConfig(
            sequence=TOKENS,
            max_length=values["max_seq_len"],
            num_latents=values["max_latents"],
            latent_channels=values["num_channels"],
            num_self_attends=values["num_self_attention_layers"],
            num_heads=values["num_heads"],
            rotary_fraction=0.5 if values["abs_pos_emb"] else 1.0,
            num_rotary_self_attends=None if rotated == -1 else rotated,
            latent_keys="query_norm",
            biases="cross_attend_output",
            widening_factor=widening[0],
            cross_widening_factor=None if widening[1] == widening[0] else widening[1],
            dropout=values["residual_dropout"],
            attention_dropout=values["post_attention_dropout"],
            prefix_dropout=values["cross_attention_dropout"],
        ),
        outputs={
            TOKENS: NextTokenDecoder.Config(
                vocab_size=values["vocab_size"],
                use_layer_norm=values["output_norm"],
                bias=values["output_bias"],
                tied_to=TOKENS,
            )
        },
    )


def _json_of(config: PerceiverIOConfig) -> dict[str, Any]:
    """The configuration as he writes it."""
    tokens, encoder, output = config.inputs[TOKENS], config.encoder, config.outputs[TOKENS]
    same = "His implementation computes something else than this model"
    if (
        list(config.inputs) != [TOKENS]
        or not isinstance(tokens, TextAdapter.Config)
        or not isinstance(encoder, CausalEncoderConfig)
        or not isinstance(output, NextTokenDecoder.Config)
    ):
        raise ValueError(f"{same}: it reads tokens alone.")
    rotated = encoder.num_rotary_self_attends
    values = {
        "vocab_size": tokens.vocab_size,
        "max_seq_len": encoder.max_length,
        "max_latents": encoder.num_latents,
        "num_channels": encoder.latent_channels,
        "num_heads": encoder.num_heads,
        "num_self_attention_layers": encoder.num_self_attends,
        "num_self_attention_rotary_layers": -1 if rotated is None else rotated,
        "self_attention_widening_factor": encoder.widening_factor,
        "cross_attention_widening_factor": encoder.cross_widening_factor or encoder.widening_factor,
        "cross_attention_dropout": encoder.prefix_dropout,
        "post_attention_dropout": encoder.attention_dropout,
        "residual_dropout": encoder.dropout,
        "output_norm": output.use_layer_norm,
        "output_bias": output.bias,
        "abs_pos_emb": tokens.position == "learned",
        "init_scale": 0.02,
        "max_heads_parallel": None,
        "activation_checkpointing": False,
        "activation_offloading": False,
    }
    kind = _MUSIC if tokens.vocab_size == _MUSIC_DEFAULTS["vocab_size"] else _TEXT
    config_json = {
        "architectures": [_ARCHITECTURES[kind]],
        "is_decoder": True,
        "model_config": values,
        "model_type": kind,
    }
    again = _config_of(config_json, source="what would be written").to_dict()
    ours = config.to_dict()
    if differing := [part for part in ("inputs", "encoder", "outputs") if again[part] != ours[part]]:
        fields = [f"{part}: {ours[part]} instead of {again[part]}" for part in differing]
        raise ValueError(f"{same}. What differs: {'; '.join(fields)}")
    return config_json


def _names(tensors: Iterable[str]) -> dict[str, str]:
    """The table: each of our tensors' names, and what he calls it."""
    table = {}
    for ours in tensors:
        module, _, leaf = ours.removeprefix("perceiver.").rpartition(".")
        if module == f"adapters.{TOKENS}.embedding":
            theirs = "input_adapter.txt_embedding"
        elif module == f"adapters.{TOKENS}.position.table":
            theirs = "input_adapter.pos_embedding"
        elif module == f"decoders.{TOKENS}.norm":
            theirs = "out_norm"
        elif module == f"decoders.{TOKENS}.output":
            theirs = "output_adapter"
        elif match := re.fullmatch(r"encoder\.cross_attend\.(.+)", module):
            theirs = f"cross_attention.{_PARTS[match[1]]}"
        elif match := re.fullmatch(r"encoder\.self_attends\.(\d+)\.(.+)", module):
            theirs = f"self_attention.{match[1]}.{_PARTS[match[2]]}"
        else:
            raise ValueError(f"The tensor {ours} has no counterpart in krasserm's implementation.")
        table[ours] = f"{theirs}.{leaf}"
    return table

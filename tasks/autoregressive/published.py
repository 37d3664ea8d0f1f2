"""Perceiver AR in the release of Google Research: its configurations, and what it calls its arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.tasks.autoregressive.krasserm import MODEL_TYPES, load_krasserm
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.presets import TOKENS
from perceiver_io.token_decoder import NextTokenDecoder

__all__ = ["LAYOUT"]

_ROOT = "perceiver_ar/~"
_PARTS = {
    "norm": "layer_norm",
    "attention.query": "attention/linear",
    "attention.key": "attention/linear_1",
    "attention.value": "attention/linear_2",
    "attention.output": "attention/linear_3",
    "feed_forward_norm": "layer_norm_1",
    "feed_forward.hidden": "dense/linear",
    "feed_forward.output": "dense/linear_1",
}
_CROSS_PARTS = {
    **_PARTS,
    "query_norm": "layer_norm",
    "input_norm": "layer_norm_1",
    "feed_forward_norm": "layer_norm_2",
}


def _table(model: PerceiverIOPreTrainedModel) -> dict[str, str]:
    """Each of our tensors' names, and the "module/leaf" of its array."""
    names = {}
    for ours in model.state_dict():
        module, _, leaf = ours.removeprefix("perceiver.").rpartition(".")
        if match := re.fullmatch(
            rf"adapters\.{TOKENS}\.(embedding|positions\.(\d+)|position\.table)", module
        ):
            # The release counts x before y, we rows before columns.
            axis = int(match[2] or 0)
            number = 0 if match[1] == "embedding" else 1 + ({0: 1, 1: 0}.get(axis, axis) if match[2] else 0)
            names[ours] = f"{_ROOT}/embed{f'_{number}' if number else ''}/embeddings"
            continue
        if module == "encoder.projection":
            theirs = f"{_ROOT}/linear"
        elif module == f"decoders.{TOKENS}.norm":
            theirs = "perceiver_ar/layer_norm"
        elif module == f"decoders.{TOKENS}.output":
            theirs = f"{_ROOT}/logits"
        elif match := re.fullmatch(r"encoder\.cross_attend\.(.+)", module):
            theirs = f"{_ROOT}/cross_attention/{_CROSS_PARTS[match[1]]}"
        elif match := re.fullmatch(r"encoder\.self_attends\.(\d+)\.(.+)", module):
            number = int(match[1])
            theirs = f"{_ROOT}/self_attention{f'_{number}' if number else ''}/{_PARTS[match[2]]}"
        else:
            raise ValueError(f"The tensor {ours} has no counterpart in the release of Perceiver AR.")
        leaves = {"weight": "w", "bias": "b"}
        if "norm" in module.rpartition(".")[2]:
            leaves = {"weight": "scale", "bias": "offset"}
        names[ours] = f"{theirs}/{leaves[leaf]}"
    return names


def _arrays(
    model: PerceiverIOPreTrainedModel, arrays: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Their arrays without what ours need none for: the row of padding's position, and fixed tables of sinusoids."""
    adapter = model.config.inputs[TOKENS]
    has_tables = not isinstance(adapter, TextAdapter.Config) or adapter.position == "learned"
    kept = {}
    for name, array in arrays.items():
        if re.fullmatch(rf"{_ROOT}/embed_\d+/embeddings", name):
            if not has_tables:
                continue
            array = array[1:]
        kept[name] = array
    return kept


def _no_class_of_transformers(*_: Any) -> NoReturn:
    raise ValueError("transformers has no Perceiver AR.")


def _released(
    adapter: TextAdapter.Config | PixelSequenceAdapter.Config, *, max_length: int, num_self_attends: int
) -> PerceiverIOConfig:
    """What all sweeps of the release have in common."""
    return PerceiverIOConfig(
        inputs={TOKENS: adapter},
        encoder=CausalEncoderConfig(
            sequence=TOKENS,
            max_length=max_length,
            num_latents=1024,
            latent_channels=1024,
            num_self_attends=num_self_attends,
            num_heads=16,
            project_latents=True,
            activation="squared_relu",
            dropout=0.1,
        ),
        outputs={TOKENS: NextTokenDecoder.Config(vocab_size=adapter.vocab_size)},
    )


def _copy_task() -> PerceiverIOConfig:
    """The copy of 131,072 tokens: 100 % (Perceiver AR, section 5.1)."""
    adapter = TextAdapter.Config(
        vocab_size=259, max_length=131_072, num_channels=1024, position="sinusoidal", counts_real=True
    )
    return _released(adapter, max_length=131_072, num_self_attends=6)


def _imagenet() -> PerceiverIOConfig:
    """ImageNet at 64 x 64: 3.40 bits a dimension (Perceiver AR, table 2).

    A byte is its value and 3; 2 is the start, 1 the end, 0 padding.
    """
    adapter = PixelSequenceAdapter.Config(
        vocab_size=259, size=(64, 64, 3), num_channels=1024, num_special_tokens=3
    )
    return _released(adapter, max_length=12_416, num_self_attends=60)


LAYOUT = PublishedLayout(
    model_class=PerceiverARForCausalLM,
    inputs=(TOKENS,),
    outputs=(TOKENS,),
    models={"perceiver-ar-copy": _copy_task, "perceiver-ar-imagenet-64": _imagenet},
    architectures={},
    to_transformers=_no_class_of_transformers,
    transformers_names={},
    deepmind_names={},
    deepmind_table=_table,
    deepmind_arrays=_arrays,
    loaders=dict.fromkeys(MODEL_TYPES, load_krasserm),
)

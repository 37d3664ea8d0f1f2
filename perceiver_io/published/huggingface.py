"""The layout of `transformers`: config.json of its Perceiver, and safetensors or pytorch_model.bin, read and written.

Both directions use one table of names, which follows from the model's own tensors: rules for what all models have,
and the layout's names for what is the task's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor
from transformers import PerceiverConfig

from perceiver_io.config import LABEL_OPTIONS, PerceiverIOConfig
from perceiver_io.files import writing_into
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.published.fields import all_fields
from perceiver_io.published.layout import PublishedLayout, layout_of, layouts, renamed
from perceiver_io.weight_files import HUB_OPTIONS, PICKLE, SAFETENSORS, check_fit, find_weights, read_tensors

__all__ = ["MODEL_TYPE", "load_transformers", "save_transformers"]

MODEL_TYPE = PerceiverConfig.model_type

_MODULES = {
    "encoder.latents.weight": "perceiver.embeddings.latents",
    "encoder.cross_attends.0": "perceiver.encoder.cross_attention",
    "encoder.blocks.0.layers": "perceiver.encoder.self_attends",
}
_ATTENTION_PARTS = {
    "norm": "attention.self.layernorm1",
    "query_norm": "attention.self.layernorm1",
    "input_norm": "attention.self.layernorm2",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "feed_forward_norm": "layernorm",
    "feed_forward.hidden": "mlp.dense1",
    "feed_forward.output": "mlp.dense2",
}


def load_transformers(
    source: str | os.PathLike[str], *, config: PerceiverIOConfig | None = None, **kwargs: Any
) -> PerceiverIOPreTrainedModel:
    """Loads a Perceiver of `transformers` as the task's class, strictly.

    Args:
        source: A folder or hub id with config.json and the weights: model.safetensors or pytorch_model.bin, in one
            file or in several with their index. Pickles are read with ``weights_only=True``.
        config: What the model shall compute; as the class in `transformers` computes it if None.
        **kwargs: As `PerceiverIO.from_pretrained` (`dtype`, `revision`, `num_labels`, …).

    Raises:
        ValueError: The class that config.json names is none that can be loaded, a tensor is missing, not expected, or
            of a wrong shape, or a file cannot be read.
        OSError: There is no such folder or id, or a file is missing in it.
    """
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    labels = {name: kwargs.pop(name) for name in LABEL_OPTIONS if name in kwargs}
    if config is None:
        config_json, _ = PerceiverIOConfig.get_config_dict(source, **hub_options)
        config = _config_of(config_json, source=source)
    if any(value is not None for value in labels.values()):
        config = config.with_labels(**labels)
    layout = layout_of(config)
    tensors: dict[str, Tensor] = {}
    for path in find_weights(source, (SAFETENSORS, PICKLE), hub_options):
        tensors |= read_tensors(path)
    expected = layout.model_class.tensor_shapes(config)
    names = _names(expected, layout)
    check_fit(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {theirs: expected[ours] for ours, theirs in names.items()},
        source=source,
        model_name=layout.model_class.__name__,
        may_mismatch=kwargs.get("ignore_mismatched_sizes", False),
    )
    state_dict = {ours: tensors.pop(theirs) for ours, theirs in names.items()}
    return layout.model_class.from_pretrained(None, config=config, state_dict=state_dict, **kwargs)  # type: ignore[arg-type]


def save_transformers(model: PerceiverIOPreTrainedModel, folder: str | os.PathLike[str]) -> None:
    """Writes a model so that the class of `transformers` loads it and computes the same.

    Args:
        model: A task's model whose configuration is that of a published model, sizes aside.
        folder: Where to write config.json and model.safetensors. It need not exist.

    Raises:
        ValueError: No class of `transformers` computes what the model computes; the error names the differences.
        OSError: The folder cannot be written. Nothing half-written is left.
    """
    ours = cast(PerceiverIOConfig, model.config)
    layout = layout_of(ours)
    config = PerceiverConfig.from_dict(layout.to_transformers(ours))
    config.dtype = model.dtype
    state_dict = model.state_dict()
    names = _names(state_dict, layout)
    tensors = {theirs: state_dict[ours].detach().cpu().contiguous() for ours, theirs in names.items()}
    with writing_into(folder) as partial:
        save_file(tensors, partial / SAFETENSORS, metadata={"format": "pt"})
        config.to_json_file(partial / "config.json")


def _config_of(config_json: Mapping[str, Any], *, source: str | os.PathLike[str]) -> PerceiverIOConfig:
    readers = {name: read for layout in layouts() for name, read in layout.architectures.items()}
    architectures = config_json.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(name, str) or name not in readers:
        raise ValueError(
            f"{source} was saved by the class {name!r:.80} of transformers, which cannot be loaded. Known: "
            f"{', '.join(sorted(readers))}."
        )
    return readers[name](all_fields(config_json))


def _names(tensors: Iterable[str], layout: PublishedLayout) -> dict[str, str]:
    """The table: each of our tensors' names, and what it is called in `transformers`."""
    prefix = f"{layout.model_class.base_model_prefix}."
    names = {**_MODULES, **layout.transformers_names}
    table = {}
    for ours in tensors:
        found = renamed(ours.removeprefix(prefix), names)
        if found is None:
            raise ValueError(f"The tensor {ours} has no counterpart in the models of transformers.")
        module, rest = found
        match = re.fullmatch(r"((?:\d+\.)?)(.+)\.(weight|bias)", rest)
        if match is not None:
            index, part, leaf = match.groups()
            rest = f"{index}{_ATTENTION_PARTS.get(part, part)}.{leaf}"
        table[ours] = f"{module}.{rest}" if rest else module
    return table

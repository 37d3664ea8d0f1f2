"""The layout of `transformers`: config.json of its Perceiver, and safetensors or pytorch_model.bin, read and written.

Both directions use one table of names, which follows from the model's own tensors: rules for what all models have,
and the layout's names for what is the task's own.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PerceiverConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.files import writing_into
from perceiver_io.model import PerceiverIOPreTrainedModel
from perceiver_io.published.fields import all_fields
from perceiver_io.published.layout import PublishedLayout, layout_of, layouts, renamed

__all__ = ["HUB_OPTIONS", "MODEL_TYPE", "load_transformers", "save_transformers"]

MODEL_TYPE = PerceiverConfig.model_type
# Where to find the files of a hub id, and how to fetch them.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

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
        **kwargs: As `transformers.PreTrainedModel.from_pretrained` (`dtype`, `revision`, …).

    Raises:
        ValueError: The class that config.json names is none that can be loaded, a tensor is missing, not expected, or
            of a wrong shape, or a file cannot be read.
        OSError: There is no such folder or id, or a file is missing in it.
    """
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    config_json, _ = PreTrainedConfig.get_config_dict(source, **hub_options)
    if config is None:
        config = _config_of(config_json, source=source)
    layout = layout_of(config)
    tensors = _read_weights(source, hub_options)
    # On the meta device a model is names and shapes only.
    with torch.device("meta"):
        expected = layout.model_class(config).state_dict()
    names = _names(expected, layout)
    problems = _problems(
        tensors,
        {theirs: expected[ours] for ours, theirs in names.items()},
        with_shapes=not kwargs.get("ignore_mismatched_sizes", False),
    )
    if problems:
        raise ValueError(
            f"The weights in {source} do not fit {layout.model_class.__name__} as its configuration describes it:\n  "
            + "\n  ".join(problems)
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
        save_file(tensors, partial / _WEIGHTS[0], metadata={"format": "pt"})
        config.to_json_file(partial / "config.json")


def _config_of(config_json: Mapping[str, Any], *, source: str | os.PathLike[str]) -> PerceiverIOConfig:
    readers = {name: read for layout in layouts() for name, read in layout.architectures.items()}
    architectures = config_json.get("architectures") or [None]
    if architectures[0] not in readers:
        raise ValueError(
            f"{source} was saved by the class {architectures[0]!r} of transformers, which cannot be loaded. Known: "
            f"{', '.join(sorted(readers))}."
        )
    return readers[architectures[0]](all_fields(config_json))


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


def _problems(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, with_shapes: bool
) -> list[str]:
    problems = [f"missing tensor: {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected tensor: {name}" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"wrong shape: {name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if with_shapes and tensors[name].shape != expected[name].shape
    ]
    return problems


def _read_weights(source: str | os.PathLike[str], hub_options: Mapping[str, Any]) -> dict[str, Tensor]:
    def find(name: str, *, required: bool) -> str | None:
        return cached_file(source, name, _raise_exceptions_for_missing_entries=required, **hub_options)

    for name in _WEIGHTS:
        read = _read_safetensors if name.endswith(".safetensors") else _read_pickle
        if (path := find(name, required=False)) is not None:
            return read(path)
        if (index := find(f"{name}.index.json", required=False)) is not None:
            tensors: dict[str, Tensor] = {}
            for shard in _shards(index):
                path = find(shard, required=True)
                assert path is not None
                tensors |= read(path)
            return tensors
    raise OSError(
        f"{source} has no weights: expected {' or '.join(_WEIGHTS)}, or an index of several such files."
    )


def _shards(index: str) -> list[str]:
    try:
        content = json.loads(Path(index).read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
        if not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in names):
            raise ValueError("its weight_map must name files beside it")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The index of the weights {index} cannot be read: {error!r:.200}.") from error
    return names


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        tensors = {}
        for name in names:
            # Copies: the file may be written anew while the model lives. Opened for each tensor: what was read of a
            # file that is mapped into memory stays there until it is closed; the weights would be held twice.
            with safe_open(path, framework="pt") as file:
                tensors[name] = file.get_tensor(name).clone()
        return tensors
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): the file is truncated or is no safetensors file. Fetch it again."
        ) from error


def _read_pickle(path: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it asks for something that tensors do not need, or is damaged. Nothing in it has been "
            f"run. ({str(error).splitlines()[0]:.200})"
        ) from error
    except (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r:.200}): the file is truncated or was not written by torch.save. Fetch it "
            "again."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold tensors by name, got {type(content).__name__} of other things.")
    return dict(content)

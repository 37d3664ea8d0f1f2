"""The parameter files of the original release: pickled trees of arrays, read without Haiku or JAX.

A tree has two levels, modules and their arrays: ``{"perceiver_encoder/~/self_attention/mlp/linear": {"w": …, …}, …}``.
Modules are numbered in call order, weights are (in, out), and the statistics of batch norms are in a tree of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layers import LearnedArray
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.printable import printable
from perceiver_io.published.layout import PublishedLayout, layout_of, published_config, renamed
from perceiver_io.published.unpickler import read_pickle
from perceiver_io.weight_files import check_finite, first_lines

__all__ = ["from_deepmind"]

_Tree = Mapping[str, Mapping[str, Any]]

_ATTENTION_PARTS = {
    "attention.query": "attention/linear",
    "attention.key": "attention/linear_1",
    "attention.value": "attention/linear_2",
    "attention.output": "attention/linear_3",
    "feed_forward.hidden": "mlp/linear",
    "feed_forward.output": "mlp/linear_1",
}
_CROSS_NORMS = {
    "query_norm": "layer_norm",
    "input_norm": "layer_norm_1",
    "feed_forward_norm": "layer_norm_2",
}
_SELF_NORMS = {"norm": "layer_norm", "feed_forward_norm": "layer_norm_1"}
_CROSS_PARTS = {**_ATTENTION_PARTS, **_CROSS_NORMS}
_SELF_PARTS = {**_ATTENTION_PARTS, **_SELF_NORMS}
_LEAVES: dict[type[nn.Module], dict[str, str]] = {
    LearnedArray: {"weight": "pos_embs"},
    nn.Linear: {"weight": "w", "bias": "b"},
    nn.Conv2d: {"weight": "w", "bias": "b"},
    nn.LayerNorm: {"weight": "scale", "bias": "offset"},
    nn.BatchNorm2d: {
        "weight": "scale",
        "bias": "offset",
        "running_mean": "~/mean_ema/average",
        "running_var": "~/var_ema/average",
    },
}
# Leaves of a batch norm's statistics that only matter to training.
_IGNORED = r".*/~/(mean|var)_ema/(counter|hidden)"


# What the checkpoints of the releases hold besides: the step, and what the optimizer remembers.
_PARTS_OF_CHECKPOINT = {"params", "state", "global_step", "opt_state"}


def from_deepmind(
    path: str | os.PathLike[str], config: PerceiverIOConfig | str
) -> PerceiverIOPreTrainedModel:
    """Loads a parameter file of the original release as the task's class, strictly.

    The file is a pickle, read without running anything in it: of ``{"params": …, "state": …}``, or of the parameters
    alone; mappings may be Haiku's, arrays NumPy's or JAX's.

    Args:
        path: The file.
        config: The model's configuration, or the name of a published model; see `published_config`.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: The file holds anything but arrays and mappings, is damaged, holds NaN or infinities, or its arrays
            do not fit the configuration: some that are missing, not expected or of a wrong shape are named.
        OSError: The file cannot be opened.
    """
    if isinstance(config, str):
        config = published_config(config)
    layout = layout_of(config)
    arrays = _arrays(read_pickle(path), path=path)
    with torch.device("meta"):
        model = layout.model_class(config)
    model.to_empty(device="cpu")
    names = _names(model, layout) if layout.deepmind_table is None else layout.deepmind_table(model)
    if layout.deepmind_arrays is not None:
        arrays = layout.deepmind_arrays(model, arrays)
    state_dict = model.state_dict()
    missing = [f"missing array: {name}" for name in sorted(set(names.values()) - arrays.keys())]
    unexpected = [
        f"unexpected array: {printable(name)}" for name in sorted(arrays.keys() - set(names.values()))
    ]
    mismatched = []
    for ours, theirs in names.items():
        if theirs in arrays:
            tensor = _in_our_layout(arrays.pop(theirs), leaf=theirs.rpartition("/")[2])
            if tensor.shape == state_dict[ours].shape:
                state_dict[ours].copy_(tensor)
            else:
                mismatched.append(
                    f"wrong shape: {theirs} makes {tuple(tensor.shape)}, expected {tuple(state_dict[ours].shape)}"
                )
    if missing or unexpected or mismatched:
        raise ValueError(
            f"The arrays in {path} do not fit {layout.model_class.__name__} as its configuration describes it:\n  "
            + "\n  ".join(first_lines(missing, unexpected, mismatched))
        )
    for ours in state_dict.keys() - names.keys():
        state_dict[ours].zero_()
    check_finite(state_dict, source=path, model_name=layout.model_class.__name__)
    return model.eval()


def _arrays(content: Any, *, path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of the trees by "module/leaf"."""
    trees = [content]
    if isinstance(content, Mapping) and "params" in content and content.keys() <= _PARTS_OF_CHECKPOINT:
        trees = [content[name] for name in ("params", "state") if content.get(name) is not None]
    arrays = {}
    for tree in trees:
        if not isinstance(tree, Mapping) or not all(isinstance(leaves, Mapping) for leaves in tree.values()):
            raise ValueError(
                f"{path} must hold arrays by the names of modules and leaves, or two such trees under 'params' and "
                f"'state', got {_kind(tree)}."
            )
        for module, leaves in tree.items():
            for leaf, value in leaves.items():
                name = f"{module}/{leaf}"
                if re.fullmatch(_IGNORED, name):
                    continue
                if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
                    raise ValueError(
                        f"{path} must hold arrays of floating-point numbers, got {_kind(value)} under "
                        f"{printable(name):.80}."
                    )
                arrays[name] = value
    return arrays


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with the keys {sorted(value)!r:.120}"
    return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__


def _names(model: PerceiverIOPreTrainedModel, layout: PublishedLayout) -> dict[str, str]:
    """The table: each of our tensors' names, and the "module/leaf" of its array."""
    prefix = f"{model.base_model_prefix}."
    table = {}
    for ours in model.state_dict():
        module, _, leaf = ours.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        theirs = _name(
            ours.removeprefix(prefix), module=model.get_submodule(module), names=layout.deepmind_names
        )
        if theirs is None:
            raise ValueError(f"The tensor {ours} has no counterpart in the models of the original release.")
        table[ours] = theirs
    return table


def _name(ours: str, *, module: nn.Module, names: Mapping[str, str]) -> str | None:
    found = renamed(ours, names)
    if found is None:
        return None
    theirs, rest = found
    if not rest:
        return theirs
    inner, _, leaf = rest.rpartition(".")
    if inner == "latents":
        theirs += "/trainable_position_encoding"
    elif inner:
        if match := re.fullmatch(r"blocks\.0\.layers\.(\d+)\.(.+)", inner):
            theirs += "/self_attention" + (f"_{match[1]}" if int(match[1]) else "")
            part = _SELF_PARTS.get(match[2])
        elif match := re.fullmatch(r"cross_attends\.0\.(.+)", inner):
            theirs += "/cross_attention"
            part = _CROSS_PARTS.get(match[1])
        else:
            part = _CROSS_PARTS.get(inner)
        if part is None:
            return None
        theirs += f"/{part}"
    leaves = next((known for cls, known in _LEAVES.items() if isinstance(module, cls)), {})
    return f"{theirs}/{leaves[leaf]}" if leaf in leaves else None


def _in_our_layout(array: np.ndarray[Any, Any], *, leaf: str) -> Tensor:
    """(in, out) -> (out, in), (height, width, in, out) -> (out, in, height, width), what batch norms have -> flat."""
    tensor = torch.tensor(array.astype(array.dtype.newbyteorder("=")))
    if leaf == "w" and tensor.ndim in (2, 4):
        return tensor.T if tensor.ndim == 2 else tensor.permute(3, 2, 0, 1)
    if leaf == "w":
        return tensor
    return tensor.flatten() if tensor.ndim == 4 else tensor

"""Int8 on a processor: which layers gain, and a model in which they compute so.

Most of a Perceiver's time goes into linear layers of the latents, which are several times as fast in int8. Left as they
are: what reads the raw inputs and what gives the outputs, where rounding hurts most and operations are few; and what a
cross-attend with one head multiplies in another order than written (`brackets.py`), which saves more than int8 does: as
written, the published Fourier model projects 50,176 pixels to keys and values, bracketed only 512 latents.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear
from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

from perceiver_io.cross_attention import CrossAttention
from perceiver_io.model import PerceiverIO
from perceiver_io.plain import has_hooks

__all__ = ["int8_layers", "quantize"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def int8_layers(model: nn.Module) -> list[str]:
    """Returns the names of the linear layers that `quantize` converts.

    Args:
        model: A `PerceiverIO`, or what holds one.

    Raises:
        ValueError: There is none in it.
    """
    perceivers = [module for module in model.modules() if isinstance(module, PerceiverIO)]
    if not perceivers:
        raise ValueError(f"Expected a PerceiverIO or a model that holds one, got {type(model).__name__}.")
    chosen = {layer for perceiver in perceivers for layer in _chosen(perceiver)}
    return [name for name, module in model.named_modules() if module in chosen]


def quantize(model: ModelT) -> ModelT:
    """Returns a copy of a model for inference on a processor, whose linear layers of the latents compute in int8.

    Weights are rounded row by row, activations as they come, by the scale of what is computed at once: other chunks, or
    another batch, are rounded otherwise. The kernels are PyTorch's, those of oneDNN where the processor has
    instructions for int8 (VNNI, AMX). The copy cannot be saved: save the model itself, and quantise it after loading.

    Args:
        model: A `PerceiverIO`, or what holds one, with float32 weights on the CPU.

    Raises:
        ValueError: It has no layer that could be converted, or its weights are of another type or elsewhere.
    """
    names = int8_layers(model)
    if not names:
        raise ValueError(
            f"No layer of this {type(model).__name__} can be converted: are they quantised already, or are there "
            "adapters or hooks? Merge adapters and remove hooks before."
        )
    for name in names:
        weight = model.get_submodule(name).weight
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise ValueError(
                f"Weights must be float32 on the CPU to be quantised, {name} has {weight.dtype} on {weight.device}. "
                "Call `.float().cpu()` first."
            )
    quantized = copy.deepcopy(model).eval()
    with _best_kernels() as kind:
        for name in names:
            layer = quantized.get_submodule(name)
            layer.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]  # where `from_float` looks for it
            quantized.set_submodule(name, kind.from_float(layer))
    return quantized


def _chosen(perceiver: PerceiverIO) -> Iterator[nn.Module]:
    of_inputs, of_outputs = (
        [part for whole in wholes for part in whole.modules() if isinstance(part, CrossAttention)]
        for wholes in ([perceiver.encoder], [perceiver.decoders, perceiver.shared_attention or nn.Identity()])
    )
    bracketed: set[nn.Module] = set()
    for attend in [*of_inputs, *of_outputs]:
        if attend.attention.num_heads == 1:
            bracketed.update(attend.attention.children())
            if attend in of_outputs:  # the output's own layers are multiplied with it
                bracketed.add(attend.feed_forward.output)
    for module in [perceiver.encoder, *of_outputs]:
        yield from (layer for layer in _layers(module) if layer not in bracketed)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Linear layers as PyTorch has them, with ordinary weights, which nobody listens to or has put in another's."""
    for owner in module.modules():
        if type(owner).__module__.startswith(f"{__package__}."):
            for layer in owner.children():
                if type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and not has_hooks(layer):
                    yield layer


class _FullRangeLinear(Linear):
    """Activations take all of int8. The base class leaves out a bit, without which kernels of old may overflow."""

    def forward(self, x: Tensor) -> Tensor:
        converted: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed_params._packed_params)
        return converted


@contextmanager
def _best_kernels() -> Iterator[type[Linear]]:
    """Gives the class of layers for this processor, whose weights are packed for its fastest kernels meanwhile."""
    engines = torch.backends.quantized
    before = engines.engine
    # By itself PyTorch chooses FBGEMM's, which leave AMX unused. oneDNN's are slow without instructions for int8.
    suits = torch.cpu._is_vnni_supported() and "onednn" in engines.supported_engines
    try:
        if suits:
            engines.engine = "onednn"
        yield _FullRangeLinear if suits else Linear
    finally:
        engines.engine = before

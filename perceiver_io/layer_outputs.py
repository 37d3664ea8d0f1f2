"""What models of `transformers` give besides their output, if asked: a tuple, hidden states, attention weights.

Shape legend: B batch, N latents, D latent channels, H heads, M elements.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from perceiver_io.attention import SelfAttention
from perceiver_io.causal.layers import CausalCrossAttend, CausalSelfAttend
from perceiver_io.cross_attention import CrossAttention

__all__ = ["PLAIN_OUTPUT", "with_layer_outputs"]

P = ParamSpec("P")
R = TypeVar("R")

PLAIN_OUTPUT = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""For a model that calls another one: the output as an object, whatever the configuration says, and nothing besides."""

_CROSS_ATTENDS = (CrossAttention, CausalCrossAttend)
_SELF_ATTENDS = (SelfAttention, CausalSelfAttend)


def with_layer_outputs(forward: Callable[P, R]) -> Callable[P, R]:
    """Lets the `forward` of a model take what every model of `transformers` takes.

    Where one of these is None, the configuration has the say:

    - `return_dict=False` gives a tuple of what is not None, in the order of the output's fields.
    - `output_hidden_states=True` adds `hidden_states`: the latents that go into the encoder's first layer, and those
      that come out of each, cross-attends and self-attends in order, (B, N, D).
    - `output_attentions=True` adds `attentions`, (B, H, N, N) weights of each self-attend, and `cross_attentions`,
      (B, H, N, M) of each cross-attend of the encoder, over all elements of the byte array: it takes the memory of so
      many numbers. `attention_maps` has them by input, on its grid, and of some latents.

    A layer is called as without; only what goes in and comes out is noted. With `attn_implementation="eager"`,
    attention is computed by its plain formula, with all weights in memory, instead of by a fused kernel.

    Args:
        forward: Returns a `ModelOutput`.
    """

    @functools.wraps(forward)
    def asked(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        wanted = {name: _wanted(self.config, name, kwargs.pop(name, None)) for name in PLAIN_OUTPUT}
        return_dict = wanted.pop("return_dict")
        run: Callable[..., Any] = forward
        if self.config._attn_implementation == "eager":
            run = sdpa_kernel(SDPBackend.MATH)(forward)
        if not any(wanted.values()):
            output = run(self, *args, **kwargs)
        else:
            with _noting(self.base_model.encoder, attentions=wanted["output_attentions"]) as layers:
                output = run(self, *args, **kwargs)
            if wanted["output_hidden_states"]:
                output["hidden_states"] = tuple(layers.hidden_states)
            if wanted["output_attentions"]:
                output["attentions"] = tuple(layers.attentions)
                output["cross_attentions"] = tuple(layers.cross_attentions)
        return output if return_dict else output.to_tuple()

    return asked  # type: ignore[return-value]


@dataclass
class _Layers:
    hidden_states: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    cross_attentions: list[Tensor] = field(default_factory=list)


@contextmanager
def _noting(encoder: nn.Module, *, attentions: bool) -> Iterator[_Layers]:
    """Notes what the layers of an encoder are given and give, in this thread: others may use the model, too."""
    layers, thread = _Layers(), threading.get_ident()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return
        if not layers.hidden_states:
            layers.hidden_states.append(args[0])
        if attentions:
            weights = layers.cross_attentions if isinstance(module, _CROSS_ATTENDS) else layers.attentions
            weights.append(module.attention_weights(*args, **kwargs))  # type: ignore[operator]

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if threading.get_ident() == thread:
            layers.hidden_states.append(output)

    attends = [one for one in encoder.modules() if isinstance(one, (*_CROSS_ATTENDS, *_SELF_ATTENDS))]
    handles = [one.register_forward_pre_hook(before, with_kwargs=True) for one in attends]
    handles += [one.register_forward_hook(after) for one in attends]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def _wanted(config: Any, name: str, value: bool | None) -> bool:
    if value is None:
        value = getattr(config, name, None)
    if value is None:
        return name == "return_dict"
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r:.80}.")
    return value

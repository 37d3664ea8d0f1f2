"""Whether algebra on a layer's weights gives what calling the layer gives, and nobody can tell the difference.

Hooks want to be called. Adapters (LoRA), quantised and parametrised layers compute something else than `weight` says.
Weights that are offloaded or sharded are not even there outside of a call. None of them is plain.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from perceiver_io.layers import LearnedArray, TiedOutput

__all__ = ["has_hooks", "is_plain"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORWARDS: dict[type[nn.Module], object] = {
    kind: kind.forward for kind in (nn.Linear, nn.LayerNorm, LearnedArray, TiedOutput)
}


def is_plain(*layers: nn.Module) -> bool:
    """Returns whether each of these layers is of a kind whose maths is known, with ordinary weights and no hooks."""
    return all(
        type(layer) in _FORWARDS
        and type(layer).forward is _FORWARDS[type(layer)]  # nobody has replaced it for all
        and not has_hooks(layer)
        # A bias of None is no parameter, and nothing that the algebra could add.
        and all(type(weight) in (Tensor, nn.Parameter) for weight in layer._parameters.values())
        and (not isinstance(layer, TiedOutput) or is_plain(layer.embedding))
        for layer in layers
    )


def has_hooks(*modules: nn.Module) -> bool:
    """Returns whether somebody wants to know when one of these modules is called, or has replaced its `forward`."""
    if any(getattr(torch_module, f"_global{name}") for name in _HOOKS):
        return True
    return any(
        "forward" in vars(module) or any(getattr(module, name) for name in _HOOKS) for module in modules
    )

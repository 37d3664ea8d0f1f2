"""Whether the values of tensors are looked at, beside their types and shapes.

To look at a value on an accelerator, the processor waits until all that was begun there is done. So checks of values
are for tensors in the processor's own memory, where looking costs next to nothing, and elsewhere for who asks for them.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor

__all__ = ["check_values", "looks_at"]

_HERE = {"cpu"}  # where looking costs next to nothing
_everywhere = False


class check_values:  # noqa: N801  # used as `torch.set_grad_enabled` is
    """Switches the checks of values on accelerators on or off: NaN, indices out of range, wholly masked samples.

    ``check_values()`` switches them on from then on, ``with check_values():`` until the block ends. Each check waits
    for the accelerator. On the CPU values are always checked, in compiled and exported graphs never.

    Args:
        enabled: Whether they are on.
    """

    def __init__(self, enabled: bool = True) -> None:
        global _everywhere
        self._before, _everywhere = _everywhere, enabled

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _everywhere
        _everywhere = self._before


def looks_at(x: Tensor) -> bool:
    """Returns whether a check may look at the values of a tensor.

    A graph that is compiled or exported cannot branch on them, nor can a function that `torch.func` transforms.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return False
    return _everywhere or x.device.type in _HERE

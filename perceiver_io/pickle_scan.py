"""Looks through a pickle before PyTorch's restricted reader carries it out: how long it is, how deep its tuples are.

That reader calls nothing that could harm, but has no budget: the hash of a tuple goes as deep as tuples are nested in
it, and a million levels end the process; `bytearray` makes as many bytes as a number says. So only those names are
admitted that files of tensors have.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from typing import Any, BinaryIO

from perceiver_io.budget import MOST_LEVELS

__all__ = ["MOST_INSTRUCTIONS", "check_pickle"]

MOST_INSTRUCTIONS = 500_000
"""A tensor takes about 40."""

# As GLOBAL has them. The restricted reader knows more: what makes bytes of numbers or of other bytes, and tensors that
# are no plain numbers.
_ADMITTED = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter"
    r"|torch(\.cuda)? [A-Z]\w*Storage|torch\.storage (Untyped|Typed|_\w*)Storage"
    r"|torch (Size|Tensor|[a-z]\w*)"
)


def check_pickle(file: BinaryIO) -> None:
    """Reads one pickle to its end, and makes nothing of it.

    Only tuples are followed: they are what is hashed, and what is in them stays as it was.

    Args:
        file: Where it begins; afterwards, where the next one does.

    Raises:
        pickle.UnpicklingError: It asks for something that tensors do not need.
        ValueError: It is too long, nests tuples too deeply, or is no pickle.
    """
    levels: list[int] = []  # of what lies on the stack, 0 for what is no tuple; -1 is a mark
    memo: dict[Any, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file), start=1):
        if count > MOST_INSTRUCTIONS:
            raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = levels[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = levels[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            levels.append(memo[argument])
        elif name == "DUP":
            levels.append(levels[-1])
        elif name == "MARK":
            levels.append(-1)
        else:
            if name == "GLOBAL" and not _ADMITTED.fullmatch(str(argument)):
                raise pickle.UnpicklingError(f"it asks for {argument!a:.100}")
            popped = _popped(levels, opcode.stack_before)
            made = 1 + max(popped, default=0) if name.startswith("TUPLE") else 0
            if made > MOST_LEVELS:
                raise ValueError(f"it nests tuples in more than {MOST_LEVELS} levels")
            levels.extend([made] * len(opcode.stack_after))


def _popped(levels: list[int], taken: list[Any]) -> list[int]:
    """Takes what an instruction takes off the stack."""
    popped: list[int] = []
    if pickletools.stackslice in taken or pickletools.markobject in taken:
        while (level := levels.pop()) != -1:
            popped.append(level)
        taken = taken[: taken.index(pickletools.markobject)]
    for _ in taken:
        popped.append(levels.pop())
    return popped

"""Tensors of odd kinds: the same values in other memory, other types, values that cannot be computed with, masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fuzz.trials import Refused, tried

__all__ = [
    "FORMS",
    "NO_MASKS",
    "NO_TENSORS",
    "SPECIAL",
    "assert_close",
    "assert_refused",
    "copied",
    "forms",
    "generator",
    "masks",
    "one_in",
    "refused_if",
]


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else x


def _every_other(x: Tensor) -> Tensor:
    if not x.ndim:
        return x
    return torch.stack([x, torch.zeros_like(x) - 1 if x.dtype != torch.bool else ~x], dim=-1).flatten(-2)[
        ..., ::2
    ]


def _in_the_midst(x: Tensor) -> Tensor:
    larger = x.new_full([size + 2 for size in x.shape], 1)
    inner = larger[tuple(slice(1, -1) for _ in x.shape)]
    inner.copy_(x)
    return inner


def _backwards(x: Tensor) -> Tensor:
    """Axes in reverse order in memory."""
    order = list(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def _negated(x: Tensor) -> Tensor:
    """A view that is the negative of what lies in memory, as the imaginary part of a conjugate is."""
    if x.dtype not in (torch.float32, torch.float64):
        return x
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def _with_gradient(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_() if x.is_floating_point() else x


def _of_a_graph(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_() * 1 if x.is_floating_point() else x


def _parameter(x: Tensor) -> Tensor:
    return nn.Parameter(x.clone(), requires_grad=x.is_floating_point())


# The same values, elsewhere in memory. The first is what failures are reduced to.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "transposed": _transposed,
    "every other": _every_other,
    "in the midst": _in_the_midst,
    "backwards": _backwards,
    "negated": _negated,
    "with gradient": _with_gradient,
    "of a graph": _of_a_graph,
    "parameter": _parameter,
    "expanded": lambda x: x[:1].expand_as(x) if x.ndim and len(x) else x,
    "expanded along the last axis": lambda x: x[..., :1].expand_as(x) if x.ndim and x.numel() else x,
}

# What is no plain batch of numbers.
NO_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "nothing": lambda x: None,
    "a number": lambda x: 1.0,
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.detach().resolve_neg().numpy(),
    "a text": lambda x: "x",
    "a tuple": lambda x: (x,),
    "a mapping": lambda x: {"x": x},
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.detach().to_sparse(),
    "sparse rows": lambda x: x.detach().reshape(len(x) if x.numel() and x.ndim else 1, -1).to_sparse_csr(),
    "quantised": lambda x: torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor([x.detach()]),
    "jagged": lambda x: torch.nested.nested_tensor([x.detach().reshape(-1)], layout=torch.jagged),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "other float8": lambda x: x.to(torch.float8_e5m2),
    "complex": lambda x: x.to(torch.complex64),
    "complex half": lambda x: x.detach().float().to(torch.complex32),
}

NO_MASKS: dict[str, Callable[[Tensor], Any]] = {
    **{name: make for name, make in NO_TENSORS.items() if name not in ("nothing", "meta")},
    "uint8": lambda mask: mask.to(torch.uint8),
    "int64": lambda mask: mask.long(),
    "float32": lambda mask: mask.float(),
    "float16": lambda mask: mask.half(),
}

SPECIAL = (math.nan, math.inf, -math.inf, 1e15, 1e16, -1.1e16, 1e20, -1e20, 3e38, 1e-45, 0.0, -0.0, 65504.0)

_WRONG_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "an axis too many": lambda mask: mask[None],
    "an axis at the end": lambda mask: mask[..., None],
    "an axis too few": lambda mask: mask[0],
    "of one sample": lambda mask: mask[:1],
    "of no samples": lambda mask: mask[:0],
    "one more": lambda mask: torch.cat([mask, mask[..., -1:]], dim=-1),
    "one for all": lambda mask: mask[..., :1],
    "0-d": lambda mask: mask.flatten()[0],
}


def one_in(number: int) -> st.SearchStrategy[bool]:
    """Draws True once in so many times, and False where a failure is reduced."""
    return st.sampled_from([False] * (number - 1) + [True])


def generator(draw: Any) -> torch.Generator:
    """Returns a generator whose seed is drawn."""
    return torch.Generator().manual_seed(draw(st.integers(0, 999)))


def forms(draw: Any, x: Tensor, *, keep: bool = False) -> Tensor:
    """Returns a tensor of the same shape and type in other memory.

    Args:
        draw: Draws from a strategy.
        x: The tensor.
        keep: Whether its values stay; else they may be those of the first sample, or along the last axis the first.
    """
    return FORMS[draw(st.sampled_from([name for name in FORMS if not (keep and "expanded" in name)]))](x)


def copied(x: Any) -> Any:
    """Returns the same values in memory of their own, without a graph; None stays None."""
    return None if x is None else x.detach().clone(memory_format=torch.contiguous_format)


def masks(draw: Any, shape: Sequence[int], *, odd: bool = True) -> tuple[Any, bool]:
    """Draws a mask.

    Args:
        draw: Draws from a strategy.
        shape: What it should have.
        odd: Whether it may be none.

    Returns:
        The mask or None, and whether it is one.
    """
    kind = draw(
        st.sampled_from(["none"] * 4 + ["some"] * 5 + ["all", "none real", "no sample"] + ["odd"] * odd)
    )
    if kind == "none":
        return None, True
    mask = torch.rand(tuple(shape), generator=generator(draw)) < draw(st.sampled_from([0.5, 0.1, 0.9]))
    if kind == "all":
        mask = torch.ones_like(mask)
    elif kind == "none real":
        mask = torch.zeros_like(mask)
    elif kind == "no sample" and mask.ndim and len(mask):
        mask[draw(st.integers(0, len(mask) - 1))] = False
    if kind != "odd":
        return forms(draw, mask), True
    if draw(st.booleans()) or not mask.numel() or not mask.ndim:
        return NO_MASKS[draw(st.sampled_from(list(NO_MASKS)))](mask), False
    wrong = _WRONG_SHAPES[draw(st.sampled_from(list(_WRONG_SHAPES)))](mask)
    return wrong, wrong.shape == mask.shape


def refused_if(wrong: bool | None, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """As `tried`; fails if something is refused that is right, or taken that is wrong.

    Args:
        wrong: Whether it must be refused; None where it may be.
    """
    answer = tried(call, *args, **kwargs)
    if wrong is False and isinstance(answer, Refused):
        raise AssertionError(f"refused: {answer.error}") from answer.error
    assert not (wrong and not isinstance(answer, Refused)), f"it is taken: {answer!r:.300}"
    return answer


def assert_refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Fails if a call is not refused."""
    refused_if(True, call, *args, **kwargs)


def assert_close(first: Tensor, second: Tensor, what: str, *, tolerance: float = 1e-5) -> None:
    """Fails if two tensors differ by more than rounding, relative to the largest value."""
    assert first.shape == second.shape, f"{what}: {tuple(first.shape)} and {tuple(second.shape)}"
    assert first.dtype == second.dtype, f"{what}: {first.dtype} and {second.dtype}"
    if not first.numel():
        return
    first, second = first.detach().double(), second.detach().double()
    scale = max(1.0, float(second.abs().nan_to_num().max()))
    torch.testing.assert_close(
        first, second, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )

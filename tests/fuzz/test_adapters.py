"""Every adapter with odd settings, inputs and masks: elements as they should be, or a refusal.

What it gives is compared with what it gives for the same values in other memory, for each sample alone, for other
values where nothing is real, in half precision, and after it was hidden.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fuzz.adapter_cases import KINDS, OddCase, odd_cases
from fuzz.odd_tensors import assert_close, copied, refused_if
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapter import InputAdapter
from perceiver_io.registry import ADAPTERS

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]


def test_all_adapters_are_tried() -> None:
    ours = {name for name in ADAPTERS.names() if ADAPTERS.get(name).__module__.startswith("perceiver_io.")}
    assert ours == set(KINDS)


def built(case: OddCase) -> Any:
    """The adapter, None where its settings are refused."""
    wrong = None if case.fields_are_odd else False
    config = refused_if(wrong, case.adapter_class.Config, **case.fields)  # type: ignore[attr-defined]
    if isinstance(config, Refused):
        return None
    torch.manual_seed(0)
    adapter = refused_if(wrong, case.adapter_class, config)
    return None if isinstance(adapter, Refused) else adapter.eval()


@pytest.mark.parametrize("name", KINDS)
@cases(few=12)
@given(data=st.data())
def test_adapters(name: str, data: st.DataObject) -> None:
    case = data.draw(odd_cases(name))
    adapter = built(case)
    if adapter is None:
        return
    x, mask = case.x, case.mask
    answer = refused_if(None if case.fields_are_odd else case.wrong, adapter, x, mask)
    if isinstance(answer, Refused):
        return
    check_elements(adapter, x, answer)
    plain, plain_mask = copied(x), copied(mask)
    again = adapter(plain, plain_mask)
    assert_close(answer.values, again.values, "the same values in other memory")
    assert (answer.mask is None) == (again.mask is None)
    assert answer.mask is None or torch.equal(answer.mask, again.mask)
    which = data.draw(st.sampled_from(["alone", "masked", "all", "gradients", "half", "double", "targets"]))
    CHECKS[which](adapter, plain, plain_mask, again, case)


def check_elements(adapter: InputAdapter, x: Tensor, answer: Any) -> None:
    """A byte array as the adapter declares it, that the encoder can compute with."""
    batch, number, channels = answer.values.shape
    assert (batch, channels) == (len(x), adapter.num_channels) and number >= 1
    assert answer.num_content_channels == adapter.num_content_channels
    assert adapter.num_elements in (None, number)
    assert answer.grid is None or math.prod(answer.grid) == number
    assert answer.values.is_floating_point() and answer.values.isfinite().all()
    # Which is how the encoder begins.
    normed = torch.nn.functional.layer_norm(answer.values.float(), (channels,))
    assert normed.isfinite().all()
    assert answer.mask is None or answer.mask.dtype == torch.bool


def check_alone(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    for index in range(len(x)):
        alone = adapter(x[index : index + 1], None if mask is None else mask[index : index + 1])
        assert_close(alone.values[0], answer.values[index], f"sample {index} alone")
        assert alone.mask is None or torch.equal(alone.mask[0], answer.mask[index])
    back = adapter(x.flip(0), None if mask is None else mask.flip(0))
    assert_close(back.values.flip(0), answer.values, "samples in another order")


def check_masked(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    if mask is None:
        return
    sizes = [
        mask.shape[case.mask_axes.index(axis)] if axis in case.mask_axes else 1 for axis in range(x.ndim)
    ]
    spread = mask.reshape(sizes)
    for value in (math.nan, math.inf, -1e20) if x.is_floating_point() else (-1, 2**31 - 1):
        other = adapter(torch.where(spread, x, torch.tensor(value, dtype=x.dtype)), mask)
        assert torch.equal(other.values, answer.values), f"{value} where nothing is real changes elements"
        assert torch.equal(other.mask, answer.mask)


def check_all(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    without = tried(adapter, x, None)
    if isinstance(without, Refused):  # what was masked is refused
        assert mask is not None
        return
    whole = adapter(x, torch.ones([x.shape[axis] for axis in case.mask_axes], dtype=torch.bool))
    assert_close(whole.values, without.values, "a mask that is True everywhere")
    assert whole.mask is not None
    assert torch.equal(whole.mask, torch.ones_like(whole.mask) if without.mask is None else without.mask)


def check_gradients(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    adapter = copy.deepcopy(adapter).train()
    x = x.clone().requires_grad_(x.is_floating_point())
    answer = tried(adapter, x, mask)  # batch norm refuses one element
    if isinstance(answer, Refused) or not answer.values.requires_grad:
        return
    values = answer.values
    torch.nn.functional.layer_norm(values, values.shape[-1:]).pow(2).sum().backward()
    for name, one in [("x", x), *adapter.named_parameters()]:
        assert one.grad is None or one.grad.isfinite().all(), f"the gradient of {name} is not finite"


def check_half(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    for dtype, precision in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        rounded = x.to(dtype) if x.is_floating_point() else x
        if x.is_floating_point() and not x.abs().nan_to_num().max() < 1e3:
            return
        low_adapter = copy.deepcopy(adapter).to(dtype)
        # Of the same weights: phases of many turns know the difference.
        exact = tried(copy.deepcopy(low_adapter).to(torch.float32), rounded.to(x.dtype), mask)
        if isinstance(exact, Refused):  # a time that was rounded to another
            continue
        low = tried(low_adapter, rounded, mask)
        if isinstance(low, Refused):  # what has no room in this type
            assert exact.values.detach().abs().max() > 1e3, low.error
            continue
        assert low.values.isfinite().all()
        assert_close(low.values.float(), exact.values.float(), f"{dtype}", tolerance=16 * precision)


def check_double(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    double = copy.deepcopy(adapter).double()(x.double() if x.is_floating_point() else x, mask)
    # Sines of phases of thousands of radians are rounded.
    size = float(answer.values.detach().abs().max())
    if size < 100:
        assert_close(answer.values.double(), double.values.double(), "float64", tolerance=1e-4 * max(size, 1))


def check_targets(adapter: Any, x: Tensor, mask: Any, answer: Any, case: OddCase) -> None:
    targets = tried(adapter.targets, x, mask)
    if isinstance(targets, Refused):
        return
    assert targets.shape == (*answer.values.shape[:2], adapter.num_target_channels)
    assert answer.mask is None or targets[~answer.mask].isnan().all() or adapter.takes_nan
    grid = answer.grid or (answer.values.shape[1],)
    restored = tried(adapter.from_targets, targets, grid)
    if isinstance(restored, Refused):
        return
    sizes = [x.shape[axis] if axis in case.mask_axes else 1 for axis in range(x.ndim)]
    there = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.reshape(sizes).expand_as(x)
    there = there & ~x.isnan()
    far = max([abs(column[1]) for column in case.fields.get("columns", ())], default=0)
    torch.testing.assert_close(restored[there], x[there], rtol=1e-4, atol=1e-4 + 1e-6 * far)
    # What is hidden reaches no other element, whatever it is.
    hidden = torch.rand(answer.values.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.5
    other = adapter.from_targets(torch.where(hidden[..., None], targets + 1, targets), grid)
    if "table" in adapter.__class__.__name__.lower() or not other[there].isfinite().all():
        return
    other = torch.where(there, other, x)
    left = adapter.mask_without(hidden, x, mask)
    seen = [tried(adapter, one, left) for one in (x, other)]
    if any(isinstance(one, Refused) for one in seen):
        return
    assert_close(seen[0].values[~hidden], seen[1].values[~hidden], "what is hidden is seen")


CHECKS = {
    "alone": check_alone,
    "masked": check_masked,
    "all": check_all,
    "gradients": check_gradients,
    "half": check_half,
    "double": check_double,
    "targets": check_targets,
}

"""What adapters are made with: each check refuses what it names, and says what to do."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from perceiver_io import ComponentConfig, input_tools
from perceiver_io.input_tools import (
    beside,
    bool_mask,
    check_finite,
    check_floating,
    check_indices,
    check_mask,
    check_positive,
    check_shape,
    element_mask,
    patch_grid,
)


@dataclass(frozen=True, kw_only=True)
class Settings(ComponentConfig):
    width: int = 1
    sizes: tuple[int, ...] | None = None


def test_settings_of_at_least_one_pass() -> None:
    check_positive(Settings(width=3, sizes=(1, 2)), "width", "sizes")
    check_positive(Settings(), "sizes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(width=0), "Settings.width must be at least 1, got 0"),
        (Settings(sizes=(2, -1)), r"Settings.sizes must be at least 1, got \(2, -1\)"),
    ],
)
def test_settings_below_one_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_positive(settings, "width", "sizes")


def test_inputs_that_fit_pass() -> None:
    x = torch.randn(2, 3, 4)
    check_shape(x, ("batch", 3, "points"), name="Scans", advice="Transpose.")
    check_floating(x, name="Scans", advice="Convert.")
    check_finite(x, name="The batch")
    check_mask(None, (2, 4), x=x, name="scans")
    check_mask(torch.ones(2, 4, dtype=torch.bool), (2, 4), x=x, name="scans")
    check_indices(torch.tensor([0, 4], dtype=torch.int32), count=5, name="Ids", advice="Read.")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: check_shape(torch.zeros(2, 3), ("batch", 4), name="Scans", advice="Transpose them."),
            r"Scans must be \(batch, 4\), got 2 axes: \(2, 3\)\. Transpose them\.",
        ),
        (
            lambda: check_shape(torch.zeros(2, 3), ("batch",), name="Scans", advice="Transpose them."),
            r"Scans must be \(batch,\), got 2 axes",
        ),
        (
            lambda: check_shape(torch.zeros(0, 4), ("batch", 4), name="Scans", advice="Transpose them."),
            r"Scans must not be empty along any axis, got \(0, 4\)",
        ),
        (
            lambda: check_floating(torch.zeros(2, dtype=torch.uint8), name="Scans", advice="Divide by 255."),
            r"Scans must be floating point, got torch\.uint8\. Divide by 255\.",
        ),
        (
            lambda: check_finite(torch.tensor([0.0, torch.nan, torch.inf]), name="The batch of scans"),
            "The batch of scans holds 2 values that are NaN or infinite, expected finite values. Clean them",
        ),
        (
            lambda: check_indices(torch.tensor([0.0]), count=5, name="Ids", advice="Use the tokenizer."),
            "Ids must be int64 or int32, got torch.float32. Use the tokenizer",
        ),
        (
            lambda: check_indices(torch.arange(-3, 9), count=5, name="Ids", advice="Use the tokenizer."),
            "Ids must be from 0 to 4, got -3, -2, -1, 5, 6, …. Use the tokenizer",
        ),
        (
            lambda: check_mask(torch.ones(2, 3).bool(), (2, 4), x=torch.zeros(2, 4, 3), name="scans"),
            r"mask of scans \(2, 4, 3\) must be bool \(2, 4\), got torch.bool \(2, 3\)\. True is what is real",
        ),
        (
            lambda: check_mask(torch.ones(2, 4), (2, 4), x=torch.zeros(2, 4, 3), name="scans"),
            r"must be bool \(2, 4\), got torch.float32 \(2, 4\)",
        ),
        (
            lambda: bool_mask(torch.ones(2, 3), name="pixel_mask"),
            r"pixel_mask must be bool or integer, got torch\.float32\. True or 1 is what is real",
        ),
        (lambda: bool_mask([[1, 1]], name="pixel_mask"), "must be bool or integer, got list"),  # type: ignore[arg-type]
        (
            lambda: bool_mask(torch.tensor([0, 1, 255, -1]), name="pixel_mask"),
            "pixel_mask must be 1 where something is real and 0 elsewhere, got -1, 255",
        ),
        (
            lambda: patch_grid((4, 3), (2, 4), what="The image", unit="pixels"),
            "The image of 4x3 pixels is smaller than a patch of 2x4",
        ),
        (
            lambda: patch_grid((4, 5), (2, 4), what="The image", unit="pixels"),
            "The image of 4x5 pixels cannot be cut in patches of 2x4",
        ),
    ],
)
def test_what_does_not_fit_is_refused(check: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()


def test_patches_along_each_axis() -> None:
    assert patch_grid((4, 8, 6), (1, 4, 2), what="The video", unit="pixels") == (4, 2, 3)


@pytest.mark.parametrize("grid", [(3,), (3, 2), (3, 2, 2)])
def test_an_element_is_real_if_any_of_what_it_covers_is(grid: tuple[int, ...]) -> None:
    mask = torch.rand(2, *(2 * size for size in grid)) < 0.2
    expected = np.zeros((2, *grid), dtype=bool)
    for index in np.ndindex(*mask.shape):
        expected[(index[0], *(place // 2 for place in index[1:]))] |= bool(mask[index])
    assert element_mask(mask, grid).tolist() == expected.reshape(2, -1).tolist()
    same = torch.rand(2, *grid) < 0.5
    assert torch.equal(element_mask(same, grid), same.flatten(1))


def test_positions_of_all_samples_or_of_each_are_put_beside_content() -> None:
    content, shared, own = torch.randn(2, 3, 4), torch.randn(3, 5), torch.randn(2, 3, 5)
    for position in (shared, own):
        joined = beside(content, position)
        assert torch.equal(joined[..., :4], content)
        assert torch.equal(joined[..., 4:], position.expand(2, 3, 5))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.uint8])
def test_masks_of_zero_and_one_are_masks(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 0], [0, 1]], dtype=dtype)
    assert torch.equal(bool_mask(mask, name="pixel_mask"), torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize(("size", "count"), [(9, 3), (9, 5), (7, 2), (8, 8), (5, 4), (10, 3)])
def test_windows_of_a_mask_are_those_of_adaptive_pooling(size: int, count: int) -> None:
    mask = torch.rand(20, size, 6) < 0.2
    expected = torch.nn.functional.adaptive_max_pool2d(mask[:, None].float(), (count, 4)).flatten(1) > 0
    assert torch.equal(element_mask(mask, (count, 4)), expected)


def test_values_are_not_looked_at_while_compiling() -> None:
    def checked(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        check_finite(x, name="The batch")
        check_indices(ids, count=2, name="Ids", advice="Use the tokenizer.")
        return x + ids

    torch._dynamo.reset()
    compiled = torch.compile(checked, fullgraph=True, backend="eager")
    assert compiled(torch.tensor([torch.nan]), torch.tensor([7])).isnan().all()
    torch._dynamo.reset()


def test_all_of_it_is_public() -> None:
    assert sorted(input_tools.__all__) == input_tools.__all__
    assert all(getattr(input_tools, name).__doc__ for name in input_tools.__all__)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_no_numbers_are_counted(dtype: torch.dtype, value: float) -> None:
    x = torch.zeros(3, 4, dtype=dtype)
    check_finite(x, name="The batch")
    x[1, 2] = x[0, 0] = value
    for largest in (1e16, sys.float_info.max):
        with pytest.raises(ValueError, match="The batch holds 2 values that are NaN or infinite"):
            check_finite(x, name="The batch", largest=largest)


@pytest.mark.parametrize("value", [1e17, -1e20, 3e38])
def test_values_whose_squares_overflow_are_refused(value: float) -> None:
    """A layer norm made zeros or NaN of them and of all that stood beside them."""
    x = torch.zeros(3, 4)
    x[1, 2] = value
    with pytest.raises(ValueError, match=r"expected none beyond 1e\+16: their squares overflow"):
        check_finite(x, name="The batch")
    check_finite(x, name="The times", largest=sys.float_info.max)


@pytest.mark.parametrize("num_channels", [1, 64, 4096])
def test_layer_norms_are_exact_up_to_the_largest_value(num_channels: int) -> None:
    x = torch.randn(8, num_channels, generator=torch.Generator().manual_seed(0))
    x *= 0.99e16 / x.abs().max()
    check_finite(x, name="The batch")
    expected = torch.nn.functional.layer_norm(x.double(), (num_channels,))
    torch.testing.assert_close(torch.nn.functional.layer_norm(x, (num_channels,)), expected.float())

"""Block matching: shifts that are known, a loop over pixels, and what is masked."""

import itertools

import pytest
import torch

from perceiver_io.adapters import block_matching
from perceiver_io.adapters.block_matching import matched_motion


@pytest.mark.parametrize(("down", "right"), [(0, 0), (4, -2), (-6, 6), (2, 4)])
def test_a_shift_of_whole_pixels_is_found(down: int, right: int) -> None:
    image = torch.rand(2, 3, 32, 40) * 2 - 1
    found = matched_motion(image, image.roll((down, right), (2, 3)), radius=3)
    assert found.shape == (2, 3, 32, 40)
    inside = found[:, :, 12:-12, 12:-12]
    expected = torch.tensor([right / 6, down / 6, 0]).view(1, 3, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, expected, atol=1e-4, rtol=0)


def test_it_is_the_mean_of_shifts_by_how_well_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel by pixel, from the definition; warm, so that many shifts count."""
    monkeypatch.setattr(block_matching, "_TEMPERATURE", 0.5)
    first, second = torch.rand(2, 1, 2, 7, 6, dtype=torch.float64).unbind()
    mask = torch.rand(1, 7, 6) < 0.8
    first, second = first * mask[:, None], second * mask[:, None]
    found = matched_motion(first, second, mask, radius=1)
    rows, columns = 4, 3

    def half(image: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """The mean of 2x2 pixels; nothing lies outside."""
        total = torch.zeros(2, dtype=torch.float64)
        for y, x in itertools.product((2 * row, 2 * row + 1), (2 * column, 2 * column + 1)):
            if 0 <= y < 7 and 0 <= x < 6:
                total += image[0, :, y, x] / 4
        return total

    def cost(row: int, column: int, down: int, right: int) -> float:
        if not (0 <= row < rows and 0 <= column < columns):
            return 0.0
        if not mask[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].any():
            return 0.0
        difference = half(first, row, column) - half(second, row + down, column + right)
        return difference.abs().mean().item()

    shifts = list(itertools.product((-1, 0, 1), repeat=2))
    for row, column in itertools.product(range(7), range(6)):
        costs = torch.tensor(
            [
                sum(
                    cost(row // 2 + i, column // 2 + j, down, right)
                    for i, j in itertools.product(range(-2, 3), repeat=2)
                )
                / 25
                for down, right in shifts
            ],
            dtype=torch.float64,
        )
        weights = torch.exp(-costs / 0.5)
        weights = weights / weights.sum()
        for channel, axis in ((0, 1), (1, 0)):
            expected = sum(weight * shift[axis] for weight, shift in zip(weights, shifts, strict=True))
            assert found[0, channel, row, column].item() == pytest.approx(float(expected), abs=1e-9)
        assert found[0, 2, row, column].item() == pytest.approx(4 * costs.min().item(), abs=1e-9)

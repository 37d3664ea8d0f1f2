from __future__ import annotations

import pytest
import torch

from perceiver_io.tasks.optical_flow.metrics import end_point_error, flow_metrics, mean_end_point_error


def test_errors_by_hand() -> None:
    target = torch.zeros(2, 1, 3)
    flow = torch.tensor([[[3.0, 0.0, 1.0]], [[4.0, 2.0, 0.0]]])
    assert end_point_error(flow, target).tolist() == [[5.0, 2.0, 1.0]]
    assert mean_end_point_error(flow, target).item() == pytest.approx(8 / 3)
    valid = torch.tensor([[False, True, True]])
    assert mean_end_point_error(flow, target, valid).item() == pytest.approx(1.5)


def test_outliers_are_off_by_pixels_and_by_percent() -> None:
    #                 3.1 of 10    3.1 of 100    2.9 of 0     6 of 100     exactly 3
    target = torch.tensor([[[10.0, 100.0, 0.0, 100.0, 0.0]], [[0.0] * 5]])
    flow = target + torch.tensor([[[3.1, 3.1, 2.9, 6.0, 3.0]], [[0.0] * 5]])
    assert flow_metrics(flow, target)["outliers"] == pytest.approx(2 / 5)
    valid = torch.tensor([[True, True, True, False, False]])
    assert flow_metrics(flow, target, valid)["outliers"] == pytest.approx(1 / 3)
    assert flow_metrics(flow, target, valid)["end_point_error"] == pytest.approx(9.1 / 3)


def test_batches_are_one_large_image() -> None:
    flow, target = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    valid = torch.rand(3, 4, 5) > 0.3
    beside = [x.movedim(0, -3).flatten(-3, -2) for x in (flow, target)]
    assert flow_metrics(flow, target, valid) == pytest.approx(
        flow_metrics(*beside, valid.flatten(0, 1))  # type: ignore[arg-type]
    )


def test_gradients_are_finite_where_the_error_is_zero_or_unknown() -> None:
    flow = torch.zeros(2, 2, 2, requires_grad=True)
    target = torch.zeros(2, 2, 2)
    target[0, 0, 0] = 1.0
    target[:, 1, 1] = torch.nan
    valid = torch.tensor([[True, True], [True, False]])
    loss = mean_end_point_error(flow, target, valid)
    loss.backward()
    expected = torch.zeros(2, 2, 2)
    expected[0, 0, 0] = -1 / 3
    torch.testing.assert_close(flow.grad, expected)
    assert loss.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("shape", "valid", "message"),
    [
        ((2, 3, 5), None, r"got \(2, 3, 4\) and \(2, 3, 5\)"),
        ((2, 3, 4), torch.ones(4, 3, dtype=torch.bool), r"must be bool \(3, 4\)"),
        ((2, 3, 4), torch.zeros(3, 4, dtype=torch.bool), "known nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], valid: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        flow_metrics(torch.zeros(2, 3, 4), torch.zeros(shape), valid)


def test_truth_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="mark what is unknown"):
        flow_metrics(torch.zeros(2, 3, 4), torch.full((2, 3, 4), torch.inf))
    with pytest.raises(ValueError, match="must both be"):
        end_point_error(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5))

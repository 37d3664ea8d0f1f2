"""Points drawn at random: which they are, and that a loss at them is unbiased."""

import pytest
import torch

from perceiver_io.drawn_points import draw_points
from perceiver_io.tasks.dense import UNKNOWN, DenseModel, absolute_loss, class_loss
from perceiver_io.tasks.dense.losses import mean_of_samples
from perceiver_io.tasks.dense.task import at_drawn_points, known_labels
from perceiver_io.tasks.semantic_segmentation import PerceiverIOForSemanticSegmentation, config


def test_points_are_known_ones_and_no_point_comes_twice() -> None:
    known = torch.rand(5, 40) < 0.6
    points, is_drawn = draw_points(known, 12)
    assert points.shape == is_drawn.shape == (5, 12)
    assert is_drawn.all() and known.gather(1, points).all()
    assert all(len(set(one.tolist())) == 12 for one in points)


def test_a_sample_with_few_known_points_gets_all_of_them() -> None:
    known = torch.zeros(3, 30, dtype=torch.bool)
    known[0, [4, 9]] = True
    known[1] = True
    points, is_drawn = draw_points(known, 7)
    assert is_drawn.sum(1).tolist() == [2, 7, 0]
    assert set(points[0, :2].tolist()) == {4, 9}
    assert not points[2].any()


def test_where_nothing_is_known_a_point_is_there_that_does_not_count() -> None:
    points, is_drawn = draw_points(torch.zeros(2, 9, dtype=torch.bool), 4)
    assert points.shape == (2, 1) and not is_drawn.any()


def test_more_points_than_there_are_give_each_once() -> None:
    points, is_drawn = draw_points(torch.ones(1, 6, dtype=torch.bool), 1000)
    assert sorted(points[0].tolist()) == list(range(6)) and is_drawn.all()


def test_every_known_point_is_as_likely_as_any_other() -> None:
    torch.manual_seed(0)
    known = torch.ones(4000, 10, dtype=torch.bool)
    known[:, 3] = False
    points, _ = draw_points(known, 3)
    counts = torch.bincount(points.flatten(), minlength=10)
    assert counts[3] == 0
    expected, deviation = 4000 * 3 / 9, (4000 * (1 / 3) * (2 / 3)) ** 0.5
    assert (counts[counts > 0] - expected).abs().max() < 4 * deviation


@pytest.mark.parametrize(
    ("known", "number", "message"),
    [
        (torch.ones(2, 3), 1, "Known points must be a bool tensor"),
        (torch.ones(6, dtype=torch.bool), 1, r"got torch.bool \(6,\)"),
        (torch.ones(2, 0, dtype=torch.bool), 1, r"not empty, got torch.bool \(2, 0\)"),
        (torch.ones(2, 3, dtype=torch.bool), 0, "must be at least 1, got 0"),
    ],
)
def test_bad_arguments(known: torch.Tensor, number: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_points(known, number)


def small_model() -> PerceiverIOForSemanticSegmentation:
    torch.manual_seed(0)
    made = config(
        num_classes=3,
        size=(6, 8),
        image_channels=1,
        image={"features": "pixels", "num_bands": 2},
        encoder={"num_latents": 4, "latent_channels": 8, "cross_attention_qk_channels": 8},
        decoder={"num_bands": 2, "qk_channels": 8, "v_channels": 8},
    )
    return PerceiverIOForSemanticSegmentation(made).double().eval()


def gradient_of(model: DenseModel, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_mean_gradient_of_many_draws_is_that_of_the_whole_loss() -> None:
    model = small_model()
    images = torch.randn(3, 1, 6, 8, dtype=torch.float64)
    labels = torch.randint(3, (3, 6, 8))
    labels[torch.rand(labels.shape) < 0.3] = UNKNOWN
    labels[1, 1:] = UNKNOWN  # fewer than are drawn: all of these count
    whole = gradient_of(model, model(images, labels=labels).loss)
    draws = []
    for _ in range(400):
        batch = at_drawn_points({"pixel_values": images, "labels": labels}, 9)
        draws.append(gradient_of(model, model(**batch).loss))
    drawn = torch.stack(draws)
    # Of 400 independent draws the mean is off by a deviation / 20; one draw alone is off by far more.
    off = (drawn.mean(0) - whole).norm()
    expected_off = (drawn.var(0).sum() / len(drawn)).sqrt()
    assert off < 2 * expected_off
    assert expected_off < 0.25 * whole.norm()


def test_loss_and_logits_at_points_are_those_of_the_whole_output() -> None:
    model = small_model()
    images, labels = torch.randn(2, 1, 6, 8, dtype=torch.float64), torch.randint(3, (2, 6, 8))
    points = torch.stack([torch.randperm(48)[:10] for _ in range(2)])
    whole = model(images, labels=labels)
    some = model(images, points=points, labels=labels.flatten(1).gather(1, points))
    expected = whole.logits.flatten(2).gather(2, points[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(some.logits, expected)
    picked = torch.nn.functional.cross_entropy(expected, labels.flatten(1).gather(1, points))
    torch.testing.assert_close(some.loss, picked)


def test_two_points_of_each_sample_are_not_read_as_a_row_and_a_column() -> None:
    labels = torch.full((2, 6, 8), UNKNOWN)
    labels[:, 5, 7], labels[:, 0, 3] = 1, 2
    batch = at_drawn_points({"labels": labels}, 2)
    model = small_model()
    logits = model(torch.randn(2, 1, 6, 8, dtype=torch.float64), points=batch["points"]).logits
    assert logits.shape == (2, 3, 2)
    rows, columns = batch["points"].unbind(-1)
    assert torch.equal(labels[torch.arange(2)[:, None], rows, columns], batch["labels"])


def test_class_loss_is_the_mean_over_samples_of_means_over_known_elements() -> None:
    logits, labels = torch.randn(3, 4, 5, 2), torch.randint(4, (3, 5, 2))
    labels[0, 2:] = UNKNOWN
    labels[2] = UNKNOWN
    each = [torch.nn.functional.cross_entropy(logits[index][None], labels[index][None]) for index in range(2)]
    torch.testing.assert_close(class_loss(logits, labels), torch.stack(each).mean())


def test_absolute_loss_leaves_out_what_is_not_known() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([[2.0, float("nan"), 6.0], [0.5, float("nan"), float("nan")]])
    loss = absolute_loss(values, labels)
    assert loss.item() == pytest.approx(((1 + 3) / 2 + 0.5) / 2)
    loss.backward()
    assert values.grad is not None and values.grad.isfinite().all()
    assert (values.grad != 0).tolist() == [[True, False, True], [True, False, False]]


def test_a_batch_without_any_label_has_no_loss_and_finite_gradients() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = class_loss(logits, torch.full((2, 4), UNKNOWN))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 5), r"labels must be integers \(2, 4\), got torch.float32 \(2, 5\)"),
        (torch.full((2, 4), 3), "classes from 0 to 2, or -100 where they are not known, got 3 to 3"),
        (torch.full((2, 4), -1), "got -1 to -1"),
    ],
)
def test_bad_classes(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_loss(torch.randn(2, 3, 4), labels)


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match=r"must be floating-point \(2, 4\), got torch.int64"):
        absolute_loss(torch.randn(2, 4), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels hold infinities"):
        absolute_loss(torch.randn(2, 4), torch.full((2, 4), float("inf")))


def test_known_labels() -> None:
    assert known_labels(torch.tensor([0, UNKNOWN, 2])).tolist() == [True, False, True]
    assert known_labels(torch.tensor([0.0, float("nan")])).tolist() == [True, False]
    assert mean_of_samples(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)).item() == 0

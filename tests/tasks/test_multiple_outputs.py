"""Several outputs from one image: a map of classes, a map of numbers and a label, each with its loss and weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.drawn_points import draw_points
from perceiver_io.tasks.dense import UNKNOWN, PerceiverIOForMultipleOutputs
from perceiver_io.tasks.dense.losses import squared_difference
from perceiver_io.tasks.dense.output_losses import output_loss

SIDE, CLASSES, KINDS = 8, 4, 3


def small_config(**depth: Any) -> pio.PerceiverIOConfig:
    queries = {"grid": (SIDE, SIDE), "num_bands": 4, "spacing": "steps"}
    return pio.PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=(SIDE, SIDE), image_channels=3, num_bands=4)},
        encoder=pio.EncoderConfig(num_latents=8, latent_channels=32, num_self_attends_per_block=1),
        outputs={
            "classes": DenseDecoder.Config(output_channels=CLASSES, **queries),
            "depth": DenseDecoder.Config(output_channels=1, channel_axis=None, **{**queries, **depth}),
            "kind": pio.ClassificationDecoder.Config(num_classes=KINDS),
        },
    )


@pytest.fixture
def model() -> PerceiverIOForMultipleOutputs:
    torch.manual_seed(0)
    return PerceiverIOForMultipleOutputs(small_config()).double().eval()


def inputs(batch_size: int = 3) -> dict[str, Tensor]:
    return {"image": torch.randn(batch_size, 3, SIDE, SIDE, dtype=torch.float64)}


def labels() -> dict[str, Tensor]:
    """Of the first sample all is known, of the second a part, of the third the kind alone."""
    classes = torch.randint(CLASSES, (3, SIDE, SIDE))
    depth = torch.rand(3, SIDE, SIDE, dtype=torch.float64)
    classes[1, 3:], depth[1, :, 5:] = UNKNOWN, torch.nan
    classes[2], depth[2] = UNKNOWN, torch.nan
    return {"classes": classes, "depth": depth, "kind": torch.tensor([UNKNOWN, 0, 2])}


def test_each_output_has_its_own_loss(model: PerceiverIOForMultipleOutputs) -> None:
    given, x = labels(), inputs()
    out = model(x, labels=given)
    logits = out.outputs["classes"].log_softmax(1)
    nll = -logits.gather(1, given["classes"].clamp(min=0)[:, None])[:, 0]
    off = (out.outputs["depth"] - given["depth"]).abs()
    expected = {
        "classes": (nll[0].mean() + nll[1, :3].mean()) / 2,
        "depth": (off[0].mean() + off[1, :, :5].mean()) / 2,
        "kind": -(out.outputs["kind"].log_softmax(1)[[1, 2], [0, 2]]).mean(),
    }
    assert out.losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(out.losses[name], loss)
    torch.testing.assert_close(out.loss, sum(expected.values()))
    model.loss_weights |= {"depth": 10.0, "kind": 0.0}
    model.differences["depth"] = squared_difference
    squared = (off[0].square().mean() + off[1, :, :5].square().mean()) / 2
    torch.testing.assert_close(model(x, labels=given).loss, expected["classes"] + 10 * squared)


def test_points_of_each_output_are_those_of_the_whole(model: PerceiverIOForMultipleOutputs) -> None:
    given, x = labels(), inputs()
    points = {
        "classes": torch.stack([torch.randperm(64)[:7] for _ in range(3)]),
        "depth": torch.tensor([1, 8, 63, 20, 21]),
        "kind": None,
    }
    whole = model(x).outputs
    some = model(x, labels=given, points=points)
    picked = points["classes"][:, None].expand(-1, CLASSES, -1)
    torch.testing.assert_close(some.outputs["classes"], whole["classes"].flatten(2).gather(2, picked).mT)
    torch.testing.assert_close(some.outputs["depth"][..., 0], whole["depth"].flatten(1)[:, points["depth"]])
    there = given["depth"].flatten(1)[:, points["depth"]]
    off = (some.outputs["depth"][..., 0] - there).abs()
    means = torch.stack(
        [one[known].mean() for one, known in zip(off, ~there.isnan(), strict=True) if known.any()]
    )
    torch.testing.assert_close(some.losses["depth"], means.mean())


def test_the_mean_gradient_of_many_draws_is_that_of_the_whole_loss(
    model: PerceiverIOForMultipleOutputs,
) -> None:
    torch.manual_seed(1)
    given, x = labels(), inputs()
    known = {"classes": given["classes"] != UNKNOWN, "depth": ~given["depth"].isnan()}

    def gradient(points: dict[str, Tensor | None] | None) -> Tensor:
        model.zero_grad()
        model(x, labels=given, points=points).loss.backward()
        return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    whole = gradient(None)
    draws = []
    for _ in range(200):
        drawn: dict[str, Tensor | None] = {"kind": None}
        for name, of_output in known.items():
            points, is_drawn = draw_points(of_output.flatten(1), 6)
            # What is filled up is unknown.
            assert is_drawn[:2].all() and not of_output[2].any()
            drawn[name] = points
        draws.append(gradient(drawn))
    gradients = torch.stack(draws)
    expected_off = (gradients.var(0).sum() / len(gradients)).sqrt()
    # The mean of 200 is off by a deviation / 14, in directions that are not independent.
    assert (gradients.mean(0) - whole).norm() < 2.5 * expected_off
    assert expected_off < 0.5 * whole.norm()


def test_patches_of_classes() -> None:
    """A query that gives 2 x 2 pixels: the same loss whole as at all of its points."""
    config = DenseDecoder.Config(output_channels=3, grid=(2, 3), patch_size=(2, 2), num_bands=2)
    decoder = DenseDecoder(config, pio.DecoderParts(latent_channels=8))
    encoded = pio.Encoded(latents=torch.randn(2, 3, 8), byte_arrays={})
    target = torch.randint(3, (2, 4, 6))
    target[0, :2] = UNKNOWN
    points = torch.arange(6)[:, None] // torch.tensor([3, 1]) % torch.tensor([2, 3])
    from perceiver_io.points import Points

    request = pio.DecoderRequest(points=Points.parse(points, (2, 3), name="x"))
    whole = output_loss("x", decoder(encoded), target, config)
    at_all = output_loss("x", decoder(encoded, request), target, config, points=points)
    torch.testing.assert_close(whole, at_all)
    expected = torch.nn.functional.cross_entropy(decoder(encoded)[1:], target[1:])
    torch.testing.assert_close(output_loss("x", decoder(encoded)[1:], target[1:], config), expected)


def test_all_three_learn_together(model: PerceiverIOForMultipleOutputs) -> None:
    model = model.float().train()
    x = {name: value.float() for name, value in inputs().items()}
    given = {name: one.float() if one.is_floating_point() else one for name, one in labels().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    before = model(x, labels=given).losses
    for _ in range(80):
        points = {name: torch.randint(SIDE * SIDE, (3, 24)) for name in ("classes", "depth")}
        loss = model(x, labels=given, points={**points, "kind": None}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model(x, labels=given).losses
    for name in before:
        assert after[name] < 0.7 * before[name], name


def test_saved_and_loaded_by_its_class(tmp_path: Path, model: PerceiverIOForMultipleOutputs) -> None:
    model.save_pretrained(tmp_path)
    loaded = pio.from_pretrained(tmp_path)
    assert type(loaded) is PerceiverIOForMultipleOutputs
    x = inputs()
    for name, output in model(x).outputs.items():
        torch.testing.assert_close(loaded.double().eval()(x).outputs[name], output, rtol=1e-5, atol=1e-6)
    assert len(model.attention_maps(x)) == 1


def test_bad_labels(model: PerceiverIOForMultipleOutputs) -> None:
    x, given = inputs(), labels()
    for name, wrong, message in (
        (
            "heat",
            given["depth"],
            r"labels of \['heat'\], but only the outputs \['classes', 'depth', 'kind'\]",
        ),
        ("classes", given["classes"] + 4, r"output 'classes': labels must be classes from 0 to 3"),
        ("classes", given["classes"][:, :4], r"output 'classes': labels must be integers \(3, 8, 8\)"),
        ("classes", given["depth"], r"'classes' must be \(3, 4, 8, 8\), as what is decoded, got \(3, 8, 8\)"),
        (
            "depth",
            given["classes"],
            r"'depth' must be floating-point numbers, got torch.int64: integers are classes",
        ),
        ("depth", given["depth"] / 0, r"labels hold infinities"),
        ("kind", torch.tensor([0, 1, 3]), r"'kind' must be classes 0 to 2, or -100 where they are not known"),
    ):
        with pytest.raises(ValueError, match=message):
            model(x, labels={name: wrong})
    assert model(x).loss is None and model(x, outputs=["depth"], labels={"kind": given["kind"]}).loss is None
    known = {"depth": torch.zeros(3, SIDE, SIDE, dtype=torch.bool)}
    assert model(x, labels={"depth": given["depth"]}, known=known).loss == 0

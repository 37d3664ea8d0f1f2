"""Training of optical flow: points, crops, variation, measures; the published model too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_io.data import Splits
from perceiver_io.published import save_transformers
from perceiver_io.running import Setup
from perceiver_io.running.building import build
from perceiver_io.running.runner import predict, train
from perceiver_io.tasks.optical_flow import PerceiverIOForOpticalFlow, config, write_flo
from perceiver_io.tasks.optical_flow.flow_variation import FlowAugmentation, cut, varied
from perceiver_io.tasks.optical_flow.recipe import OpticalFlowRecipe
from perceiver_io.tasks.optical_flow.task import OpticalFlowTask
from perceiver_io.testing.tasks import TaskCase, check_gradients, check_processes

SMALL: dict[str, Any] = {
    "frames": {"feature_channels": 8, "num_convolutions": 1, "num_residual_convolutions": 1, "num_bands": 2},
    "encoder": {"num_latents": 4, "latent_channels": 16, "cross_attention_qk_channels": 16},
    "decoder": {"num_bands": 2, "qk_channels": 16, "v_channels": 16},
}


def small_model(variant: str = "small") -> PerceiverIOForOpticalFlow:
    torch.manual_seed(0)
    if variant == "small":
        made = config(variant="small", size=(8, 12), **SMALL)
    else:  # as published, but for its size
        made = config(
            size=(8, 12), encoder={"num_latents": 4, "latent_channels": 16, "num_self_attends_per_block": 1}
        )
    return PerceiverIOForOpticalFlow(made).double().eval()


def pair(seed: int = 0, size: tuple[int, int] = (10, 16)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (2, 3, *size), dtype=torch.uint8, generator=generator)
    flow = torch.randn(2, *size, generator=generator) * 3
    valid = torch.rand(size, generator=generator) < 0.7
    return {"first": frames[0], "second": frames[1], "flow": flow, "valid": valid}


def batch_of(count: int = 3) -> dict[str, Tensor]:
    frames = torch.randn(count, 2, 3, 8, 12, dtype=torch.float64).clamp(-1, 1)
    valid = torch.rand(count, 8, 12) < 0.7
    valid[1, 1:] = False  # fewer than are drawn: all of these count
    return {"frames": frames, "labels": torch.randn(count, 2, 8, 12, dtype=torch.float64) * 2, "valid": valid}


def gradient_of(model: PerceiverIOForOpticalFlow, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.parametrize("variant", ["small", "flow"])
def test_flow_and_loss_at_points_are_those_of_the_whole_output(variant: str) -> None:
    model, batch = small_model(variant), batch_of()
    points = torch.stack([torch.randperm(96)[:10] for _ in range(3)])
    picked = points[:, None].expand(-1, 2, -1)
    labels = batch["labels"].flatten(2).gather(2, picked).mT
    valid = batch["valid"].flatten(1).gather(1, points)
    whole = model(batch["frames"]).flow
    some = model(batch["frames"], labels=labels, valid=valid, points=points)
    torch.testing.assert_close(some.flow, whole.flatten(2).gather(2, picked).mT)
    errors = (some.flow - labels).pow(2).sum(-1).sqrt()
    expected = torch.stack(
        [one[known].mean() for one, known in zip(errors, valid, strict=True) if known.any()]
    )
    torch.testing.assert_close(some.loss, expected.mean())


def test_the_mean_gradient_of_many_draws_is_that_of_the_whole_loss() -> None:
    model, batch = small_model(), batch_of()
    rows = [
        {
            "first": torch.zeros(3, 8, 12, dtype=torch.uint8),
            "second": torch.zeros(3, 8, 12, dtype=torch.uint8),
            "flow": batch["labels"][index],
            "valid": batch["valid"][index],
        }
        for index in range(3)
    ]
    still = {"horizontal_flip": False, "vertical_flip": False, "brightness": 0.0}
    recipe = OpticalFlowRecipe(num_points=9, augmentation=still)
    setup = Setup(recipe=recipe, data=Splits(train=rows, validation=None, test=rows), model=model)
    collate = OpticalFlowTask().collator(setup, train=True)
    whole = gradient_of(model, model(**batch).loss)
    draws = []
    for _ in range(200):
        drawn = collate(rows)
        assert drawn["points"].shape[:2] == drawn["valid"].shape == (3, 9)
        draws.append(gradient_of(model, model(**{**drawn, "frames": batch["frames"]}).loss))
    gradients = torch.stack(draws)
    # Of 200 independent draws the mean is off by a deviation / 14; one draw alone is off by far more.
    off = (gradients.mean(0) - whole).norm()
    expected_off = (gradients.var(0).sum() / len(gradients)).sqrt()
    assert off < 2 * expected_off
    assert expected_off < 0.25 * whole.norm()


def test_points_of_a_batch_are_where_its_labels_come_from() -> None:
    rows = [pair(seed, size=(8, 12)) for seed in range(4)]
    still = {"horizontal_flip": False, "vertical_flip": False, "brightness": 0.0}
    setup = Setup(
        recipe=OpticalFlowRecipe(num_points=2, augmentation=still),
        data=Splits(train=rows, validation=None, test=rows),
        model=small_model(),
    )
    batch = OpticalFlowTask().collator(setup, train=True)(rows)
    assert batch["valid"].all() and batch["labels"].shape == (4, 2, 2)
    for row, points, labels in zip(rows, batch["points"], batch["labels"], strict=True):
        for (y, x), label in zip(points.tolist(), labels, strict=True):
            assert row["valid"][y, x] and torch.equal(row["flow"][:, y, x], label)
    expected = torch.stack([rows[0]["first"], rows[0]["second"]]).float() / 127.5 - 1
    torch.testing.assert_close(batch["frames"][0], expected)


def test_a_batch_without_a_known_pixel_has_no_loss() -> None:
    model, batch = small_model().train(), batch_of()
    nothing = torch.zeros_like(batch["valid"])
    unknown = torch.full_like(batch["labels"], torch.nan)
    loss = model(batch["frames"], labels=unknown, valid=nothing).loss
    loss.backward()
    assert loss.item() == 0
    assert all(one.grad is None or not one.grad.any() for one in model.parameters())
    assert OpticalFlowTask().weight({"valid": batch["valid"]}) == 3
    assert OpticalFlowTask().weight({"valid": nothing}) == 0


def test_output_of_another_resolution() -> None:
    model, batch = small_model(), batch_of()
    fine = model(batch["frames"], grid=(16, 24)).flow
    assert fine.shape == (3, 2, 16, 24)
    labels = torch.randn(3, 2, 16, 24, dtype=torch.float64)
    mask = torch.ones(3, 8, 12, dtype=torch.bool)
    loss = model(batch["frames"], labels=labels, grid=(16, 24), pixel_mask=mask).loss
    torch.testing.assert_close(loss, (fine - labels).pow(2).sum(1).sqrt().mean())
    with pytest.raises(ValueError, match="points and grid exclude each other"):
        model(batch["frames"], grid=(16, 24), points=torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels must be the true flow \(3, 4, 2\), got \(3, 2, 4\)"):
        model(batch["frames"], points=torch.arange(4), labels=torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match=r"valid must be bool \(3, 4\)"):
        model(
            batch["frames"],
            points=torch.arange(4),
            labels=torch.zeros(3, 4, 2, dtype=torch.float64),
            valid=torch.ones(3, 8, 12, dtype=torch.bool),
        )


def test_flips_turn_the_flow() -> None:
    """A pixel and where it goes, both mirrored, are the mirrored pixel and where that goes."""
    row = pair()
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        found = varied(row, FlowAugmentation(brightness=0.0))
        for flipped in ([], [-1], [-2], [-1, -2]):
            expected = row["flow"].flip(flipped)
            for axis in flipped:
                expected[0 if axis == -1 else 1] *= -1
            if torch.equal(found["flow"], expected):
                seen.add(tuple(flipped))
                assert torch.equal(found["first"], row["first"].flip(flipped))
                assert torch.equal(found["second"], row["second"].flip(flipped))
                assert torch.equal(found["valid"], row["valid"].flip(flipped))
                break
        else:
            pytest.fail("The flow is none of the four.")
    assert len(seen) == 4
    assert torch.equal(row["flow"], pair()["flow"])  # the row itself is left alone


def test_brightness_is_the_same_in_both_frames() -> None:
    row = pair()
    row["second"] = row["first"].clone()
    found = varied(row, FlowAugmentation(horizontal_flip=False, vertical_flip=False, brightness=0.5))
    assert torch.equal(found["first"], found["second"])
    assert not torch.equal(found["first"], row["first"]) and torch.equal(found["flow"], row["flow"])
    grey = {**row, "first": row["first"][:1], "second": row["second"][:1]}
    assert varied(grey, FlowAugmentation())["first"].shape == (1, 10, 16)


def test_cuts() -> None:
    row = pair()
    middle = cut(row, (8, 12), at_random=False)
    assert torch.equal(middle["flow"], row["flow"][:, 1:9, 2:14])
    assert torch.equal(middle["valid"], row["valid"][1:9, 2:14])
    torch.manual_seed(0)
    places = {tuple(cut(row, (8, 12), at_random=True)["flow"].flatten().tolist()) for _ in range(200)}
    assert len(places) == 3 * 5
    with pytest.raises(
        ValueError, match="Frames of 16x10 pixels are smaller than what the model sees, 12x11"
    ):
        cut(row, (11, 12), at_random=True)


def test_measures_by_hand() -> None:
    task = OpticalFlowTask()
    measures = task.measures(None)  # type: ignore[arg-type]
    labels = torch.tensor([[[[3.0, 0.0, 0.0, torch.nan]], [[4.0, 0.0, 0.0, 0.0]]]])
    flow = torch.tensor([[[[3.0, 2.0, 0.0, 9.0]], [[0.0, 0.0, 0.5, 9.0]]]])
    valid = torch.tensor([[[True, True, True, False]]])
    output = type("Output", (), {"flow": flow})
    task.update(measures, output, {"labels": labels, "valid": valid})
    found = {name: metric.compute().item() for name, metric in measures.items()}
    assert found == pytest.approx(
        {"end_point_error": 6.5 / 3, "zero_flow_error": 5 / 3, "off_by_1": 2 / 3, "off_by_3": 1 / 3}
    )


@pytest.mark.slow
def test_a_published_model_is_fine_tuned_by_the_same_recipe(tmp_path: Path) -> None:
    """In the published layout, with positions and queries as published: one step reaches every parameter."""
    pytest.importorskip("skimage")
    torch.manual_seed(0)
    made = config(
        size=(16, 24), encoder={"num_latents": 4, "latent_channels": 16, "num_self_attends_per_block": 1}
    )
    PerceiverIOForOpticalFlow(made).save_pretrained(tmp_path / "model")
    recipe = OpticalFlowRecipe(
        dataset="warped-photographs",
        pretrained=str(tmp_path / "model"),
        image_size=[16, 24],
        num_pairs=8,
        num_points=20,
        batch_size=4,
        max_steps=2,
        device="cpu",
        output_dir=str(tmp_path / "run"),
    )
    task = OpticalFlowTask()
    data = task.data(recipe)
    setup = build(task, recipe, data)
    assert setup.model.config.inputs == made.inputs and setup.model.config.outputs == made.outputs
    setup.model.train()(
        **task.collator(setup, train=True)([data.train[index] for index in range(4)])
    ).loss.backward()
    gradients = {name: one.grad for name, one in setup.model.named_parameters()}
    assert all(one is not None and one.isfinite().all() for one in gradients.values())
    metrics = train(task, recipe)
    assert metrics["steps"] == 2 and metrics["test_zero_flow_error"] > 0.2
    assert {"flows.png", "attention.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
def test_two_processes_fine_tune_a_published_model_as_one_does(tmp_path: Path) -> None:
    from PIL import Image

    torch.manual_seed(0)
    made = config(
        size=(16, 24), encoder={"num_latents": 4, "latent_channels": 16, "num_self_attends_per_block": 1}
    )
    save_transformers(PerceiverIOForOpticalFlow(made), tmp_path / "model")
    (tmp_path / "chairs").mkdir()
    for index in range(8):
        row = pair(index, size=(16, 24))
        for frame, name in enumerate(("first", "second"), start=1):
            pixels = row[name].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / "chairs" / f"{index:05d}_img{frame}.ppm")
        write_flo(tmp_path / "chairs" / f"{index:05d}_flow.flo", row["flow"], row["valid"])
    case = TaskCase(
        task_class=OpticalFlowTask,
        settings={
            "dataset": str(tmp_path / "chairs"),
            "pretrained": str(tmp_path / "model"),
            "image_size": [16, 24],
            "num_points": 16 * 24,  # all: nothing is drawn at random
            "batch_size": 4,
            "eval_batch_size": 4,
            "augmentation": {"horizontal_flip": False, "vertical_flip": False, "brightness": 0.0},
        },
        inputs=[],
        folder=tmp_path,
    )
    check_gradients(case)
    check_processes(case)


@pytest.mark.slow
def test_a_run_on_warped_photographs_predicts_files(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    from PIL import Image

    recipe = OpticalFlowRecipe(
        dataset="warped-photographs",
        image_size=[24],
        num_pairs=12,
        batch_size=4,
        max_steps=2,
        device="cpu",
        model={
            "inputs": {"frames": SMALL["frames"]},
            "encoder": SMALL["encoder"],
            "outputs": {"flow": SMALL["decoder"]},
        },
        output_dir=str(tmp_path / "run"),
    )
    metrics = train(OpticalFlowTask(), recipe)
    described = OpticalFlowTask().describe_results(
        json.loads((tmp_path / "run" / "metrics.json").read_text())
    )
    assert described.startswith(
        f"test end-point error {metrics['test_end_point_error']:.3f} pixels (of no motion "
    )
    for name, seed in (("a.png", 0), ("b.png", 1)):
        Image.fromarray(pair(seed, size=(30, 40))["first"].permute(1, 2, 0).numpy()).save(tmp_path / name)
    (found,) = predict(
        OpticalFlowTask(), tmp_path / "run", [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    )
    assert (found["width"], found["height"]) == (40, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_channels": 2}, "image_channels is 2, expected 1 or 3"),
        ({"image_size": [1, 2, 3]}, r"image_size is \[1, 2, 3\], expected a height and a width"),
        ({"num_pairs": 0}, "num_pairs is 0, expected 1 or more"),
        ({"rendering": "rough"}, "rendering is 'rough', expected one of clean, final, both"),
        ({"augmentation": {"brightness": 2.0}}, "The section augmentation: .*brightness is 2.0"),
        ({"augmentation": {"rotation": 2.0}}, "The section augmentation: .*unknown keys"),
    ],
)
def test_bad_recipes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpticalFlowRecipe(**fields)


def test_a_size_that_is_no_multiple_of_an_element_is_refused() -> None:
    with pytest.raises(ValueError, match="Frames of 66x64 pixels are 17x16 elements"):
        config(variant="small", size=(66, 64))

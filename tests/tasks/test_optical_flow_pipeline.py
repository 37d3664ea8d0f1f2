"""From two images to their flow: any kind of image, any size, tiles, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.tasks.optical_flow import OpticalFlowPipeline, PerceiverIOForOpticalFlow, config

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def model() -> PerceiverIOForOpticalFlow:
    torch.manual_seed(0)
    encoder = {"num_latents": 4, "latent_channels": 8, "num_self_attention_heads": 2}
    return PerceiverIOForOpticalFlow(
        config(variant="tiny", size=(24, 32), frames={"num_bands": 3}, encoder=encoder)
    ).eval()


def frame(height: int = 24, width: int = 32, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scaled(*frames: Pixels) -> torch.Tensor:
    """(1, 2, 3, H, W) in [-1, 1], by hand."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].double().div(127.5).sub(1).float()


def test_one_tile_is_one_call(model: PerceiverIOForOpticalFlow) -> None:
    first, second = frame(seed=0), frame(seed=1)
    flow = OpticalFlowPipeline(model)(first, second)
    assert flow.shape == (2, 24, 32) and flow.dtype == torch.float32 and not flow.requires_grad
    torch.testing.assert_close(flow, model(scaled(first, second)).flow[0].detach())


def test_two_tiles_by_hand(model: PerceiverIOForOpticalFlow) -> None:
    first, second = frame(24, 40, 0), frame(24, 40, 1)
    flow = OpticalFlowPipeline(model, min_overlap=5)(first, second)
    frames = scaled(first, second)
    left, right = model(frames[..., :32]).flow[0].detach(), model(frames[..., 8:]).flow[0].detach()
    torch.testing.assert_close(flow[..., :8], left[..., :8])
    torch.testing.assert_close(flow[..., 32:], right[..., 24:])
    # Row 9, column 10: nearest to the upper edge of the left tile (10) and to the left edge of the right one (3).
    expected = (10 * left[:, 9, 10] + 3 * right[:, 9, 2]) / 13
    torch.testing.assert_close(flow[:, 9, 10], expected)


def test_batches_change_nothing(model: PerceiverIOForOpticalFlow) -> None:
    first, second = frame(50, 70, 0), frame(50, 70, 1)
    flows = [
        OpticalFlowPipeline(model, batch_size=size, min_overlap=10)(first, second) for size in (1, 3, 100)
    ]
    torch.testing.assert_close(flows[0], flows[1])
    torch.testing.assert_close(flows[0], flows[2])


def test_a_small_image_is_a_tile_with_a_mask(model: PerceiverIOForOpticalFlow) -> None:
    first, second = frame(20, 17, 0), frame(20, 17, 1)
    flow = OpticalFlowPipeline(model)(first, second)
    frames, mask = torch.randn(1, 2, 3, 24, 32), torch.zeros(1, 24, 32, dtype=torch.bool)
    frames[..., :20, :17], mask[..., :20, :17] = scaled(first, second), True
    torch.testing.assert_close(flow, model(frames, pixel_mask=mask).flow[0, :, :20, :17].detach())


KINDS: dict[str, Callable[[Pixels, Path], Any]] = {
    "pil": lambda pixels, _: Image.fromarray(pixels),
    "tensor": lambda pixels, _: torch.from_numpy(pixels).permute(2, 0, 1),
    "path": lambda _, path: path,
    "name": lambda _, path: str(path),
    "rgba": lambda pixels, _: Image.fromarray(pixels).convert("RGBA"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(kind: str, model: PerceiverIOForOpticalFlow, tmp_path: Path) -> None:
    pipeline, frames = OpticalFlowPipeline(model), [frame(seed=0), frame(seed=1)]
    given = []
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        given.append(KINDS[kind](pixels, tmp_path / f"{index}.png"))
    assert torch.equal(pipeline(*given), pipeline(*frames))


def test_grey_becomes_rgb(model: PerceiverIOForOpticalFlow) -> None:
    pipeline = OpticalFlowPipeline(model)
    grey = [frame(seed=seed)[..., 0] for seed in (0, 1)]
    coloured = [np.repeat(pixels[..., None], 3, axis=2) for pixels in grey]
    expected = pipeline(*coloured)
    assert torch.equal(pipeline(*grey), expected)
    assert torch.equal(pipeline(*[Image.fromarray(pixels) for pixels in grey]), expected)
    assert torch.equal(pipeline(*[torch.from_numpy(pixels) for pixels in grey]), expected)


def test_model_keeps_its_mode_and_has_no_gradients(model: PerceiverIOForOpticalFlow) -> None:
    dropping = PerceiverIOForOpticalFlow(
        config(
            variant="tiny",
            size=(24, 32),
            encoder={"num_latents": 4, "latent_channels": 8, "num_self_attention_heads": 2, "dropout": 0.5},
        )
    ).train()
    pipeline = OpticalFlowPipeline(dropping)
    assert torch.equal(pipeline(frame(), frame(seed=1)), pipeline(frame(), frame(seed=1)))
    assert dropping.training
    with pytest.raises(ValueError, match="one size"):
        pipeline(frame(), frame(25))
    assert dropping.training


def test_other_precisions(model: PerceiverIOForOpticalFlow) -> None:
    half = PerceiverIOForOpticalFlow(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    first, second = frame(seed=0), frame(seed=1)
    flow, expected = OpticalFlowPipeline(half)(first, second), OpticalFlowPipeline(model)(first, second)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (frame(24, 33), "one size, got 32x24 and 33x24 pixels"),
        ("missing.png", "missing.png is missing"),
        (frame().astype(np.float32), "expected uint8"),
        (np.stack([frame(), frame()]), "Expected one image, got 2"),
        (np.zeros((24, 32, 2), dtype=np.uint8), r"shape \(24, 32, 2\)"),
        (None, "not an image: got NoneType"),
    ],
)
def test_bad_frames(second: Any, message: str, model: PerceiverIOForOpticalFlow) -> None:
    with pytest.raises(ValueError, match=message):
        OpticalFlowPipeline(model)(frame(), second)


def test_a_file_that_is_no_image(model: PerceiverIOForOpticalFlow, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ValueError, match=r"text\.png is not an image"):
        OpticalFlowPipeline(model)(frame(), tmp_path / "text.png")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"min_overlap": 24}, "Tiles of 24 pixels .* got min_overlap=24"),
        ({"min_overlap": -1}, "got min_overlap=-1"),
    ],
)
def test_bad_settings(settings: dict[str, int], message: str, model: PerceiverIOForOpticalFlow) -> None:
    with pytest.raises(ValueError, match=message):
        OpticalFlowPipeline(model, **settings)  # type: ignore[arg-type]


def test_damaged_weights_are_noticed(model: PerceiverIOForOpticalFlow) -> None:
    damaged = PerceiverIOForOpticalFlow(model.config)
    torch.nn.init.constant_(damaged.perceiver.encoder.latents.weight, torch.nan)
    with pytest.raises(ValueError, match="weights are damaged"):
        OpticalFlowPipeline(damaged)(frame(), frame(seed=1))

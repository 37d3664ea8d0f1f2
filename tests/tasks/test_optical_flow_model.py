"""The flow model: presets, masks, sizes, the loss, saving; and that it learns to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io as pio
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.optical_flow import FramePairAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.tasks.optical_flow import VARIANTS, OpticalFlowOutput, PerceiverIOForOpticalFlow, config

SMALL: dict[str, Any] = {
    "variant": "tiny",
    "size": (6, 8),
    "frames": {"num_bands": 3, "feature_channels": 5},
    "encoder": {"num_latents": 4, "latent_channels": 8, "num_self_attention_heads": 2},
}


def flow_model(**fields: Any) -> PerceiverIOForOpticalFlow:
    return PerceiverIOForOpticalFlow(config(**SMALL | fields)).eval()


def test_published_model() -> None:
    settings = config()
    with torch.device("meta"):
        model = PerceiverIOForOpticalFlow(settings)
        adapter = FramePairAdapter(settings.inputs["frames"])
    assert model.num_parameters() == 41_057_134
    assert model.tile_size == (368, 496)
    assert adapter.num_channels == 322
    encoder, decoder = settings.encoder, settings.outputs["flow"]
    assert (encoder.num_latents, encoder.latent_channels) == (2048, 512)
    assert (encoder.num_blocks, encoder.num_self_attends_per_block, encoder.num_cross_attends) == (1, 24, 1)
    assert (encoder.num_cross_attention_heads, encoder.num_self_attention_heads) == (1, 16)
    assert (encoder.activation, encoder.cross_attention_init) == ("gelu_tanh", "fan_in")
    assert (decoder.scale, decoder.activation, decoder.num_heads) == (0.2, "gelu_tanh", 1)
    assert not decoder.use_query_residual
    assert (decoder.query_input, decoder.query_input_channels) == ("frames", 64)
    assert (decoder.num_bands, decoder.max_resolution) == (64, (368, 496))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "small"])
def test_queries_are_the_byte_array(variant: str) -> None:
    """As the paper has it, whatever the size and the variant."""
    model = PerceiverIOForOpticalFlow(
        config(variant=variant, size=(6, 8), encoder={"num_latents": 3, "num_self_attends_per_block": 1})
    ).eval()
    frames = torch.rand(1, 2, 3, 7, 5) * 2 - 1
    encoded = model.perceiver.encode({"frames": frames})
    from perceiver_io.points import Points

    points = Points.of_range((7, 5), 0, 35, device=torch.device("cpu"))
    queries = model.perceiver.decoders["flow"].queries(encoded, points)
    torch.testing.assert_close(queries, encoded.byte_arrays["frames"].values)


def test_settings_follow_the_adapter() -> None:
    settings = config(variant="tiny", size=(10, 20), frames={"num_bands": 3, "include_coordinates": False})
    decoder = settings.outputs["flow"]
    assert (decoder.num_bands, decoder.max_resolution, decoder.include_coordinates) == (3, (10, 20), False)
    assert config(variant="tiny", decoder={"scale": 3.0}).outputs["flow"].scale == 3.0
    assert config() == config()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "huge"}, "no variant 'huge' .* Known: flow, small, tiny"),
        ({"frames": {"colour": 1}}, r"unknown keys \['colour'\]"),
        ({"encoder": {"depth": 1}}, r"unknown keys \['depth'\]"),
        ({"decoder": {"depth": 1}}, r"unknown keys \['depth'\]"),
        ({"size": (0, 8)}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


@pytest.mark.parametrize("size", [(6, 8), (9, 5), (1, 1)])
def test_flow_of_any_size(size: tuple[int, int]) -> None:
    model, frames = flow_model(), torch.rand(2, 2, 3, *size) * 2 - 1
    out = model(frames)
    assert isinstance(out, OpticalFlowOutput) and out.loss is None
    assert out.flow.shape == (2, 2, *size)
    assert torch.equal(out.flow, model.perceiver({"frames": frames})["flow"])


def test_frames_have_an_order() -> None:
    model, frames = flow_model(), torch.rand(1, 2, 3, 6, 8) * 2 - 1
    assert not torch.allclose(model(frames).flow, model(frames.flip(1)).flow)


def test_scale_multiplies_the_flow() -> None:
    model, frames = flow_model(), torch.rand(1, 2, 3, 6, 8) * 2 - 1
    scaled = flow_model(decoder={"scale": 0.2})
    scaled.load_state_dict(model.state_dict())
    torch.testing.assert_close(scaled(frames).flow, model(frames).flow * 0.2)


def test_masked_pixels_change_nothing() -> None:
    model, frames = flow_model(), torch.rand(1, 2, 3, 6, 8) * 2 - 1
    mask = torch.ones(1, 6, 8, dtype=torch.bool)
    mask[:, 4:] = mask[:, :, 6:] = False
    changed = torch.where(mask[:, None, None], frames, torch.randn_like(frames))
    a, b = model(frames, pixel_mask=mask).flow, model(changed, pixel_mask=mask).flow
    assert torch.equal(a[..., :4, :6], b[..., :4, :6])
    assert torch.equal(a, model(frames, pixel_mask=mask.long()).flow)
    assert not torch.allclose(a[..., :4, :6], model(frames).flow[..., :4, :6])


def test_loss_is_the_mean_end_point_error() -> None:
    model, frames = flow_model(), torch.rand(2, 2, 3, 6, 8) * 2 - 1
    labels, valid = torch.randn(2, 2, 6, 8), torch.rand(2, 6, 8) > 0.4
    out = model(frames, labels=labels)
    errors = ((out.flow - labels) ** 2).sum(1).sqrt()
    torch.testing.assert_close(out.loss, errors.mean())
    unknown = torch.where(valid[:, None], labels, torch.nan)
    of_samples = torch.stack([one[known].mean() for one, known in zip(errors, valid, strict=True)])
    torch.testing.assert_close(model(frames, unknown, valid).loss, of_samples.mean())
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    mask[:, 3:] = False
    masked = model(frames, pixel_mask=mask).flow
    errors = ((masked - labels) ** 2).sum(1).sqrt()
    torch.testing.assert_close(model(frames, labels, pixel_mask=mask).loss, errors[mask].mean())
    both = mask & valid
    of_samples = torch.stack([one[known].mean() for one, known in zip(errors, both, strict=True)])
    torch.testing.assert_close(model(frames, labels, valid, mask).loss, of_samples.mean())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": torch.zeros(1, 2, 6, 7)}, r"true flow \(1, 2, 6, 8\), got \(1, 2, 6, 7\)"),
        ({"labels": [0]}, "got list"),
        (
            {"labels": torch.zeros(1, 2, 6, 8), "valid": torch.ones(1, 6, 8)},
            r"valid must be bool \(1, 6, 8\)",
        ),
        ({"labels": torch.full((1, 2, 6, 8), torch.nan)}, "not finite"),
        ({"valid": torch.ones(1, 6, 8, dtype=torch.bool)}, "there are no labels"),
        ({"frames": torch.zeros(1, 3, 3, 6, 8)}, "Frame pairs must be"),
        ({"frames": torch.zeros(1, 2, 3, 6, 8, dtype=torch.uint8)}, "floating point"),
        ({"pixel_mask": torch.zeros(1, 6, 8, dtype=torch.bool)}, "masked"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_model()(**{"frames": torch.zeros(1, 2, 3, 6, 8)} | fields)


def test_configurations_of_something_else_are_refused() -> None:
    settings = config(**SMALL)
    image = {"image": ImageAdapter.Config(size=(4, 4))}
    dense = DenseDecoder.Config(output_channels=2, grid_input="image", max_resolution=(4, 4))
    with pytest.raises(ValueError, match=r"the input 'frames' .* got the inputs \['image'\]"):
        PerceiverIOForOpticalFlow(
            pio.PerceiverIOConfig(inputs=image, encoder=settings.encoder, outputs={"flow": dense})
        )
    decoder = DenseDecoder.Config(output_channels=3, grid_input="frames", max_resolution=(6, 8))
    with pytest.raises(ValueError, match=r"output_channels=2 .* DenseDecoder.Config with 3"):
        PerceiverIOForOpticalFlow(
            pio.PerceiverIOConfig(inputs=settings.inputs, encoder=settings.encoder, outputs={"flow": decoder})
        )


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, frames = flow_model(), torch.rand(1, 2, 3, 6, 8) * 2 - 1
    model.save_pretrained(tmp_path)
    twin = pio.from_pretrained(tmp_path)
    assert type(twin) is PerceiverIOForOpticalFlow
    assert (twin.config.inputs, twin.config.outputs) == (model.config.inputs, model.config.outputs)
    assert torch.equal(twin.eval()(frames).flow, model(frames).flow)


def test_learns_which_way_pixels_go() -> None:
    """Textures that move left or right: nothing but a comparison of the two frames tells which."""
    generator = torch.Generator().manual_seed(0)
    model = flow_model(
        encoder={"num_latents": 8, "latent_channels": 32, "num_self_attention_heads": 2}
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        texture = torch.rand(16, 3, 6, 10, generator=generator) * 2 - 1
        shift = torch.randint(0, 2, (16,), generator=generator) * 2 - 1
        second = torch.stack([image.roll(int(by), -1) for image, by in zip(texture, shift, strict=True)])
        frames = torch.stack([texture, second], dim=1)[..., 1:9]
        labels = torch.zeros(16, 2, 6, 8)
        labels[:, 0] = shift[:, None, None]
        optimizer.zero_grad()
        loss = model(frames, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Whoever does not look is off by one pixel on average.
    assert sum(losses[:10]) / 10 > 0.9
    assert sum(losses[-10:]) / 10 < 0.5

"""What elements hold, and how some of them are hidden, beyond the contract suite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import perceiver_io as pio
from perceiver_io.adapters import (
    ImageAdapter,
    PointCloudAdapter,
    SpectrogramAdapter,
    TableAdapter,
    TextAdapter,
    TimeSeriesAdapter,
    VideoAdapter,
)
from perceiver_io.input_tools import spread_mask
from perceiver_io.testing import ADAPTER_CHECKS, AdapterCase

ENCODER = pio.EncoderConfig(num_latents=4, latent_channels=16, num_self_attention_heads=4)


def test_targets_of_images_are_their_pixels() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    adapter = ImageAdapter(ImageAdapter.Config(size=(4, 6), features="patches", patch_size=2, num_bands=2))
    targets = adapter.targets(x)
    # Row, column, channel within a patch: as its content is.
    torch.testing.assert_close(targets, adapter(x).values[..., :12])
    assert targets[1, 4].tolist() == [
        float(x[1, c, 2 + i, 2 + j]) for i in (0, 1) for j in (0, 1) for c in range(3)
    ]


def test_targets_of_tables_are_standardised_numbers_and_categories() -> None:
    columns = (("number", 10.0, 2.0), ("category", 3))
    adapter = TableAdapter(TableAdapter.Config(columns=columns))
    found = adapter.targets(torch.tensor([[14.0, 2.0], [math.nan, math.nan]]))
    nan = math.nan
    expected = torch.tensor([[[2, nan, nan, nan], [nan, 0, 0, 1]], [[nan] * 4, [nan] * 4]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_targets_of_series_and_clouds() -> None:
    series = torch.tensor([[[0.0, 1.0, math.nan], [3.0, 2.0, 5.0]]])
    adapter = TimeSeriesAdapter(TimeSeriesAdapter.Config(num_variables=2, time_range=(0.0, 5.0)))
    torch.testing.assert_close(adapter.targets(series), series[..., 1:], equal_nan=True)
    cloud = torch.randn(1, 5, 5)
    coloured = PointCloudAdapter(PointCloudAdapter.Config(num_features=2))
    torch.testing.assert_close(coloured.targets(cloud), cloud[..., 3:])
    with pytest.raises(ValueError, match="Points without features have nothing to reconstruct"):
        PointCloudAdapter(PointCloudAdapter.Config()).targets(cloud[..., :3])
    with pytest.raises(ValueError, match="a TextAdapter stand for no raw values"):
        TextAdapter(TextAdapter.Config(vocab_size=9, max_length=4)).targets(
            torch.zeros(1, 4, dtype=torch.int64)
        )


CONFIGS: dict[str, tuple[Any, torch.Tensor]] = {
    "stem": (
        ImageAdapter.Config(
            size=(16, 16),
            features="conv_stem",
            feature_channels=8,
            num_convolutions=2,
            num_residual_convolutions=2,
            num_bands=2,
        ),
        torch.randn(2, 3, 16, 16),
    ),
    "patches": (
        ImageAdapter.Config(size=(8, 8), features="patches", patch_size=2, num_bands=2),
        torch.randn(2, 3, 8, 8),
    ),
    "frames": (SpectrogramAdapter.Config(size=(16, 6), features="conv", num_bands=2), torch.randn(2, 16, 6)),
    "video": (
        VideoAdapter.Config(size=(2, 8, 8), features="conv", num_bands=2),
        torch.randn(2, 2, 3, 8, 8),
    ),
    "series": (
        TimeSeriesAdapter.Config(num_variables=2, time_range=(0.0, 1.0), num_bands=2),
        torch.rand(2, 6, 3),
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_latents_do_not_see_what_is_hidden(name: str, training: bool) -> None:
    """Other hidden values give the same latents, bit for bit; other visible ones give others."""
    part, x = CONFIGS[name]
    config = pio.PerceiverIOConfig(
        inputs={"x": part},
        encoder=ENCODER,
        outputs={"y": pio.PooledClassificationDecoder.Config(num_classes=2)},
    )
    model = pio.PerceiverIO(config)
    adapter = model.adapters["x"]
    targets = adapter.targets(x)
    hidden = torch.rand(targets.shape[:2]) < 0.5
    hidden[:, 0], hidden[:, 1] = True, False
    other = torch.where(hidden[..., None], targets + 1, targets)
    if name == "series":
        other_x = torch.cat([x[..., :1], other], dim=-1)
    else:
        other_x = adapter.from_targets(other, adapter(x).grid)
    assert not torch.equal(other_x, x)
    latents = []
    for values, left_out in ((x, hidden), (other_x, hidden), (other_x, torch.zeros_like(hidden))):
        torch.manual_seed(0)
        twin = pio.PerceiverIO(config).train(training)
        latents.append(twin.encode({"x": values}, hidden={"x": left_out}).latents)
    assert torch.equal(latents[0], latents[1])
    assert not torch.allclose(latents[1], latents[2])


def test_hidden_elements_are_those_that_a_mask_leaves_out() -> None:
    """With patches, hiding elements is the same as masking their pixels; the byte arrays still have them."""
    part, x = CONFIGS["patches"]
    config = pio.PerceiverIOConfig(
        inputs={"x": part},
        encoder=ENCODER,
        outputs={"y": pio.PooledClassificationDecoder.Config(num_classes=2)},
    )
    model = pio.PerceiverIO(config).eval()
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 3], hidden[1, 5:9] = True, True
    mask = spread_mask(hidden, (4, 4), torch.ones(2, 8, 8, dtype=torch.bool))
    found = model.encode({"x": x}, hidden={"x": hidden})
    torch.testing.assert_close(found.latents, model.encode({"x": x}, {"x": mask}).latents)
    assert torch.equal(found.hidden["x"], hidden)
    torch.testing.assert_close(found.byte_arrays["x"].values, model.adapters["x"](x).values)


def test_mask_tokens_stand_for_hidden_elements() -> None:
    part, x = CONFIGS["patches"]
    config = pio.PerceiverIOConfig(
        inputs={"x": part},
        encoder=ENCODER,
        outputs={"y": pio.PooledClassificationDecoder.Config(num_classes=2)},
        packing=pio.PackingConfig(mask_probabilities=(("x", 0.5),)),
    )
    model = pio.PerceiverIO(config).eval()
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 3] = True
    found = model.encode({"x": x}, hidden={"x": hidden})
    assert torch.equal(found.hidden["x"], hidden)
    with torch.no_grad():
        model.packer.mask_tokens["x"].weight += 1
    assert not torch.allclose(model.encode({"x": x}, hidden={"x": hidden}).latents, found.latents)


def test_what_cannot_be_hidden() -> None:
    part, x = CONFIGS["stem"]
    config = pio.PerceiverIOConfig(
        inputs={"x": part},
        encoder=ENCODER,
        outputs={"y": pio.PooledClassificationDecoder.Config(num_classes=2)},
    )
    model = pio.PerceiverIO(config).eval()
    with pytest.raises(ValueError, match=r"are to be hidden, but there are inputs only for \['x'\]"):
        model.encode({"x": x}, hidden={"z": torch.zeros(2, 16, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"must be \(2, 16\) \(samples, elements\), got \(2, 4\)"):
        model.encode({"x": x}, hidden={"x": torch.zeros(2, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="14x16 is 4x4 elements: to hide some of them"):
        model.encode({"x": x[:, :, :14]}, hidden={"x": torch.zeros(2, 16, dtype=torch.bool)})
    flat = pio.PerceiverIO(
        pio.PerceiverIOConfig(
            inputs={"x": CONFIGS["patches"][0]}, encoder=ENCODER, outputs={"y": config.outputs["y"]}
        )
    )
    with pytest.raises(ValueError, match=r"must be bool \(2, 16\) \(samples, elements\), got torch.float32"):
        flat.encode({"x": CONFIGS["patches"][1]}, hidden={"x": torch.zeros(2, 16)})


def test_the_contract_finds_what_leaks() -> None:
    class Leaking(ImageAdapter):
        def mask_without(self, hidden_BM: Any, x: Any, mask: Any = None) -> Any:
            return mask

    part, x = CONFIGS["stem"]
    mask = torch.ones(2, 16, 16, dtype=torch.bool)
    mask[:, :8] = False
    good, leaking = (
        AdapterCase(adapter_class=one, config=part, x=x, mask=mask) for one in (ImageAdapter, Leaking)
    )
    ADAPTER_CHECKS["targets"](good)
    with pytest.raises(AssertionError, match="What hidden elements hold reaches others"):
        ADAPTER_CHECKS["targets"](leaking)

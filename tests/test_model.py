"""The model: encode, decode, several inputs, and what it refuses."""

from typing import Any

import pytest
import torch

import perceiver_io as pio
from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.decoder import PooledClassificationDecoder
from perceiver_io.testing import ElementsAdapter

CHANNELS = {"audio": 3, "image": 5}
LENGTHS = {"audio": 4, "image": 6}


def model(*inputs: str) -> PerceiverIO:
    config = PerceiverIOConfig(
        inputs={name: ElementsAdapter.Config(num_channels=CHANNELS[name]) for name in inputs},
        encoder=EncoderConfig(
            num_latents=3,
            latent_channels=8,
            num_blocks=2,
            num_cross_attends=2,
            num_self_attends_per_block=1,
            num_self_attention_heads=2,
        ),
        outputs={
            "label": ClassificationDecoder.Config(num_classes=4),
            "pooled": PooledClassificationDecoder.Config(num_classes=2),
        },
        adapters={"elements": ElementsAdapter},
    )
    return PerceiverIO(config).eval()


def batch(*inputs: str, batch_size: int = 2) -> dict[str, torch.Tensor]:
    return {name: torch.randn(batch_size, LENGTHS[name], CHANNELS[name]) for name in inputs}


def test_forward_is_encode_then_decode() -> None:
    perceiver, inputs = model("image"), batch("image")
    out = perceiver(inputs)
    assert out.latents.shape == (2, 3, 8)
    assert set(out.outputs) == {"label", "pooled"}
    assert (out["label"].shape, out["pooled"].shape) == ((2, 4), (2, 2))
    encoded = perceiver.encode(inputs)
    torch.testing.assert_close(encoded.latents, out.latents)
    assert torch.equal(encoded.byte_arrays["image"].values, inputs["image"])
    for _ in range(2):
        decoded = perceiver.decode(encoded, outputs=["label"])
        assert set(decoded) == {"label"}
        torch.testing.assert_close(decoded["label"], out["label"])
    with pytest.raises(KeyError):
        out["mask"]


def test_model_is_its_parts() -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    packed, _ = perceiver.packer({name: perceiver.adapters[name](x) for name, x in inputs.items()})
    latents = perceiver.encoder(packed)
    torch.testing.assert_close(perceiver(inputs).latents, latents)


def test_order_of_the_inputs_does_not_matter() -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    reversed_inputs = dict(reversed(inputs.items()))
    assert list(inputs) != list(reversed_inputs)
    assert torch.equal(perceiver(inputs)["label"], perceiver(reversed_inputs)["label"])


@pytest.mark.parametrize("absent", ["audio", "image"])
def test_an_absent_input_is_a_masked_one(absent: str) -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    nothing = {absent: torch.zeros(2, LENGTHS[absent], dtype=torch.bool)}
    masked = perceiver(inputs, nothing)
    present = perceiver({name: x for name, x in inputs.items() if name != absent})
    torch.testing.assert_close(masked.latents, present.latents)
    assert not torch.allclose(perceiver(inputs).latents, present.latents)


def test_an_input_may_be_masked_for_one_sample_only() -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    mask = torch.tensor([[True] * 4, [False] * 4])
    latents = perceiver(inputs, {"audio": mask}).latents
    both = perceiver(inputs).latents
    torch.testing.assert_close(latents[0], both[0])
    torch.testing.assert_close(latents[1], perceiver({"image": inputs["image"]}).latents[1])


def test_masked_values_may_be_anything() -> None:
    perceiver, inputs = model("image"), batch("image")
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:] = False
    spoilt = inputs["image"].clone()
    spoilt[0, 2:] = torch.nan
    expected = perceiver(inputs, {"image": mask})["label"]
    torch.testing.assert_close(perceiver({"image": spoilt}, {"image": mask})["label"], expected)


@pytest.mark.parametrize("call", ["forward", "encode", "attention_maps"])
def test_wholly_masked_samples_are_named(call: str) -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio", batch_size=3)
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in inputs.items()}
    for mask in masks.values():
        mask[1:] = False
    with pytest.raises(ValueError, match=r"samples \[1, 2\] is masked: there is nothing to attend to"):
        getattr(perceiver, call)(inputs, masks)


@pytest.mark.parametrize(
    ("inputs", "masks", "message"),
    [
        ({"video": torch.zeros(2, 6, 5)}, None, r"no inputs \['video'\]; it has \['audio', 'image'\]"),
        ({}, None, r"At least one of the inputs \['audio', 'image'\] is needed, got none"),
        (
            batch("image"),
            {"audio": torch.ones(2, 4).bool()},
            r"masks for \['audio'\], but inputs only for \['image'\]",
        ),
        (
            batch("image"),
            {"image": torch.ones(2, 5).bool()},
            r"mask must be bool \(2, 6\), got torch.bool \(2, 5\)",
        ),
        ({**batch("image"), **batch("audio", batch_size=3)}, None, r"same batch size, got \{.*'audio': 3"),
        ({"image": torch.zeros(0, 6, 5)}, None, r"got torch.float32 \(0, 6, 5\)"),
        ({"image": torch.tensor(1.0)}, None, r"got torch.float32 \(\)"),
        ({"image": [[0.0]]}, None, "The input 'image' must be a tensor, got list"),
        (
            {"image": torch.zeros(2, 6, 5).double()},
            None,
            "is torch.float64, but the model is torch.float32: convert",
        ),
        ({"image": torch.full((2, 6, 5), torch.inf)}, None, "60 values that are NaN or infinite"),
    ],
)
def test_bad_input_is_refused(inputs: Any, masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model("image", "audio")(inputs, masks)


def test_unknown_outputs_are_refused() -> None:
    perceiver = model("image")
    encoded = perceiver.encode(batch("image"))
    with pytest.raises(ValueError, match=r"no outputs \['flow'\]; it has \['label', 'pooled'\]"):
        perceiver.decode(encoded, outputs=["label", "flow"])
    assert perceiver.decode(encoded, outputs=[]) == {}


def test_every_parameter_learns() -> None:
    perceiver = model("image", "audio").train()
    sum(output.square().sum() for output in perceiver(batch("image", "audio")).outputs.values()).backward()
    assert [name for name, parameter in perceiver.named_parameters() if parameter.grad is None] == []


def test_initial_values_survive_post_init() -> None:
    """`transformers` initialises modules again by its own rules where a model does not say otherwise."""
    config = model("image").config
    config.encoder = EncoderConfig(
        num_latents=64,
        latent_channels=128,
        cross_attention_query_gain=4.0,
        latent_std=0.3,
        cross_attention_qk_channels=64,
    )
    perceiver = PerceiverIO(config)
    query = perceiver.encoder.cross_attends[0].attention.query
    assert query.weight.std().item() * 128**0.5 == pytest.approx(4.0, rel=0.1)
    assert perceiver.encoder.latents.weight.std().item() == pytest.approx(0.3, rel=0.1)
    key = perceiver.encoder.cross_attends[0].attention.key
    assert key.weight.square().sum(dim=1).mean().item() == pytest.approx(1.0, rel=0.2)
    own = perceiver.encoder.blocks[0].layers[0].attention.query
    assert own.weight.std().item() * 128**0.5 == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_runs_in_other_types(dtype: torch.dtype) -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    masks = {"image": torch.tensor([[True] * 5 + [False]] * 2)}
    expected = perceiver(inputs, masks)["label"]
    out = perceiver.to(dtype)({name: x.to(dtype) for name, x in inputs.items()}, masks)["label"]
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)


def test_runs_under_autocast() -> None:
    perceiver, inputs = model("image", "audio"), batch("image", "audio")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = perceiver(inputs)["label"]
        mixed = perceiver({name: x.bfloat16() for name, x in inputs.items()})["label"]
    expected = perceiver(inputs)["label"]
    for logits in (out, mixed):
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.1)


def test_public_names_exist() -> None:
    assert [name for name in pio.__all__ if not hasattr(pio, name)] == []

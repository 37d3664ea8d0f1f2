"""The model: encode, decode, several inputs, and what it refuses."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import perceiver_io as pio
from perceiver_io import (
    ClassificationDecoder,
    DecoderNeeds,
    DecoderParts,
    Encoded,
    EncoderConfig,
    PerceiverIO,
    PerceiverIOConfig,
    SharedAttentionConfig,
)
from perceiver_io.byte_array import PackingConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.testing import ElementsAdapter
from perceiver_io.vector_decoders import PooledClassificationDecoder

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


def test_of_many_wholly_masked_samples_the_first_are_named() -> None:
    nothing = torch.zeros(7, LENGTHS["image"], dtype=torch.bool)
    with pytest.raises(ValueError, match=r"samples \[0, 1, 2, 3, 4, …\] is masked"):
        model("image")(batch("image", batch_size=7), {"image": nothing})


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
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=0.1, rtol=0.1)


def test_public_names_exist() -> None:
    assert [name for name in pio.__all__ if not hasattr(pio, name)] == []


def dense_model(**fields: Any) -> PerceiverIO:
    config = PerceiverIOConfig(
        inputs={"image": ElementsAdapter.Config(num_channels=5)},
        encoder=EncoderConfig(num_latents=3, latent_channels=8, num_self_attends_per_block=1),
        outputs={
            "audio": DenseDecoder.Config(output_channels=1, grid=(5,), num_bands=2, channel_axis=None),
            "flow": DenseDecoder.Config(output_channels=2, grid=(3, 4), num_bands=2),
            "label": ClassificationDecoder.Config(num_classes=4),
        },
        adapters={"elements": ElementsAdapter},
        **fields,
    )
    return PerceiverIO(config).eval()


def test_points_and_grids_name_the_outputs_that_are_decoded() -> None:
    perceiver = dense_model()
    encoded = perceiver.encode(batch("image"))
    flat = torch.tensor([0, 11])
    assert {name: tuple(x.shape) for name, x in perceiver.decode(encoded).items()} == {
        "audio": (2, 5),
        "flow": (2, 2, 3, 4),
        "label": (2, 4),
    }
    decoded = perceiver.decode(encoded, points={"flow": flat})
    assert {name: tuple(x.shape) for name, x in decoded.items()} == {"flow": (2, 2, 2)}
    decoded = perceiver.decode(encoded, points={"label": None, "flow": flat}, grids={"audio": (7,)})
    assert {name: tuple(x.shape) for name, x in decoded.items()} == {
        "audio": (2, 7),
        "flow": (2, 2, 2),
        "label": (2, 4),
    }
    decoded = perceiver.decode(encoded, ["label", "flow"], points={"flow": flat})
    assert set(decoded) == {"label", "flow"}
    assert set(perceiver.decode(encoded, points={}, grids={})) == {"audio", "flow", "label"}
    whole = perceiver.decode(encoded)
    for points in ({"flow": None}, {"flow": None, "label": None}):
        for name, output in perceiver.decode(encoded, points=points).items():
            torch.testing.assert_close(output, whole[name])


def test_forward_takes_points_and_outputs() -> None:
    perceiver, inputs = dense_model(), batch("image")
    whole = perceiver(inputs)
    out = perceiver(inputs, points={"flow": torch.tensor([[2, 3]]), "label": None})
    assert set(out.outputs) == {"flow", "label"}
    torch.testing.assert_close(out["flow"], whole["flow"][:, :, 2, 3].unsqueeze(1))
    torch.testing.assert_close(out["label"], whole["label"])
    assert set(perceiver(inputs, outputs=["audio"]).outputs) == {"audio"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"points": {"depth": torch.tensor([0])}},
            r"no outputs \['depth'\]; it has \['audio', 'flow', 'label'\]",
        ),
        ({"grids": {"depth": (3, 4)}}, r"no outputs \['depth'\]"),
        ({"points": {"depth": None}}, r"no outputs \['depth'\]"),
        (
            {"outputs": ["label"], "points": {"flow": torch.tensor([0])}},
            r"points or grids for \['flow'\], but only \['label'\] are asked for",
        ),
        ({"outputs": ["label"], "grids": {"flow": (3, 4)}}, r"points or grids for \['flow'\]"),
        ({"points": {"label": torch.tensor([0])}}, "'label' has no points: ask for it whole, with None"),
        ({"grids": {"label": (1,)}}, "'label' has no points: ask for it whole, with None"),
        (
            {"points": {"flow": torch.tensor([0])}, "grids": {"flow": (3, 4)}},
            "'flow' is asked for at points and on a grid: choose one",
        ),
        ({"grids": {"flow": (3, 0)}}, r"'flow' must have sizes of at least 1, got \(3, 0\)"),
        ({"grids": {"flow": ()}}, r"'flow' must have sizes of at least 1, got \(\)"),
        ({"grids": {"flow": 5}}, r"'flow' must have sizes of at least 1, got 5"),
        ({"grids": {"flow": (3,)}}, r"The output's grid has 2 axes, got \(3,\)"),
        (
            {"points": {"flow": torch.tensor([12])}},
            r"'flow', whose grid is \(3, 4\), .* 0 to 11, got 12 to 12",
        ),
        ({"points": {"flow": torch.tensor([[0.0, 1.5]])}}, r"coordinates in \[-1, 1\], got 0 to 1.5"),
        ({"points": {"flow": [0]}}, "must be a tensor, got list"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"memory_budget": -1}, "memory_budget must be at least 1, got -1"),
    ],
)
def test_what_cannot_be_decoded_is_refused(arguments: dict[str, Any], message: str) -> None:
    perceiver = dense_model()
    encoded = perceiver.encode(batch("image"))
    with pytest.raises(ValueError, match=message):
        perceiver.decode(encoded, **arguments)


def test_more_query_channels_than_the_input_has_are_refused() -> None:
    config = dense_model().config
    config.outputs["flow"] = DenseDecoder.Config(
        output_channels=2, query_input="image", query_input_channels=6, position="none"
    )
    with pytest.raises(ValueError, match="'flow' takes 6 channels of the input 'image', which has 5"):
        PerceiverIO(config)


def test_a_whole_sample_may_be_masked_where_tokens_stand_for_it() -> None:
    packing = PackingConfig(mask_probabilities=(("image", 0.5),))
    perceiver, inputs = dense_model(packing=packing), batch("image")
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    nothing[0] = True
    latents = perceiver(inputs, {"image": nothing}).latents
    torch.testing.assert_close(latents[0], perceiver(inputs).latents[0])
    tokens = perceiver.packer.mask_tokens["image"].weight.expand(1, 6, -1)
    torch.testing.assert_close(latents[1:], perceiver({"image": tokens.contiguous()}).latents)


def test_what_was_hidden_comes_back() -> None:
    perceiver = dense_model(packing=PackingConfig(mask_probabilities=(("image", 0.5),))).train()
    inputs = batch("image")
    encoded = perceiver.encode(inputs)
    hidden = encoded.hidden["image"]
    assert hidden.shape == (2, 6) and hidden.dtype == torch.bool
    token = perceiver.packer.mask_tokens["image"].weight
    shown = torch.where(hidden[..., None], token, inputs["image"])
    torch.testing.assert_close(perceiver.eval()({"image": shown.detach()}).latents, encoded.latents)
    out = perceiver.train()(inputs)
    assert out.hidden.keys() == {"image"} and not perceiver.eval()(inputs).hidden["image"].any()
    assert model("image")(inputs).hidden == {}


class ClaimsQueries(PooledClassificationDecoder):
    @dataclass(frozen=True, kw_only=True)
    class Config(PooledClassificationDecoder.Config):
        def needs(self) -> DecoderNeeds:
            return DecoderNeeds(can_share_attention=True)


def test_a_decoder_that_shares_says_how_wide_its_queries_are() -> None:
    config = PerceiverIOConfig(
        inputs={"image": ElementsAdapter.Config(num_channels=5)},
        encoder=EncoderConfig(num_latents=3, latent_channels=8),
        outputs={"label": ClaimsQueries.Config(num_classes=4)},
        shared_attention=SharedAttentionConfig(outputs=("label",), output_channels=4),
        adapters={"elements": ElementsAdapter},
        decoders={"claims": ClaimsQueries},
    )
    with pytest.raises(ValueError, match=r"'label' says that it can share .*ClaimsQueries has no num_query"):
        PerceiverIO(config)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dense_outputs_run_in_other_types(dtype: torch.dtype) -> None:
    perceiver, inputs = dense_model(), batch("image")
    points = {"flow": torch.tensor([[0.5, -1.0]]), "audio": torch.tensor([3]), "label": None}
    expected = perceiver(inputs, points=points)
    out = perceiver.to(dtype)({"image": inputs["image"].to(dtype)}, points=points)
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    for name, output in out.outputs.items():
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected[name], atol=tolerance, rtol=tolerance)


def test_dense_outputs_run_under_autocast() -> None:
    perceiver, inputs = dense_model(), batch("image")
    expected = perceiver(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = perceiver(inputs)
    for name, output in out.outputs.items():
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected[name], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("num_elements", [1, 24])
def test_heads_have_finer_steps_than_bfloat16_under_autocast(num_elements: int) -> None:
    """Outputs near 100, whose neighbours in bfloat16 are half a unit away; as written, and folded."""
    decoder = DenseDecoder(
        DenseDecoder.Config(output_channels=1, grid=(num_elements,), num_bands=2, channel_axis=None),
        DecoderParts(latent_channels=8),
    ).eval()
    torch.nn.init.constant_(decoder.output.bias, 100.0)
    encoded = Encoded(latents=torch.randn(2, 3, 8), byte_arrays={})
    expected = decoder(encoded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decoder(encoded)
    assert (found - expected).abs().max() < 0.05


def test_sizes_can_be_had_without_computing_anything() -> None:
    """On the meta device, where autocast is not known."""
    with torch.device("meta"):
        perceiver = dense_model()
        out = perceiver({"image": torch.empty(2, *batch("image")["image"].shape[1:])})
    expected = dense_model()(batch("image"))
    assert {name: x.shape for name, x in out.outputs.items()} == {
        name: x.shape for name, x in expected.outputs.items()
    }

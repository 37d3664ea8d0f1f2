"""One attention that several outputs share, against one pass over all queries and against `transformers`."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverBasicDecoder,
    PerceiverBasicVideoAutoencodingDecoder,
    PerceiverClassificationDecoder,
    PerceiverMultimodalDecoder,
)

from perceiver_io import (
    ClassificationDecoder,
    DecoderParts,
    DecoderRequest,
    Encoded,
    EncoderConfig,
    PerceiverIO,
    PerceiverIOConfig,
)
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.points import Points
from perceiver_io.query_attention import SharedAttention, SharedAttentionConfig
from perceiver_io.testing import ElementsAdapter
from perceiver_io.vector_decoders import PooledClassificationDecoder

OUTPUTS = {
    "audio": DenseDecoder.Config(
        output_channels=1, grid=(4,), patch_size=(3,), num_bands=3, max_resolution=(12,), channel_axis=None
    ),
    "image": DenseDecoder.Config(
        output_channels=3,
        grid=(2, 3, 4),
        num_bands=2,
        max_resolution=(2, 4, 4),
        spacing="steps",
        channel_axis=1,
    ),
    "label": ClassificationDecoder.Config(num_classes=5, query_channels=11),
}
WIDTHS = {"audio": 7, "image": 15, "label": 11}


def model(**fields: Any) -> PerceiverIO:
    shared = SharedAttentionConfig(
        **{"outputs": ("audio", "image", "label"), "output_channels": 6, "activation": "gelu_tanh"} | fields
    )
    config = PerceiverIOConfig(
        inputs={"x": ElementsAdapter.Config(num_channels=4)},
        encoder=EncoderConfig(num_latents=5, latent_channels=8, num_self_attends_per_block=1),
        outputs=OUTPUTS,
        shared_attention=shared,
        adapters={"elements": ElementsAdapter},
    )
    built = PerceiverIO(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return built


def encoded() -> Encoded:
    return Encoded(latents=torch.randn(2, 5, 8), byte_arrays={})


def queries(perceiver: PerceiverIO, batch: Encoded) -> dict[str, torch.Tensor]:
    audio, image, label = (perceiver.decoders[name] for name in ("audio", "image", "label"))
    return {
        "audio": audio.queries(batch, Points.of_range((4,), 0, 4)),
        "image": image.queries(batch, Points.of_range((2, 3, 4), 0, 24)),
        "label": label.query.weight.expand(2, 1, -1),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_query_residual": True, "min_padding": 5, "widening_factor": 2},
        {"num_heads": 2, "qk_channels": 6, "v_channels": 4},
    ],
)
def test_outputs_are_decoded_as_in_one_pass_over_all_queries(fields: dict[str, Any]) -> None:
    perceiver, batch = model(**fields), encoded()
    shared = perceiver.shared_attention
    assert shared is not None
    width = 15 + fields.get("min_padding", 2)
    padded = []
    for name, part in queries(perceiver, batch).items():
        assert part.shape[-1] == WIDTHS[name]
        padding = shared.padding[name].weight
        assert padding.shape == (1, width - WIDTHS[name])
        padded.append(torch.cat([part, padding.expand(*part.shape[:2], -1)], dim=-1))
    attended = shared.output(shared.cross_attend(torch.cat(padded, dim=1), batch.latents))
    assert attended.shape == (2, 4 + 24 + 1, 6)
    heads = {name: perceiver.decoders[name].output for name in OUTPUTS}
    expected = {
        "audio": heads["audio"](attended[:, :4]).reshape(2, 12),
        "image": heads["image"](attended[:, 4:28]).unflatten(1, (2, 3, 4)).movedim(-1, 2),
        "label": heads["label"](attended[:, 28]),
    }
    torch.testing.assert_close(perceiver.decode(batch), expected, atol=1e-5, rtol=1e-4)
    for name, output in expected.items():  # alone, and in pieces
        alone = perceiver.decode(batch, [name], chunk_size=5)[name]
        torch.testing.assert_close(alone, output, atol=1e-5, rtol=1e-4)


def test_points_of_outputs_that_share_are_entries_of_the_whole() -> None:
    perceiver, batch = model(), encoded()
    whole = perceiver.decode(batch)
    chosen = torch.tensor([7, 0, 23])
    points = perceiver.decode(batch, points={"image": chosen, "audio": torch.tensor([2]), "label": None})
    image = whole["image"].movedim(2, -1).flatten(1, 3)
    torch.testing.assert_close(points["image"], image[:, chosen])
    torch.testing.assert_close(points["audio"], whole["audio"][:, None, 6:9])
    torch.testing.assert_close(points["label"], whole["label"])


# Names in transformers' decoder -> ours.
RENAMED = {
    "modalities.label.decoder.output_position_encodings.position_embeddings": "decoders.label.query.weight",
    "padding.audio": "shared_attention.padding.audio.weight",
    "padding.image": "shared_attention.padding.image.weight",
    "padding.label": "shared_attention.padding.label.weight",
    "decoder.decoding_cross_attention.attention.self.layernorm1": "shared_attention.cross_attend.query_norm",
    "decoder.decoding_cross_attention.attention.self.layernorm2": "shared_attention.cross_attend.input_norm",
    "decoder.decoding_cross_attention.attention.self": "shared_attention.cross_attend.attention",
    "decoder.decoding_cross_attention.attention.output.dense": "shared_attention.cross_attend.attention.output",
    "decoder.decoding_cross_attention.layernorm": "shared_attention.cross_attend.feed_forward_norm",
    "decoder.decoding_cross_attention.mlp.dense1": "shared_attention.cross_attend.feed_forward.hidden",
    "decoder.decoding_cross_attention.mlp.dense2": "shared_attention.cross_attend.feed_forward.output",
    "decoder.final_layer": "shared_attention.output",
}


def reference() -> PerceiverMultimodalDecoder:
    """The decoder of transformers' multimodal autoencoder, as small as ours."""
    config = PerceiverConfig(d_latents=8, hidden_act="gelu_new")
    common = {"position_encoding_only": True, "use_query_residual": False}

    def fourier(num_bands: int, max_resolution: tuple[int, ...]) -> dict[str, Any]:
        return {
            "position_encoding_type": "fourier",
            "fourier_position_encoding_kwargs": {
                "num_bands": num_bands,
                "max_resolution": max_resolution,
                "sine_only": False,
                "concat_pos": True,
            },
        }

    image = PerceiverBasicVideoAutoencodingDecoder(
        config, output_shape=[2, 2, 3, 4], output_num_channels=6, **common, **fourier(2, (2, 4, 4))
    )
    audio = PerceiverBasicDecoder(
        config, output_index_dims=(4,), output_num_channels=6, **common, **fourier(3, (12,))
    )
    label = PerceiverClassificationDecoder(
        config,
        num_channels=11,
        position_encoding_type="trainable",
        trainable_position_encoding_kwargs={"num_channels": 11, "index_dims": 1},
        **common,
    )
    return PerceiverMultimodalDecoder(
        config,
        modalities={"audio": audio, "image": image, "label": label},
        num_outputs=29,
        output_num_channels=6,
        use_query_residual=False,
    )


def test_agrees_with_transformers_at_the_points_that_it_decodes() -> None:
    perceiver, theirs, batch = model(), reference().eval(), encoded()
    tensors = dict(perceiver.named_parameters())
    loaded = set()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            theirs_prefix = next(prefix for prefix in RENAMED if name.startswith(prefix))
            ours = name.replace(theirs_prefix, RENAMED[theirs_prefix])
            parameter.copy_(tensors[ours])
            loaded.add(ours)
    kept = {name for name in tensors if name.startswith("shared_attention")} | {"decoders.label.query.weight"}
    assert loaded == kept
    points = {"image": torch.tensor([3, 17, 20]), "audio": torch.tensor([1, 3])}
    sizes = {"audio": 2, "image": 3, "label": 1}
    query = theirs.decoder_query(
        torch.zeros(2, 6, 1), modality_sizes=sizes, subsampled_points={**points, "label": None}
    )
    attended = dict(zip(sizes, theirs(query, batch.latents).logits.split([2, 3, 1], dim=1), strict=True))
    # theirs places points at -1 + 2 i / n, for each of its outputs
    stepped = copy.deepcopy(perceiver)
    stepped.decoders["audio"].config = DenseDecoder.Config(
        **OUTPUTS["audio"].to_dict() | {"spacing": "steps"}
    )
    ours = stepped.decode(batch, points={**points, "label": None})
    for name, output in ours.items():
        expected = perceiver.decoders[name].output(attended[name])
        torch.testing.assert_close(output, expected.squeeze(1) if name == "label" else expected)


def test_decoders_that_share_have_no_attention_of_their_own(tmp_path: Path) -> None:
    perceiver = model()
    names = [name for name in perceiver.state_dict() if name.startswith("decoders.")]
    assert names == [
        "decoders.audio.output.weight",
        "decoders.audio.output.bias",
        "decoders.image.output.weight",
        "decoders.image.output.bias",
        "decoders.label.query.weight",
        "decoders.label.output.weight",
        "decoders.label.output.bias",
    ]
    perceiver.save_pretrained(tmp_path)
    twin = PerceiverIO.from_pretrained(tmp_path, adapters={"elements": ElementsAdapter})
    batch = encoded()
    assert twin.config.shared_attention == perceiver.config.shared_attention
    assert torch.equal(twin.decode(batch)["image"], perceiver.decode(batch)["image"])


def test_every_parameter_of_a_shared_attention_learns() -> None:
    perceiver = model().train()
    outputs = perceiver({"x": torch.randn(2, 3, 4)}).outputs
    sum(output.square().sum() for output in outputs.values()).backward()
    assert [name for name, parameter in perceiver.named_parameters() if parameter.grad is None] == []
    audio = perceiver.shared_attention.padding["audio"].weight.grad
    perceiver.zero_grad()
    perceiver.decode(perceiver.encode({"x": torch.randn(2, 3, 4)}), ["image"])["image"].sum().backward()
    assert audio.any()
    assert perceiver.shared_attention.padding["audio"].weight.grad is None  # the others' is their own


def test_the_memory_budget_counts_the_shared_width() -> None:
    """A narrow output's queries are as wide as the widest output's once they are padded."""
    narrow = DenseDecoder(
        DenseDecoder.Config(output_channels=1, grid=(2000,), num_bands=2),
        DecoderParts(latent_channels=8, attended_channels=4),
    ).eval()
    sizes: list[int] = []
    config = SharedAttentionConfig(outputs=("narrow", "wide"), output_channels=4, qk_channels=8)
    shared = SharedAttention(
        config, query_channels={"narrow": narrow.num_query_channels, "wide": 300}, latent_channels=8
    )
    shared.cross_attend.feed_forward_norm.register_forward_hook(
        lambda _module, inputs, _output: sizes.append(inputs[0].numel() * 4)
    )
    budget = 100_000
    with torch.no_grad():
        narrow(encoded(), DecoderRequest(attention=shared.of("narrow"), memory_budget=budget))
    assert sum(sizes) == 2 * 2000 * 302 * 4
    # padded, normed, and the feed-forward's four arrays of the same width
    assert budget / 12 < max(sizes) < budget / 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_runs_in_other_types(dtype: torch.dtype) -> None:
    perceiver, batch = model(), encoded()
    expected = perceiver.decode(batch)
    converted = Encoded(latents=batch.latents.to(dtype), byte_arrays={})
    tolerance = 1e-4 if dtype == torch.float64 else 0.2
    for name, output in perceiver.to(dtype).decode(converted).items():
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outputs": ()}, r"must name one output or more, each once, got \(\)"),
        ({"outputs": ("image", "image")}, "each once, got"),
        ({"output_channels": 0}, "SharedAttentionConfig.output_channels must be at least 1, got 0"),
        ({"min_padding": 0}, "SharedAttentionConfig.min_padding must be at least 1, got 0"),
        ({"num_heads": 0}, "SharedAttentionConfig.num_heads must be at least 1, got 0"),
        ({"widening_factor": 0}, "SharedAttentionConfig.widening_factor must be at least 1, got 0"),
        ({"dropout": 1.5}, r"SharedAttentionConfig.dropout must be in \[0, 1\), got 1.5"),
        ({"attention_dropout": 1.0}, r"SharedAttentionConfig.attention_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedAttentionConfig(**{"outputs": ("image",), "output_channels": 6} | fields)


def test_settings_survive_json() -> None:
    config = SharedAttentionConfig(outputs=("b", "a"), output_channels=6, min_padding=3)
    read = SharedAttentionConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert read.outputs == ("b", "a")


def test_outputs_that_are_not_there_or_have_no_queries_are_refused() -> None:
    fields: dict[str, Any] = {
        "inputs": {"x": ElementsAdapter.Config(num_channels=4)},
        "encoder": EncoderConfig(num_latents=5, latent_channels=8),
        "outputs": OUTPUTS | {"pooled": PooledClassificationDecoder.Config(num_classes=2)},
        "adapters": {"elements": ElementsAdapter},
    }
    with pytest.raises(ValueError, match=r"shared_attention.outputs names \['flow'\], but there are only"):
        PerceiverIOConfig(
            **fields, shared_attention=SharedAttentionConfig(outputs=("flow", "image"), output_channels=6)
        )
    config = PerceiverIOConfig(
        **fields, shared_attention=SharedAttentionConfig(outputs=("pooled", "image"), output_channels=6)
    )
    with pytest.raises(ValueError, match="'pooled' cannot share an attention: PooledClassificationDecoder"):
        PerceiverIO(config)

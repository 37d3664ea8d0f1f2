"""The encoder: which cross-attends and blocks run in which order, with which weights."""

from typing import Any

import pytest
import torch

from perceiver_io import ByteArray, Encoder, EncoderConfig


def config(**fields: Any) -> EncoderConfig:
    defaults = {
        "num_latents": 3,
        "latent_channels": 8,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
    }
    return EncoderConfig(**defaults | fields)


def byte_array(**fields: Any) -> ByteArray:
    return ByteArray(**{"values": torch.randn(2, 5, 6), "num_content_channels": 6} | fields)


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({"num_blocks": 3}, "x0 b0 b0 b0"),
        ({"num_blocks": 3, "share_blocks": "none"}, "x0 b0 b1 b2"),
        ({"num_blocks": 3, "share_blocks": "after_first"}, "x0 b0 b1 b1"),
        ({"num_blocks": 4, "num_cross_attends": 2}, "x0 b0 b0 x1 b0 b0"),
        ({"num_blocks": 3, "num_cross_attends": 2, "share_blocks": "none"}, "x0 b0 x1 b1 b2"),
        ({"num_blocks": 3, "num_cross_attends": 3, "share_cross_attends": "all"}, "x0 b0 x0 b0 x0 b0"),
        (
            {"num_blocks": 3, "num_cross_attends": 3, "share_cross_attends": "after_first"},
            "x0 b0 x1 b0 x1 b0",
        ),
        (
            {"num_blocks": 8, "num_cross_attends": 8, "share_cross_attends": "after_first"},
            "x0 b0" + " x1 b0" * 7,
        ),
    ],
)
def test_order_and_sharing(fields: dict[str, Any], order: str) -> None:
    encoder = Encoder(config(**fields), input_channels=6, content_channels=[2])
    names = {module: f"x{index}" for index, module in enumerate(encoder.cross_attends)}
    names |= {module: f"b{index}" for index, module in enumerate(encoder.blocks)}
    ran: list[str] = []
    for module in names:
        module.register_forward_hook(lambda module, *_: ran.append(names[module]))
    array = byte_array()
    latents = encoder(array)
    assert " ".join(ran) == order
    assert set(ran) == set(names.values())

    expected = encoder.latents().expand(2, -1, -1)
    for name in order.split():
        index = int(name[1:])
        if name.startswith("x"):
            expected = encoder.cross_attends[index](expected, array.values)
        else:
            expected = encoder.blocks[index](expected)
    torch.testing.assert_close(latents, expected)


def test_observer_sees_each_cross_attend_before_it_runs() -> None:
    encoder = Encoder(config(num_blocks=2, num_cross_attends=2), input_channels=6, content_channels=[2])
    seen: list[tuple[Any, torch.Tensor]] = []
    encoder(byte_array(), on_cross_attend=lambda *arguments: seen.append(arguments))
    assert [module for module, _ in seen] == list(encoder.cross_attends)
    torch.testing.assert_close(seen[0][1], encoder.latents().expand(2, -1, -1))
    assert not torch.equal(seen[1][1], seen[0][1])


def test_masked_elements_change_nothing_at_any_cross_attend() -> None:
    encoder = Encoder(config(num_blocks=2, num_cross_attends=2), input_channels=6, content_channels=[2])
    mask = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    array = byte_array(mask=mask)
    other = ByteArray(
        values=torch.where(mask.unsqueeze(-1), array.values, 7.0), mask=mask, num_content_channels=6
    )
    torch.testing.assert_close(encoder(array), encoder(other))
    short = ByteArray(values=array.values[:1, mask[0]], num_content_channels=6)
    torch.testing.assert_close(encoder(array)[:1], encoder(short))


def test_order_of_elements_does_not_matter() -> None:
    encoder = Encoder(config(), input_channels=6, content_channels=[2])
    array = byte_array()
    shuffled = ByteArray(values=array.values[:, torch.randperm(5)], num_content_channels=6)
    torch.testing.assert_close(encoder(array), encoder(shuffled))


def test_settings_reach_the_layers() -> None:
    encoder = Encoder(
        config(
            num_cross_attention_heads=2,
            cross_attention_qk_channels=4,
            cross_attention_v_channels=6,
            self_attention_qk_channels=12,
            self_attention_v_channels=10,
            cross_attention_widening_factor=2,
            self_attention_widening_factor=3,
            use_query_residual=False,
            activation="gelu_tanh",
            dropout=0.1,
            attention_dropout=0.2,
            latent_std=0.5,
            num_latents=500,
        ),
        input_channels=6,
        content_channels=[2],
    )
    cross, own = encoder.cross_attends[0], encoder.blocks[0].layers[0]
    assert (cross.attention.num_heads, own.attention.num_heads) == (2, 2)
    assert (cross.attention.query.out_features, cross.attention.value.out_features) == (4, 6)
    assert (own.attention.query.out_features, own.attention.value.out_features) == (12, 10)
    assert (cross.feed_forward.hidden.out_features, own.feed_forward.hidden.out_features) == (16, 24)
    assert cross.use_query_residual is False
    for layer in (cross, own):
        assert layer.feed_forward.activation.approximate == "tanh"
        assert (layer.dropout.p, layer.attention.dropout) == (0.1, 0.2)
    assert encoder.latents.weight.std().item() == pytest.approx(0.5, rel=0.05)


def scale(weight: torch.Tensor) -> float:
    """Standard deviation of what a linear layer makes of unit inputs."""
    return weight.square().sum(dim=1).mean().sqrt().item()


@pytest.mark.parametrize("gain", [1.0, 4.0])
@pytest.mark.parametrize("init", ["balanced", "fan_in"])
def test_initial_projections_keep_unit_variance_but_for_the_gain(init: str, gain: float) -> None:
    settings = config(latent_channels=128, cross_attention_init=init, cross_attention_query_gain=gain)
    encoder = Encoder(settings, input_channels=256, content_channels=[3])
    cross, own = encoder.cross_attends[0].attention, encoder.blocks[0].layers[0].attention
    assert scale(cross.query.weight) == pytest.approx(gain, rel=0.05)
    for layer in (cross.key, cross.value, cross.output, own.query, own.key, own.value, own.output):
        assert scale(layer.weight) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("init", "content_channels", "share"),
    [
        ("fan_in", [3], 3 / 256),
        ("balanced", [3], 1 / 2),
        ("balanced", [256], 3 / 256),
        ("balanced", [0], 3 / 256),
        # One input of 3 content channels, one of nothing else: (1/2 + 3/256) / 2 lies in the first three.
        ("balanced", [3, 256], (1 / 2 + 3 / 256) / 2),
    ],
)
def test_initial_share_of_the_content(init: str, content_channels: list[int], share: float) -> None:
    """The part of the keys' and values' variance that the first three channels give."""
    settings = config(cross_attention_qk_channels=512, cross_attention_init=init)
    encoder = Encoder(settings, input_channels=256, content_channels=content_channels)
    attention = encoder.cross_attends[0].attention
    for layer in (attention.key, attention.value):
        first_three = scale(layer.weight[:, :3]) ** 2 / scale(layer.weight) ** 2
        assert first_three == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_latents": 0}, "num_latents must be at least 1, got 0"),
        ({"num_self_attention_heads": 0}, "num_self_attention_heads must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout must be in \[0, 1\), got -0.1"),
        (
            {"num_cross_attends": 3, "num_blocks": 2},
            "must not exceed num_blocks.*3 cross-attends and 2 blocks",
        ),
        ({"share_blocks": "some"}, "share_blocks must be one of 'none', 'all', 'after_first', got 'some'"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 heads, got 8"):
        Encoder(config(num_self_attention_heads=3), input_channels=6, content_channels=[2])

"""Attention maps: the weights that SDPA really uses, and a split that sums to the logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from perceiver_io import AttentionMap, ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.cross_attention import CrossAttention
from perceiver_io.testing import ElementsAdapter


def model(*, inputs: dict[str, Any] | None = None, **encoder: Any) -> PerceiverIO:
    """A model with every parameter far from its initial value: biases and layer norms count."""
    if inputs is None:
        inputs = {"image": ImageAdapter.Config(size=(4, 6), num_bands=3)}
    fields = {
        "num_latents": 5,
        "latent_channels": 8,
        "num_blocks": 3,
        "num_cross_attends": 3,
        "share_cross_attends": "after_first",
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_qk_channels": 12,
        "cross_attention_v_channels": 6,
    }
    config = PerceiverIOConfig(
        inputs=inputs,
        encoder=EncoderConfig(**fields | encoder),
        outputs={"label": ClassificationDecoder.Config(num_classes=3)},
        adapters={"elements": ElementsAdapter},
    )
    perceiver = PerceiverIO(config).eval()
    with torch.no_grad():
        for parameter in perceiver.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    return perceiver


IMAGE_AND_AUDIO = {
    "image": ImageAdapter.Config(size=(4, 6), num_bands=3),
    "audio": ElementsAdapter.Config(num_channels=4, num_content_channels=3),
}


@contextmanager
def recorded_logits(perceiver: PerceiverIO) -> Iterator[list[torch.Tensor]]:
    """Products of queries and keys, each head on its own, of what goes into the cross-attends as the model runs."""
    logits: list[torch.Tensor] = []

    def multiply(cross_attend: CrossAttention, arguments: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        latents, values, *_ = arguments
        attention = cross_attend.attention
        queries = attention.query(cross_attend.query_norm(latents))
        keys = attention.key(cross_attend.input_norm(values))
        heads = [x.chunk(attention.num_heads, dim=-1) for x in (queries, keys)]
        products = [q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 for q, k in zip(*heads, strict=True)]
        logits.append(torch.stack(products, dim=1))

    handles = [
        cross_attend.register_forward_hook(multiply) for cross_attend in perceiver.encoder.cross_attends
    ]
    try:
        yield logits
    finally:
        for handle in handles:
            handle.remove()


def joined(parts: Any) -> torch.Tensor:
    """(B, H, N, M): the inputs' parts side by side, in the order in which they are packed."""
    return torch.cat([parts[name].flatten(3) for name in sorted(parts)], dim=-1)


def logits_of(attention_map: AttentionMap) -> torch.Tensor:
    return joined(attention_map.content) + joined(attention_map.position) + attention_map.bias.unsqueeze(-1)


@pytest.mark.parametrize("several", [False, True])
def test_parts_sum_to_the_logits(several: bool) -> None:
    perceiver = model(inputs=IMAGE_AND_AUDIO if several else None)
    inputs = {"image": torch.randn(2, 3, 4, 6)}
    if several:
        inputs["audio"] = torch.randn(2, 7, 4)
    with torch.no_grad(), recorded_logits(perceiver) as expected:
        perceiver.encode(inputs)
    maps = perceiver.attention_maps(inputs)
    assert len(maps) == len(expected) == 3
    for attention_map, logits in zip(maps, expected, strict=True):
        assert logits.shape == (2, 2, 5, 24 + 7 * several)
        torch.testing.assert_close(logits_of(attention_map), logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(joined(attention_map.weights), logits.softmax(-1), atol=1e-5, rtol=1e-5)
        for part in (joined(attention_map.content), joined(attention_map.position), attention_map.bias):
            assert part.std() > 0.1  # none of them is there only in name


def test_parts_sum_to_the_logits_within_1e_5_at_initialisation() -> None:
    """The defaults as they are, at the size of a real map."""
    config = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=(32, 32), num_bands=16)},
        encoder=EncoderConfig(num_latents=16, latent_channels=64, num_blocks=1, num_self_attends_per_block=1),
        outputs={"label": ClassificationDecoder.Config(num_classes=3)},
    )
    perceiver = PerceiverIO(config).eval()
    inputs = {"image": torch.randn(1, 3, 32, 32)}
    with torch.no_grad(), recorded_logits(perceiver) as expected:
        perceiver.encode(inputs)
    (attention_map,) = perceiver.attention_maps(inputs)
    assert (logits_of(attention_map) - expected[0]).abs().max() < 1e-5


def test_position_part_is_that_of_the_positions() -> None:
    """Content that changes without changing an element's mean and variance leaves the position part alone."""
    perceiver = model(num_cross_attends=1, num_blocks=1)
    image = torch.randn(1, 3, 4, 6)
    (before,) = perceiver.attention_maps({"image": image})
    (after,) = perceiver.attention_maps({"image": image.flip(1)})
    torch.testing.assert_close(before.position["image"], after.position["image"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before.content["image"], after.content["image"], atol=1e-2)


def test_without_positions_there_is_no_position_part() -> None:
    perceiver = model(inputs={"image": ImageAdapter.Config(size=(4, 6), position="none")})
    for attention_map in perceiver.attention_maps({"image": torch.randn(2, 3, 4, 6)}):
        assert not attention_map.position["image"].any()
        assert attention_map.content["image"].any()


def test_maps_are_the_weights_of_sdpa() -> None:
    """With one-hot elements as values, what SDPA returns is its weights."""
    perceiver = model(num_cross_attends=1, num_blocks=1)
    mask = torch.ones(2, 4, 6, dtype=torch.bool)
    mask[0, 2:] = False
    inputs, masks = {"image": torch.randn(2, 3, 4, 6)}, {"image": mask}
    (attention_map,) = perceiver.attention_maps(inputs, masks)

    attention = perceiver.encoder.cross_attends[0].attention
    one_hot = torch.eye(24).repeat(1, 2).expand(2, -1, -1)
    attended: list[torch.Tensor] = []
    attention.value.register_forward_hook(lambda *_: one_hot)
    attention.output = nn.Linear(2 * 24, 8)
    attention.output.register_forward_pre_hook(lambda module, arguments: attended.append(arguments[0]))
    with torch.no_grad():
        perceiver.encode(inputs, masks)
    expected = attended[0].unflatten(-1, (2, 24)).transpose(1, 2)
    torch.testing.assert_close(attention_map.weights["image"].flatten(3), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_weights_sum_to_one_over_all_inputs(masked: bool) -> None:
    perceiver = model(inputs=IMAGE_AND_AUDIO)
    inputs = {"image": torch.randn(2, 3, 4, 6), "audio": torch.randn(2, 7, 4)}
    masks = {"audio": torch.tensor([[True] * 3 + [False] * 4, [False] * 7])} if masked else None
    maps = perceiver.attention_maps(inputs, masks)
    for attention_map in maps:
        assert attention_map.weights["image"].shape == (2, 2, 5, 4, 6)
        assert attention_map.weights["audio"].shape == (2, 2, 5, 7)
        torch.testing.assert_close(joined(attention_map.weights).sum(-1), torch.ones(2, 2, 5))
        assert (joined(attention_map.weights) >= 0).all()
        audio = attention_map.weights["audio"]
        if masked:
            assert not audio[0, ..., 3:].any() and not audio[1].any()
            assert audio[0, ..., :3].all()
        else:
            assert audio.all()


def test_maps_follow_the_grid_row_by_row() -> None:
    perceiver = model()
    image, mask = torch.randn(1, 3, 3, 5), torch.zeros(1, 3, 5, dtype=torch.bool)
    mask[0, 1, 3] = mask[0, 2, 0] = True
    for attention_map in perceiver.attention_maps({"image": image}, {"image": mask}):
        weights = attention_map.weights["image"]
        assert weights.shape == (1, 2, 5, 3, 5)
        assert torch.equal(weights.sum((0, 1, 2)) > 0, mask[0])


def test_chosen_latents_are_a_selection() -> None:
    perceiver, inputs = model(), {"image": torch.randn(2, 3, 4, 6)}
    every, some = perceiver.attention_maps(inputs), perceiver.attention_maps(inputs, latents=[3, 0])
    for whole, part in zip(every, some, strict=True):
        torch.testing.assert_close(part.weights["image"], whole.weights["image"][:, :, [3, 0]])
        torch.testing.assert_close(part.content["image"], whole.content["image"][:, :, [3, 0]])
        torch.testing.assert_close(part.position["image"], whole.position["image"][:, :, [3, 0]])
        torch.testing.assert_close(part.bias, whole.bias[:, :, [3, 0]])


@pytest.mark.parametrize("latents", [[5], [-1], [0, 99]])
def test_latents_out_of_range_are_refused(latents: list[int]) -> None:
    with pytest.raises(ValueError, match="latents 0 to 4, got"):
        model().attention_maps({"image": torch.randn(2, 3, 4, 6)}, latents=latents)


@pytest.mark.parametrize("training", [False, True])
def test_maps_take_no_gradient_and_no_dropout_and_leave_the_mode(training: bool) -> None:
    perceiver = model(dropout=0.5, attention_dropout=0.5).train(training)
    inputs = {"image": torch.randn(2, 3, 4, 6)}
    first, second = perceiver.attention_maps(inputs), perceiver.attention_maps(inputs)
    assert not first[-1].weights["image"].requires_grad
    assert torch.equal(first[-1].weights["image"], second[-1].weights["image"])
    assert {module.training for module in perceiver.modules()} == {training}


def test_an_absent_input_has_no_map() -> None:
    perceiver = model(inputs=IMAGE_AND_AUDIO)
    for attention_map in perceiver.attention_maps({"audio": torch.randn(2, 7, 4)}):
        assert list(attention_map.weights) == ["audio"]
        torch.testing.assert_close(attention_map.weights["audio"].sum(-1), torch.ones(2, 2, 5))


def test_maps_of_indices_in_half_precision() -> None:
    """Indices do not say in which type the model computes."""
    config = PerceiverIOConfig(
        inputs={"label": LabelAdapter.Config(num_classes=4)},
        encoder=EncoderConfig(num_latents=3, latent_channels=8, num_self_attends_per_block=1),
        outputs={"label": ClassificationDecoder.Config(num_classes=4)},
    )
    perceiver = PerceiverIO(config).eval()
    (expected,) = perceiver.attention_maps({"label": torch.tensor([1, 3])})
    (found,) = perceiver.bfloat16().attention_maps({"label": torch.tensor([1, 3])})
    torch.testing.assert_close(found.content["label"], expected.content["label"], atol=0.05, rtol=0.05)

"""Byte arrays, and packing several into one."""

import json
from typing import Any

import pytest
import torch

from perceiver_io import ByteArray
from perceiver_io.byte_array import ByteArrayPacker, PackingConfig


def byte_array(batch_size: int, num_elements: int, num_channels: int, **fields: Any) -> ByteArray:
    values = torch.randn(batch_size, num_elements, num_channels)
    return ByteArray(**{"values": values, "num_content_channels": num_channels} | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": torch.zeros(2, 3)}, r"must be \(B, M, C\), got the shape \(2, 3\)"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"must be \(2, 6\) \(B, M\), got \(2, 4\)"),
        ({"mask": torch.ones(2, 6)}, "must be bool"),
        ({"grid": (2, 2)}, r"grid \(2, 2\) has 4 elements, the values 6"),
        ({"num_content_channels": 6}, "between 0 and 5, got 6"),
        ({"num_content_channels": -1}, "between 0 and 5, got -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        byte_array(2, 6, 5, **fields)


def test_one_input_alone_passes_unchanged() -> None:
    packer = ByteArrayPacker({"image": 5})
    image = byte_array(2, 6, 5, grid=(2, 3))
    packed, segments = packer({"image": image})
    assert packed is image
    assert packer.num_channels == 5
    assert list(packer.parameters()) == []
    assert (segments["image"].start, segments["image"].length, segments["image"].grid) == (0, 6, (2, 3))


def test_several_inputs_are_widened_and_joined_by_name() -> None:
    packer = ByteArrayPacker({"video": 5, "audio": 3}, config=PackingConfig(min_padding=2))
    audio = byte_array(2, 4, 3, num_content_channels=1)
    video = byte_array(2, 6, 5, grid=(2, 3), num_content_channels=2)
    packed, segments = packer({"video": video, "audio": audio})
    assert packer.num_channels == 7
    assert packed.values.shape == (2, 10, 7)
    assert packed.mask is None
    torch.testing.assert_close(packed.values[:, :4, :3], audio.values)
    torch.testing.assert_close(packed.values[:, 4:, :5], video.values)
    for name, part in (("audio", packed.values[:, :4, 3:]), ("video", packed.values[:, 4:, 5:])):
        torch.testing.assert_close(part, packer.padding[name]().expand(*part.shape))
    assert list(segments) == ["audio", "video"]
    assert (segments["video"].start, segments["video"].length) == (4, 6)
    assert (segments["video"].grid, segments["video"].num_content_channels) == ((2, 3), 2)


def test_every_input_has_padding_of_its_own() -> None:
    packer = ByteArrayPacker({"a": 4, "b": 4})
    packed, _ = packer({"a": byte_array(1, 1, 4), "b": byte_array(1, 1, 4)})
    assert packed.values[0, 0, 4] != packed.values[0, 1, 4]


def test_masks_are_joined_and_missing_ones_are_true() -> None:
    packer = ByteArrayPacker({"a": 2, "b": 3})
    mask = torch.tensor([[True, False, True]])
    packed, _ = packer({"a": byte_array(1, 2, 2), "b": byte_array(1, 3, 3, mask=mask)})
    assert packed.mask is not None
    assert packed.mask.tolist() == [[True, True, True, False, True]]


def test_an_absent_input_is_left_out() -> None:
    packer = ByteArrayPacker({"a": 2, "b": 3})
    packed, segments = packer({"b": byte_array(1, 3, 3)})
    assert packed.values.shape == (1, 3, 4)
    assert list(segments) == ["b"]
    assert segments["b"].start == 0


def test_no_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one input"):
        ByteArrayPacker({})


def masking(*probabilities: tuple[str, float], **fields: Any) -> ByteArrayPacker:
    return ByteArrayPacker(
        {"audio": 3, "label": 4, "video": 5},
        config=PackingConfig(mask_probabilities=probabilities),
        **fields,
    )


def three(batch_size: int = 2, **masks: torch.Tensor) -> dict[str, ByteArray]:
    sizes = {"audio": (4, 3), "label": (1, 4), "video": (6, 5)}
    return {name: byte_array(batch_size, *size, mask=masks.get(name)) for name, size in sizes.items()}


@pytest.mark.parametrize("training", [False, True])
def test_an_input_that_is_always_masked_is_its_token(training: bool) -> None:
    packer = masking(("label", 1.0)).train(training)
    parts = three()
    packed, segments = packer(parts)
    token = packer.mask_tokens["label"].weight
    assert token.shape == (1, packer.num_channels)
    assert torch.equal(packed.values[:, 4:5], token.expand(2, 1, -1))
    assert packed.mask is None
    assert segments["label"].start == 4
    others, _ = masking()(parts)
    for name, end in (("audio", 3), ("video", 5)):
        part = slice(segments[name].start, segments[name].start + segments[name].length)
        assert torch.equal(packed.values[:, part, :end], others.values[:, part, :end])


def test_a_probability_of_zero_has_a_token_and_does_not_use_it() -> None:
    packer = masking(("video", 0.0)).train()
    plain = masking()
    plain.load_state_dict(packer.state_dict(), strict=False)
    mask = torch.tensor([[True] * 5 + [False]] * 2)
    parts = three(video=mask)
    ours, theirs = packer(parts)[0], plain(parts)[0]
    assert set(packer.state_dict()) - set(plain.state_dict()) == {"mask_tokens.video.weight"}
    assert torch.equal(ours.values, theirs.values)
    assert ours.mask is not None and theirs.mask is not None
    assert torch.equal(ours.mask, theirs.mask)


def test_training_masks_elements_at_random() -> None:
    packer = ByteArrayPacker(
        {"audio": 3, "video": 5}, config=PackingConfig(mask_probabilities=(("video", 0.3),))
    )
    video = byte_array(40, 100, 5)
    packed, segments = packer({"audio": byte_array(40, 2, 3), "video": video})
    values = packed.values[:, segments["video"].start :]
    is_token = (values == packer.mask_tokens["video"].weight).all(-1)
    assert torch.equal(values[~is_token][:, :5], video.values[~is_token])
    assert not (packed.values[:, :2] == packer.mask_tokens["video"].weight).all(-1).any()
    share = is_token.double()
    assert share.mean().item() == pytest.approx(0.3, abs=0.03)  # 4 standard deviations of 4,000 draws
    # Independent over samples and elements: the shares of samples and of places scatter as a binomial's.
    for axis, count in ((1, 100), (0, 40)):
        scatter = share.mean(dim=axis).std().item() / (0.3 * 0.7 / count) ** 0.5
        assert scatter == pytest.approx(1, abs=0.35)
    again, _ = packer({"audio": byte_array(40, 2, 3), "video": video})
    assert not torch.equal(again.values[:, 2:], values)
    first, _ = packer.eval()({"audio": byte_array(40, 2, 3), "video": video})
    assert torch.equal(first.values[:, 2:, :5], video.values)


@pytest.mark.parametrize("probability", [0.5, 1.0])
@pytest.mark.parametrize("training", [False, True])
def test_masked_elements_are_shown_as_tokens(training: bool, probability: float) -> None:
    packer = masking(("video", probability)).train(training)
    mask = torch.tensor([[True, False, True, True, False, True], [True, True, True, True, False, False]])
    parts = three(video=mask)
    packed, _ = packer(parts)
    assert packed.mask is None  # the tokens are to be seen
    token = packer.mask_tokens["video"].weight
    assert torch.equal(packed.values[:, 5:][~mask], token.expand(4, -1))
    if not training and probability < 1:
        assert torch.equal(packed.values[:, 5:][mask][:, :5], parts["video"].values[mask])


def test_masks_of_inputs_without_tokens_stay_masks() -> None:
    mask = torch.tensor([[True, False, True, True]] * 2)
    packed, _ = masking(("label", 1.0))(three(audio=mask))
    assert packed.mask is not None
    assert packed.mask.tolist() == [[True, False, True, True] + [True] * 7] * 2


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_tokens_stand_for_a_lacking_input_of_fixed_size(probability: float) -> None:
    packer = masking(("label", probability), num_elements={"label": 2}).eval()
    parts = three()
    del parts["label"]
    packed, segments = packer(parts)
    assert list(segments) == ["audio", "label", "video"]
    label = segments["label"]
    assert (label.start, label.length, label.grid, label.num_content_channels) == (4, 2, (2,), 0)
    assert packed.values.shape == (2, 12, packer.num_channels)
    assert torch.equal(packed.values[:, 4:6], packer.mask_tokens["label"].weight.expand(2, 2, -1))
    packed.values.sum().backward()
    assert packer.mask_tokens["label"].weight.grad is not None


@pytest.mark.parametrize(
    "packer",
    [
        masking(("label", 1.0)),  # of no fixed size
        masking(("label", 0.0), num_elements={"label": 2}),  # never masked
        masking(num_elements={"label": 2}),  # without a token
    ],
)
def test_other_lacking_inputs_are_left_out(packer: ByteArrayPacker) -> None:
    parts = three()
    del parts["label"]
    packed, segments = packer(parts)
    assert list(segments) == ["audio", "video"]
    assert packed.values.shape[1] == 10


def test_one_input_alone_may_have_a_token() -> None:
    packer = ByteArrayPacker({"text": 4}, config=PackingConfig(mask_probabilities=(("text", 0.5),))).eval()
    mask = torch.tensor([[True, True, False]])
    text = byte_array(1, 3, 4, mask=mask, grid=(3,))
    packed, _ = packer({"text": text})
    assert packer.num_channels == 4
    assert packed.grid == (3,)
    assert packed.mask is None
    assert torch.equal(packed.values[0, :2], text.values[0, :2])
    assert torch.equal(packed.values[0, 2:], packer.mask_tokens["text"].weight)


def test_tokens_learn_where_they_are_seen_and_hidden_content_does_not() -> None:
    packer = masking(("label", 1.0))
    parts = three()
    label = torch.randn(2, 1, 4, requires_grad=True)
    parts["label"] = ByteArray(values=label, num_content_channels=4)
    packer(parts)[0].values.square().sum().backward()
    token = packer.mask_tokens["label"].weight
    torch.testing.assert_close(token.grad, 2 * 2 * token)
    assert label.grad is not None and not label.grad.any()
    assert [name for name, parameter in packer.named_parameters() if parameter.grad is None] == []


def test_what_is_hidden_is_where_the_token_stands() -> None:
    packer = masking(("audio", 0.5), ("label", 1.0), ("video", 0.0)).train()
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    video_mask = torch.tensor([[True] * 5 + [False]] * 2)
    seen = torch.zeros(2, 4)
    for _ in range(20):
        packed, segments = packer(three(audio=mask, video=video_mask))
        for name in ("audio", "label"):
            segment, token = segments[name], packer.mask_tokens[name].weight
            values = packed.values[:, segment.start : segment.start + segment.length]
            assert torch.equal(segments[name].hidden, (values == token).all(-1))
        seen += segments["audio"].hidden
    assert (seen[~mask] == 20).all()
    assert (0 < seen[mask]).all() and (seen[mask] < 20).all()
    assert segments["label"].hidden.all()
    # With a probability of zero its token is never seen: what is masked is left out instead.
    assert segments["video"].hidden.dtype == torch.bool and not segments["video"].hidden.any()
    _, segments = packer.eval()(three(audio=mask))
    assert torch.equal(segments["audio"].hidden, ~mask)


def test_inputs_without_tokens_hide_nothing_and_lacking_ones_all() -> None:
    packer = masking(("label", 0.5), num_elements={"label": 2}).eval()
    parts = three()
    del parts["label"]
    _, segments = packer(parts)
    assert segments["audio"].hidden is None and segments["video"].hidden is None
    assert segments["label"].hidden.tolist() == [[True, True]] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_elements_take_the_type_of_tokens_and_padding(dtype: torch.dtype) -> None:
    packer = masking(("label", 1.0), ("video", 0.5), num_elements={"label": 1}).to(dtype).eval()
    parts = {name: part for name, part in three().items() if name != "label"}
    packed = packer(parts)[0].values
    assert packed.dtype == dtype
    expected = masking(("label", 1.0), ("video", 0.5), num_elements={"label": 1}).eval()
    expected.load_state_dict(packer.state_dict())
    torch.testing.assert_close(packed.float(), expected(parts)[0].values, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_padding": -1}, "PackingConfig.min_padding must be 0 or more, got -1"),
        ({"mask_probabilities": (("a", 1.5),)}, r"one probability from 0 to 1 .*\('a', 1.5\)"),
        ({"mask_probabilities": (("a", -0.1),)}, "one probability from 0 to 1"),
        ({"mask_probabilities": (("a", float("nan")),)}, r"mask_probabilities must be .*, got .*nan"),
        ({"mask_probabilities": (("a", 0.1), ("a", 0.2))}, "one probability from 0 to 1 for each input"),
        ({"mask_probabilities": (("a",),)}, "mask_probabilities must be"),
    ],
)
def test_packing_settings_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackingConfig(**fields)


def test_tokens_of_unknown_inputs_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"names \['vide'\], but the inputs are \['audio', 'label', 'video'\]"
    ):
        masking(("vide", 0.5))


def test_packing_settings_survive_json() -> None:
    config = PackingConfig(min_padding=4, mask_probabilities=(("audio", 0.25), ("label", 1)))
    read = PackingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert read.mask_probabilities == (("audio", 0.25), ("label", 1.0))

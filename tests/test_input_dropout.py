"""Inputs that samples lose as a whole while they train."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from perceiver_io import ByteArray, ClassificationDecoder, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters import FeaturesAdapter, LabelAdapter
from perceiver_io.byte_array import ByteArrayPacker, PackingConfig
from perceiver_io.testing.common import tiny_encoder

WIDTHS = {"audio": 3, "label": 4, "video": 5}
LENGTHS = {"audio": 4, "label": 1, "video": 6}


def packer(*dropout: tuple[str, float], **fields: Any) -> ByteArrayPacker:
    return ByteArrayPacker(WIDTHS, config=PackingConfig(input_dropout=dropout, **fields)).train()


def three(batch_size: int, **masks: torch.Tensor) -> dict[str, ByteArray]:
    return {
        name: ByteArray(
            values=torch.randn(batch_size, LENGTHS[name], width),
            mask=masks.get(name),
            num_content_channels=width,
        )
        for name, width in WIDTHS.items()
    }


def kept(module: ByteArrayPacker, parts: dict[str, ByteArray]) -> dict[str, torch.Tensor]:
    """(B,) by name: whether any element of a sample's input is left; and that it is all or none of what was real."""
    packed, segments = module(parts)
    assert packed.mask is not None
    result = {}
    for name, segment in segments.items():
        mask_BM = packed.mask[:, segment.start : segment.start + segment.length]
        before_BM = torch.ones_like(mask_BM) if parts[name].mask is None else parts[name].mask
        result[name] = mask_BM.any(dim=1)
        assert torch.equal(mask_BM, before_BM & result[name][:, None])
    return result


def test_a_sample_loses_an_input_as_a_whole_with_its_probability() -> None:
    left = kept(packer(("audio", 0.3), ("video", 0.6)), three(10_000))
    assert left["label"].all()
    lost_audio, lost_video = ~left["audio"], ~left["video"]
    # Four standard deviations of 10,000 draws, and independent of each other.
    assert lost_audio.double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert lost_video.double().mean().item() == pytest.approx(0.6, abs=0.02)
    assert (lost_audio & lost_video).double().mean().item() == pytest.approx(0.18, abs=0.016)


def test_a_sample_that_would_lose_all_inputs_keeps_one_of_them() -> None:
    left = kept(packer(("audio", 0.5), ("label", 0.5), ("video", 0.5)), three(10_000))
    together = torch.stack(list(left.values()), dim=1)
    counts = together.sum(dim=1).bincount(minlength=4) / len(together)
    # Of 8 equally likely cases one has all, three have two, and three have one; the eighth keeps one.
    torch.testing.assert_close(counts, torch.tensor([0, 4, 3, 1]) / 8, atol=0.02, rtol=0)
    alone = together[together.sum(dim=1) == 1].float().mean(dim=0)
    torch.testing.assert_close(alone, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_what_is_lost_less_often_is_kept_more_often() -> None:
    masks = {"label": torch.zeros(10_000, 1, dtype=torch.bool)}
    left = kept(packer(("audio", 0.5), ("label", 0.0), ("video", 1.0)), three(10_000, **masks))
    # The video is lost unless the sound is, too: then both draws are uniform in units of their probability, and either
    # is kept as often.
    assert not (left["audio"] & left["video"]).any()
    assert left["video"].double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_inputs_that_a_sample_lacks_do_not_count_as_left() -> None:
    masks = {
        "label": torch.tensor([[False], [True], [False]]),
        "video": torch.tensor([[False] * 6, [False] * 6, [True] + [False] * 5]),
    }
    module = packer(("audio", 1.0), ("video", 1.0))
    left = kept(module, three(3, **masks))
    # The first has its audio alone; the second loses it; the third would lose both, and keeps one.
    assert (left["audio"].tolist()[:2], left["video"].tolist()[:2]) == ([True, False], [False, False])
    assert left["label"].tolist() == [False, True, False]
    assert left["audio"][2] != left["video"][2]


def test_an_input_that_the_batch_lacks_is_no_matter() -> None:
    parts = three(2)
    del parts["label"], parts["video"]
    packed, segments = packer(("audio", 1.0), ("video", 1.0))(parts)
    assert list(segments) == ["audio"] and packed.mask is not None and packed.mask.all()


def test_mask_tokens_stand_for_what_is_lost() -> None:
    module = packer(("video", 0.5), mask_probabilities=(("video", 0.2),))
    packed, segments = module(three(2000))
    hidden, segment = segments["video"].hidden, segments["video"]
    assert hidden is not None and packed.mask is None
    token = module.mask_tokens["video"].weight
    values = packed.values[:, segment.start : segment.start + segment.length]
    assert torch.equal(hidden, (values == token).all(dim=-1))
    assert hidden.all(dim=1).double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_an_input_that_is_always_a_token_does_not_count_as_left() -> None:
    module = packer(("audio", 1.0), ("video", 1.0), mask_probabilities=(("label", 1.0),))
    left = kept(module, three(500))
    assert (left["audio"] != left["video"]).all() and left["label"].all()


def test_nothing_is_lost_in_evaluation() -> None:
    parts = three(50)
    module = packer(("audio", 0.9), ("video", 0.9)).eval()
    packed, _ = module(parts)
    assert packed.mask is None
    assert module.state_dict().keys() == packer().state_dict().keys()


def test_a_model_loses_the_same_inputs_with_the_same_seed() -> None:
    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model({"a": a, "b": b}).latents

    a, b = torch.randn(16, 3, 4), torch.randn(16, 2)
    torch.manual_seed(0)
    model = PerceiverIO(
        PerceiverIOConfig(
            inputs={"a": FeaturesAdapter.Config(num_features=4), "b": LabelAdapter.Config(num_classes=2)},
            encoder=tiny_encoder(),
            outputs={"y": ClassificationDecoder.Config(num_classes=2)},
            packing=PackingConfig(input_dropout=(("a", 0.5), ("b", 0.5))),
        )
    ).train()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    # Each sample is as if it had the one, the other, or both: what is lost leaves no trace.
    alone = {name: model.encode({name: x}).latents for name, x in (("a", a), ("b", b))}
    alone["both"] = model.eval().encode({"a": a, "b": b}).latents
    model.train()
    latents = run(1)
    found = torch.stack([(one - latents).abs().amax(dim=(1, 2)) < 1e-5 for one in alone.values()])
    assert (found.sum(dim=0) == 1).all() and found.any(dim=1).all()


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ((("a", 1.5),), r"PackingConfig.input_dropout must hold one probability from 0 to 1 .*\('a', 1.5\)"),
        ((("a", 0.1), ("a", 0.2)), "one probability from 0 to 1 for each input"),
        ((("a",),), "input_dropout must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(dropout: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackingConfig(input_dropout=dropout)


def test_unknown_inputs_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"input_dropout names \['vide'\], but the inputs are \['audio', 'label', 'video'\]"
    ):
        packer(("vide", 0.5))


def test_settings_survive_json() -> None:
    config = PackingConfig(input_dropout=(("audio", 0.25),))
    assert PackingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

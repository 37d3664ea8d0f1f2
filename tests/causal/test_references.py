"""Perceiver AR against what both public implementations computed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import perceiver_io as pio
from perceiver_io.causal import LatentCache
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.krasserm import save_krasserm
from tests.causal.goldens import (
    DEEPMIND,
    KRASSERM,
    arrays,
    deepmind_config,
    load_krasserm,
    write_deepmind,
    write_krasserm,
)


def error(found: torch.Tensor, expected: np.ndarray) -> float:
    """The largest difference, in standard deviations of what is expected; NaN there: no such latent."""
    assert tuple(found.shape) == expected.shape
    there = np.isfinite(expected)
    difference = np.abs(found.detach().double().numpy() - expected)[there]
    return float(difference.max() / expected[there].std())


def deepmind(name: str, folder: Path, **sizes: int) -> PerceiverARForCausalLM:
    model = pio.from_deepmind(write_deepmind(name, folder / "checkpoint"), deepmind_config(name, **sizes))
    assert isinstance(model, PerceiverARForCausalLM)
    return model


FORWARD = [
    (output, values)
    for output, values in DEEPMIND["arrays"].items()
    if "events" in values and output.startswith("out_") and "generate" not in output and "what" not in values
]


@pytest.mark.parametrize(("output", "values"), FORWARD, ids=[output for output, _ in FORWARD])
def test_forward_passes_of_the_release(output: str, values: dict, tmp_path: Path) -> None:
    stored = arrays("deepmind")
    model = deepmind(values["model"], tmp_path)
    ids = torch.from_numpy(stored[values["events"]]).long()
    places = stored[values["idxs"]] if values["idxs"] else np.arange(1, 25)[None, :, None].repeat(len(ids), 0)
    if places.shape[2] == 3:  # x, y and channel, from 2; the start token has 1 everywhere
        x, y, channel = np.moveaxis(places, 2, 0) - 2
        width, channels = (model.perceiver.adapters["tokens"].config.size)[1:]
        positions = np.where(x < 0, 0, 1 + (y * width + x) * channels + channel)
    else:
        positions = places[..., 0] - 1
    logits = model(
        ids,
        ids != 0,
        position_ids=torch.from_numpy(positions).clamp(min=0).long(),
        num_latents=values.get("num_latents", 8),
    ).logits
    assert error(logits, stored[output]) < 1e-4


def test_the_reference_values_tell_directions_and_frequencies_apart(tmp_path: Path) -> None:
    stored = arrays("deepmind")
    ids = torch.from_numpy(stored["in_full"]).long()
    config = deepmind_config("rotary")
    for change in ({"rotary_backwards": True}, {"rotary_wavelengths": "geometric"}):
        encoder = pio.CausalEncoderConfig(**{**vars(config.encoder), **change})
        model = pio.from_deepmind(
            write_deepmind("rotary", tmp_path / "checkpoint"), config.replaced(encoder=encoder)
        )
        assert error(model(ids, num_latents=8).logits, stored["out_rotary_full"]) > 0.1


@pytest.mark.parametrize("name", ["rotary", "sinusoidal"])
def test_cached_steps_of_the_release(name: str, tmp_path: Path) -> None:
    stored = arrays("deepmind")
    model = deepmind(name, tmp_path, num_latents=8, max_length=32)
    ids = torch.from_numpy(stored["in_full"]).long()[:1]  # the other row does not begin at position 1
    schedule = model.latent_schedule(prompt_latents=1)
    cache = LatentCache(model.perceiver.encoder.num_layers, schedule)
    steps = [model(ids[:, :17], past_key_values=cache).logits]
    steps += [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(17, 24)]
    assert error(torch.cat(steps, dim=1), stored[f"out_{name}_cached"][:1]) < 1e-4


@pytest.mark.parametrize("name", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_of_the_release(name: str, use_cache: bool, tmp_path: Path) -> None:
    stored = arrays("deepmind")
    model = deepmind(name, tmp_path, num_latents=8, max_length=32)
    prompt = torch.from_numpy(stored["in_prompt"]).long()
    found = model.generate(
        prompt,
        max_new_tokens=18,
        do_sample=False,
        prompt_latents=1,
        refill_latents=4,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    np.testing.assert_array_equal(found.sequences.numpy(), stored[f"out_{name}_generate_cached"])
    assert error(torch.stack(found.logits, dim=1), stored[f"out_{name}_generate_cached_logits"]) < 1e-4


KR_FORWARD = [
    (output, values)
    for output, values in KRASSERM["arrays"].items()
    if "prefix_len" in values and "generate" not in output
]


@pytest.mark.parametrize(("output", "values"), KR_FORWARD, ids=[output for output, _ in KR_FORWARD])
def test_forward_passes_of_krasserm(output: str, values: dict, tmp_path: Path) -> None:
    stored = arrays("krasserm")
    model = load_krasserm(values["model"], tmp_path)
    ids = torch.from_numpy(stored[values["tokens"]])[:, : values.get("first")]
    mask = ~torch.from_numpy(stored[values["pad_mask"]]) if "pad_mask" in values else None
    logits = model(ids, mask, num_latents=ids.shape[1] - values["prefix_len"]).logits
    expected = stored[output].copy()
    if mask is not None:  # what stands on padding means nothing
        expected[~mask[:, -expected.shape[1] :].numpy()] = np.nan
    assert error(logits, expected) < 1e-4


@pytest.mark.parametrize("name", KRASSERM["models"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_by_the_rule_of_krasserm(name: str, use_cache: bool, tmp_path: Path) -> None:
    stored = arrays("krasserm")
    model = load_krasserm(name, tmp_path)
    found = model.generate(
        torch.from_numpy(stored["in_prompt_events" if name == "sam" else "in_prompt"]),
        max_new_tokens=12,
        do_sample=False,
        prompt_latents=4,
        refill_latents=8,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    np.testing.assert_array_equal(found.sequences.numpy(), stored[f"out_{name}_generate_rule"])
    assert error(torch.stack(found.logits, dim=1), stored[f"out_{name}_generate_rule_logits"]) < 1e-4


@pytest.mark.parametrize("name", KRASSERM["models"])
def test_krasserms_layout_and_back(name: str, tmp_path: Path) -> None:
    model = load_krasserm(name, tmp_path)
    assert sum(one.numel() for one in model.parameters()) == KRASSERM["models"][name]["num_parameters"]
    save_krasserm(model, tmp_path / "again")
    before = torch.load(tmp_path / name / "pytorch_model.bin", weights_only=True)
    after = torch.load(tmp_path / "again" / "pytorch_model.bin", weights_only=True)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    given = KRASSERM["models"][name]["config"]
    assert {**given, **written} == given


def test_what_krasserm_cannot_compute_is_refused(tmp_path: Path) -> None:
    model = deepmind("rotary", tmp_path)
    with pytest.raises(ValueError, match="something else than this model"):
        save_krasserm(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").write_text(
            '{"model_type": "perceiver-ar-symbolic-audio-model"}'
        ),
        lambda folder: torch.save({}, folder / "pytorch_model.bin"),
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"no pickle"),
    ],
)
def test_damaged_folders_of_krasserm(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = write_krasserm("rot", tmp_path / "rot")
    damage(folder)
    with pytest.raises(ValueError, match=r"model_config|missing|is refused|cannot be read"):
        pio.from_pretrained(folder)

"""Generation by `transformers`: an exact cache, batches, beams, streams, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import DynamicCache, TextStreamer, pipeline

import perceiver_io as pio
from perceiver_io.causal import LatentCache, LatentSchedule
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.causal_language_modeling import byte_tokenizer, config
from tests.causal.models import KINDS, LATENTS, LENGTH, VOCABULARY, conditions, small_model, tokens

THREE_WINDOWS = 3 * LENGTH


def generate(model: PerceiverARForCausalLM, ids: torch.Tensor, kind: str, **options: Any) -> Any:
    torch.manual_seed(7)
    settings = {"max_new_tokens": THREE_WINDOWS, "do_sample": False, "pad_token_id": 0, **options}
    return model.generate(
        ids,
        conditions=conditions(kind, len(ids)),
        return_dict_in_generate=True,
        output_logits=True,
        **settings,
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pixels"])
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("schedule", [{}, {"prompt_latents": 1, "refill_latents": LATENTS}])
def test_cached_generation_equals_uncached(kind: str, sample: bool, schedule: dict) -> None:
    model = small_model(kind)
    ids = tokens(3, 9)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0  # fewer than the latents that read the prompt
    mask[1, :2] = 0
    options: dict[str, Any] = {"attention_mask": mask, "do_sample": sample, "top_k": 0, **schedule}
    cached = generate(model, ids, kind, use_cache=True, **options)
    uncached = generate(model, ids, kind, use_cache=False, **options)
    assert torch.equal(cached.sequences, uncached.sequences)
    for step, (a, b) in enumerate(zip(cached.logits, uncached.logits, strict=True)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=f"step {step}")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pixels"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_batch_of_prompts_equals_each_alone(kind: str, use_cache: bool) -> None:
    model = small_model(kind)
    lengths = [17, 8, 2]
    rows = [tokens(1, length, seed=length) for length in lengths]
    ids = torch.zeros(3, 17, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, 17 - row.shape[1] :], mask[index, 17 - row.shape[1] :] = row[0], 1
    together = generate(model, ids, kind, attention_mask=mask, use_cache=use_cache)
    given = conditions(kind, 3)
    for index, row in enumerate(rows):
        torch.manual_seed(7)
        alone = model.generate(
            row,
            conditions=None if given is None else {name: x[index : index + 1] for name, x in given.items()},
            max_new_tokens=THREE_WINDOWS,
            do_sample=False,
            pad_token_id=0,
        )
        assert torch.equal(together.sequences[index, 17:], alone[0, row.shape[1] :])


def test_pixels_are_generated_until_the_image_is_full() -> None:
    model = small_model("pixels")
    start = torch.tensor([[1], [2]])
    cached, uncached = (
        generate(model, start, "pixels", max_new_tokens=15, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, uncached.sequences) and cached.sequences.shape == (2, 16)


def test_cached_steps_by_hand_equal_whole_passes() -> None:
    model = small_model("rotary")
    ids = tokens(2, 12)
    cache = None
    schedule = model.latent_schedule().after_prompt(7)
    for end in range(7, 13):
        new = ids[:, :7] if end == 7 else ids[:, end - 1 : end]
        out = model(new, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        whole = model(ids[:, :end], num_latents=schedule.num_latents(end))
        torch.testing.assert_close(out.logits[:, -1], whole.logits[:, -1], rtol=0, atol=1e-10)
    assert cache.get_seq_length() == 12


def test_several_tokens_at_once_go_on_too() -> None:
    model = small_model("krasserm")
    ids = tokens(2, 16)
    cache = None
    for start, end in ((0, 6), (6, 8), (8, 9), (9, 13), (13, 16)):
        out = model(ids[:, start:end], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
    schedule = model.latent_schedule().after_prompt(6)
    whole = model(ids[:, -schedule.window(16) :], num_latents=schedule.num_latents(16))
    torch.testing.assert_close(out.logits[:, -1], whole.logits[:, -1], rtol=0, atol=1e-10)


def test_ids_of_padding_do_not_matter_with_a_cache() -> None:
    model = small_model("learned")
    ids, mask = tokens(2, 8), torch.ones(2, 8, dtype=torch.bool)
    mask[0, :3] = False
    expected = model(ids, mask, use_cache=True).logits
    torch.testing.assert_close(model(ids.masked_fill(~mask, -100), mask, use_cache=True).logits, expected)
    with pytest.raises(ValueError, match="input_ids"):
        model.generate(torch.zeros(1, 0, dtype=torch.int64), max_new_tokens=3, pad_token_id=0)


def test_a_cache_with_gradients() -> None:
    model = small_model("rotary").train()
    ids = tokens(2, 8)
    first = model(ids[:, :7], use_cache=True)
    second = model(ids[:, 7:], past_key_values=first.past_key_values)
    second.logits.sum().backward()
    assert model.perceiver.adapters["tokens"].embedding.weight.grad.abs().sum() > 0


def test_beams() -> None:
    model = small_model("rotary")
    ids = tokens(2, 5)
    found = {
        use_cache: model.generate(
            ids,
            num_beams=4,
            num_return_sequences=2,
            max_new_tokens=THREE_WINDOWS,
            use_cache=use_cache,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for use_cache in (True, False)
    }
    assert torch.equal(found[True].sequences, found[False].sequences)
    torch.testing.assert_close(found[True].sequences_scores, found[False].sequences_scores)
    greedy = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    beams = model.generate(ids, num_beams=5, max_new_tokens=6, pad_token_id=0)

    def score(sequences: torch.Tensor) -> torch.Tensor:
        logits = model(sequences, num_latents=6).logits.log_softmax(-1)
        return logits

    assert beams.shape == greedy.shape and score(beams).shape[1] == 6


def test_beams_with_conditions() -> None:
    model = small_model("label")
    ids = tokens(2, 5)
    found = model.generate(
        ids, conditions=conditions("label", 2), num_beams=3, max_new_tokens=30, pad_token_id=0
    )
    plain = model.generate(
        ids,
        conditions=conditions("label", 2),
        num_beams=3,
        max_new_tokens=30,
        pad_token_id=0,
        use_cache=False,
    )
    assert torch.equal(found, plain)
    one, other = (
        model.generate(
            ids,
            conditions={"label": torch.tensor([label, label])},
            num_beams=3,
            max_new_tokens=30,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for label in (0, 2)
    )
    assert (one.sequences_scores - other.sequences_scores).abs().max() > 1e-4


def test_a_cache_goes_on_in_another_call() -> None:
    model = small_model("rotary")
    ids = tokens(1, 5)
    whole = model.generate(ids, max_new_tokens=30, do_sample=False, pad_token_id=0)
    first = model.generate(
        ids, max_new_tokens=11, do_sample=False, pad_token_id=0, return_dict_in_generate=True
    )
    second = model.generate(
        first.sequences,
        past_key_values=first.past_key_values,
        max_new_tokens=19,
        do_sample=False,
        pad_token_id=0,
    )
    assert torch.equal(second, whole)


@pytest.mark.parametrize("first", range(1, 7))
@pytest.mark.parametrize("refill", range(1, 7))
def test_the_schedule_grows_by_one_and_refills(first: int, refill: int) -> None:
    schedule = LatentSchedule(max_latents=6, max_length=20, prompt_latents=first, refill_latents=refill)
    schedule = schedule.after_prompt(9)
    numbers = [schedule.num_latents(length) for length in range(9, 60)]
    assert numbers[0] == first and max(numbers) == 6
    for before, after in itertools.pairwise(numbers):
        assert after == (before + 1 if before < 6 else refill)
    for length in range(9, 60):
        window = schedule.window(length)
        assert window <= min(length, 20) and (window == length or window >= 20 - 6 + refill)


# transformers as it is


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = PerceiverARForCausalLM(
        config(variant="tiny", max_length=32, num_latents=8, encoder={"latent_channels": 32})
    )
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return str(path)


def test_the_pipeline_of_transformers(folder: str) -> None:
    generator = pipeline("text-generation", model=folder, device="cpu")
    assert isinstance(generator.model, PerceiverARForCausalLM)
    texts = generator(["def ", "import o"], max_new_tokens=40, do_sample=True, batch_size=2, pad_token_id=0)
    assert [text[0]["generated_text"][:4] for text in texts] == ["def ", "impo"]
    again = pio.from_pretrained(folder)
    ids = byte_tokenizer()("def ", return_tensors="pt")["input_ids"]
    whole = again.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)
    (one,) = generator("def ", max_new_tokens=40, do_sample=False, pad_token_id=0)
    assert one["generated_text"] == byte_tokenizer().decode(whole[0], skip_special_tokens=True)


def test_streaming(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer()
    model = pio.from_pretrained(folder)
    ids = tokenizer("print(", return_tensors="pt")["input_ids"]
    whole = model.generate(
        ids,
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
        streamer=TextStreamer(tokenizer, skip_special_tokens=True),
    )
    assert capsys.readouterr().out.rstrip("\n") == tokenizer.decode(
        whole[0], skip_special_tokens=True
    ).rstrip("\n")


def test_stopping_and_processors(folder: str) -> None:
    model = pio.from_pretrained(folder)
    ids = torch.tensor([[70, 71, 72]])
    free = model.generate(ids, max_new_tokens=30, do_sample=False, pad_token_id=0)
    stop = int(free[0, 10])
    first = 3 + free[0, 3:].tolist().index(stop)
    stopped = model.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=stop, pad_token_id=0)
    assert torch.equal(stopped, free[:, : first + 1])
    without = model.generate(ids, max_new_tokens=30, do_sample=False, suppress_tokens=[stop], pad_token_id=0)
    assert stop not in without[0, 3:].tolist()
    (one,) = {
        tuple(row)
        for row in model.generate(ids, top_k=1, do_sample=True, pad_token_id=0, max_new_tokens=30).tolist()
    }
    assert one == tuple(free[0].tolist())


def test_saved_and_loaded(tmp_path: Any) -> None:
    model = small_model("krasserm").float()
    model.save_pretrained(tmp_path)
    again = pio.from_pretrained(tmp_path)
    ids = tokens(2, 9)
    assert type(again) is PerceiverARForCausalLM
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.encoder == model.config.encoder and again.config.inputs == model.config.inputs


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "input_ids"),
        ({"input_ids": torch.zeros(3, dtype=torch.int64)}, "batch axis"),
        (
            {"input_ids": torch.ones(1, LENGTH + 1, dtype=torch.int64)},
            "reads 20 at most. Give it the last ones",
        ),
        ({"input_ids": torch.full((1, 3), VOCABULARY)}, "tokenizer"),
        ({"input_ids": torch.full((1, 3), -1)}, "tokenizer"),
        ({"num_latents": 0}, "num_latents must be from 1 to 6, got 0"),
        ({"num_latents": 7}, "num_latents must be from 1 to 6, got 7"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])}, r"rows \[1\] are padding alone"),
        ({"attention_mask": torch.ones(2, 3)}, "attention_mask"),
        ({"labels": torch.full((2, 4), VOCABULARY)}, "labels must be token ids 0 to 10"),
        ({"labels": torch.ones(2, 3, dtype=torch.int64)}, "labels must be int64"),
        ({"conditions": {"picture": torch.zeros(2, 1)}}, "no inputs"),
        ({"conditions": {"tokens": torch.zeros(2, 1)}, "use_cache": True}, "input_ids"),
        ({"past_key_values": DynamicCache()}, "must be a LatentCache"),
        ({"use_cache": True, "num_latents": 3}, "schedule decides"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    model = small_model("rotary")
    with pytest.raises(ValueError, match=message):
        model(**{"input_ids": tokens(2, 4), **arguments})


def test_a_cache_of_another_model_or_batch() -> None:
    model, other = small_model("rotary"), small_model("learned")
    cache = model(tokens(2, 5), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="filled by another model"):
        other(tokens(2, 1), past_key_values=cache)
    with pytest.raises(ValueError, match="holds 2 sequences, got tokens of 3"):
        model(tokens(3, 1), past_key_values=cache)
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache.crop(-1)
    cache.reset()
    assert model(tokens(3, 4), past_key_values=cache).logits.shape[0] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_latents": 0}, "prompt_latents must be from 1 to the model's 6"),
        ({"refill_latents": 7}, "refill_latents must be from 1 to the model's 6"),
        ({"cache_implementation": "static"}, "cache of its own"),
        (
            {"past_key_values": LatentCache(3, small_model("rotary").latent_schedule()), "prompt_latents": 2},
            "own schedule",
        ),
        ({"past_key_values": DynamicCache()}, "must be a LatentCache"),
    ],
)
def test_bad_options_of_generation(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("rotary").generate(tokens(1, 4), max_new_tokens=3, pad_token_id=0, **options)


def test_conditions_that_leave_no_room() -> None:
    model = small_model("picture", num_latents=18)
    with pytest.raises(ValueError, match="leave 16, fewer than its 18 latents"):
        model.generate(tokens(1, 4), conditions=conditions("picture", 1), max_new_tokens=3, pad_token_id=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_latents": 21}, "more than the 20 elements"),
        ({"num_latents": 0}, "at least 1"),
        ({"latent_channels": 15}, "multiple of the 2 heads"),
        ({"rotary_fraction": 1.5}, r"rotary_fraction must be in \[0, 1\]"),
        ({"prefix_dropout": 1.0}, "prefix_dropout"),
        ({"num_rotary_self_attends": -1}, "0 or more"),
        ({"latent_channels": 32}, "project_latents"),
        ({"sequence": "text"}, "encoder.sequence names"),
    ],
)
def test_bad_configurations(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("rotary", **changes)

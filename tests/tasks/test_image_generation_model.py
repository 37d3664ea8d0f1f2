"""Images drawn value by value: what is drawn, from which probabilities, and how likely an image is."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io.adapters.features import FeaturesAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks.autoregressive.presets import causal_config
from perceiver_io.tasks.image_generation import PerceiverARForImageGeneration, config
from perceiver_io.tasks.image_generation.windows import random_window, usual_latents, whole_windows


def small_model(**fields: Any) -> PerceiverARForImageGeneration:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "size": (3, 4),
        "num_levels": 5,
        "num_classes": 3,
        "variant": "tiny",
        "encoder": {"latent_channels": 16, "num_self_attends": 1, "dropout": 0.0},
    }
    model = PerceiverARForImageGeneration(config(**{**settings, **fields})).eval()
    for parameter in model.parameters():  # so that a context says something
        torch.nn.init.normal_(parameter, std=0.4 if parameter.ndim > 1 else 0.2)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(model: PerceiverARForImageGeneration, count: int = 2) -> Tensor:
    shape = (count, model.tokens.num_channels, *model.tokens.size)
    return torch.randint(model.tokens.num_levels, shape, generator=generator(7))


def test_an_image_is_as_likely_as_its_values_one_after_the_other() -> None:
    model = small_model(image_channels=3, size=(2, 2))
    levels, labels = images(model), [2, 0]
    bits = model.bits_per_value(levels, labels)
    ids = model.tokens.to_ids(levels)
    for row in range(2):
        total = 0.0
        for place in range(1, model.tokens.length):
            with torch.no_grad():
                label = {"label": torch.tensor([labels[row]])}
                logits = model(ids[row : row + 1, :place], conditions=label).logits
            assert logits.shape[1] == place  # the class is no token that something follows
            total -= float(logits[0, -1].log_softmax(-1)[ids[row, place]])
        assert float(bits[row]) == pytest.approx(total / math.log(2) / 12, rel=1e-5)
    loss = model(ids, labels=ids, conditions={"label": torch.tensor(labels)}).loss.detach()
    assert float(bits.mean()) == pytest.approx(float(loss) / math.log(2), rel=1e-5)


def test_with_fewer_latents_each_value_counts_once() -> None:
    model = small_model(num_latents=4)
    levels = images(model)
    ids = model.tokens.to_ids(levels)
    label = {"label": torch.tensor([1, 1])}
    total = torch.zeros(2)
    for stop in (4, 7, 10, 13):  # by hand: three values each
        logits = model(ids[:, :stop], conditions=label).logits.log_softmax(-1)
        for place in range(stop - 3, stop):
            total -= logits[:, place - stop - 1].gather(1, ids[:, place, None])[:, 0]
    torch.testing.assert_close(model.bits_per_value(levels, [1, 1]), total / (12 * math.log(2)))


@pytest.mark.parametrize(
    ("num_tokens", "num_latents"), [(13, 4), (13, 13), (13, 20), (12, 5), (2, 2), (9, 2)]
)
def test_windows(num_tokens: int, num_latents: int) -> None:
    ids = torch.arange(num_tokens)
    found = [
        place
        for window in whole_windows(ids, num_latents)
        for place in window.tokens[-window.num_predicted :].tolist()
    ]
    assert found == list(range(1, num_tokens))
    torch.manual_seed(0)
    counts: Counter[int] = Counter()
    for _ in range(2000):
        window = random_window(ids, num_latents)
        assert window.tokens.tolist() == list(range(len(window.tokens)))
        assert 1 <= window.num_predicted <= min(num_latents, len(window.tokens)) - 1
        counts.update(window.tokens[-window.num_predicted :].tolist())
    assert sorted(counts) == list(range(1, num_tokens))
    assert max(counts.values()) - min(counts.values()) < 250  # five deviations of a difference of two


def test_the_usual_number_of_latents_leaves_no_short_window() -> None:
    assert usual_latents(65) == 65 and usual_latents(1025) == 1025
    for num_tokens in (1026, 3073, 12_289):
        num_latents = usual_latents(num_tokens)
        sizes = [one.num_predicted for one in whole_windows(torch.arange(num_tokens), num_latents)]
        assert num_latents <= 1025 and max(sizes) - min(sizes) < len(sizes) and sum(sizes) == num_tokens - 1


def test_values_are_drawn_with_their_probabilities_and_special_tokens_never() -> None:
    model = small_model(size=(1, 1), num_special_tokens=3)
    with torch.no_grad():
        model.perceiver.decoders["tokens"].output.bias[:3] = 50.0  # it insists on special tokens
        start = torch.full((1, 1), model.tokens.start_id)
        logits = model(start, conditions={"label": torch.tensor([1])}).logits[0, 0, 3:]
    for temperature in (1.0, 0.5):
        drawn = model.generate_images(
            4000, labels=1, temperature=temperature, generator=generator()
        ).flatten()
        expected = 4000 * (logits / temperature).softmax(-1)
        found = torch.bincount(drawn, minlength=5)
        assert ((found - expected) ** 2 / expected).sum() < 18.5  # chi squared of 4 degrees: 1 in 1000
    assert (model.generate_images(9, labels=1, temperature=0) == logits.argmax()).all()
    assert (model.generate_images(9, labels=1, top_k=1) == logits.argmax()).all()
    assert (model.generate_images(9, labels=1, top_p=1e-4) == logits.argmax()).all()
    best_two = set(logits.topk(2).indices.tolist())
    assert set(model.generate_images(300, labels=1, top_k=2).flatten().tolist()) == best_two


@pytest.mark.parametrize("num_latents", [None, 4, 5])
def test_the_cache_changes_nothing(num_latents: int | None) -> None:
    model = small_model(num_latents=num_latents)
    settings: dict[str, Any] = {"labels": [0, 2, -1], "start": images(model, 1)[:, :, :1]}
    one = model.generate_images(**settings, generator=generator())
    assert torch.equal(one, model.generate_images(**settings, generator=generator(), use_cache=False))
    assert one.shape == (3, 1, 3, 4) and one.dtype == torch.int64
    assert torch.equal(one[:, :, :1], settings["start"].expand(3, -1, -1, -1))
    if num_latents is None:
        greedy = model.generate_images(**settings, temperature=0)
        ids = model.tokens.to_ids(greedy)
        label = model.label_condition(torch.tensor(settings["labels"]), 3)
        logits = model(ids, **label).logits[:, 4:-1, 1:]
        assert torch.equal(logits.argmax(-1) + 1, ids[:, 5:])  # all of an image is read with all latents


def test_random_numbers() -> None:
    model = small_model()
    state = torch.get_rng_state()
    one, same, other = (model.generate_images(4, labels=1, generator=generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    going_on = generator(3)
    first, second = (model.generate_images(4, labels=1, generator=going_on) for _ in range(2))
    assert torch.equal(first, one) and not torch.equal(first, second)
    torch.manual_seed(0)
    first = model.generate_images(4, labels=1)
    torch.manual_seed(0)
    assert torch.equal(first, model.generate_images(4, labels=1))


def test_a_class_says_something_and_none_is_none() -> None:
    model = small_model()
    levels = images(model, 4)
    bits = model.bits_per_value(levels, [0, 1, -1, 2])
    for row, label in enumerate([0, 1, -1, 2]):
        alone = model.bits_per_value(levels[row : row + 1], None if label < 0 else [label])
        torch.testing.assert_close(bits[row : row + 1], alone)
    same = levels[:1].expand(4, -1, -1, -1)
    of_each = model.bits_per_value(same, [0, 1, 2, -1])
    assert len(set(of_each.tolist())) == 4
    without = small_model(num_classes=None)
    assert without.num_classes == 0 and without.generate_images(2).shape == (2, 1, 3, 4)
    assert torch.equal(model.bits_per_value(levels, [-1] * 4), model.bits_per_value(levels))


def test_a_part_of_the_training_samples_loses_its_class() -> None:
    model = small_model(packing={"input_dropout": [["label", 1.0]]})
    ids = model.tokens.to_ids(images(model))
    label = {"label": torch.tensor([0, 1])}
    without = model(ids).logits
    assert not torch.allclose(model(ids, conditions=label).logits, without)
    torch.testing.assert_close(model.train()(ids, conditions=label).logits, without)
    assert small_model().config.packing.input_dropout == (("label", 0.1),)


def test_numbers_of_images() -> None:
    model = small_model()
    start = images(model, 2)[:, :, :2]
    assert model.generate_images().shape[0] == 1
    assert model.generate_images(labels=2).shape[0] == 1
    assert model.generate_images(labels=torch.tensor([2, 0, 1])).shape[0] == 3
    assert model.generate_images(3, labels=[1], start=start[:1]).shape[0] == 3
    whole = images(model)
    assert torch.equal(model.generate_images(start=whole), whole)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = small_model(num_classes=None, class_names=["cat", "dog"])
    model.save_pretrained(tmp_path)
    again = pio.from_pretrained(tmp_path).eval()
    assert isinstance(again, PerceiverARForImageGeneration) and again.tokens == model.tokens
    assert again.config.id2label == {0: "cat", 1: "dog"}
    settings: dict[str, Any] = {"labels": [0, 1], "temperature": 0.7}
    assert torch.equal(
        again.generate_images(**settings, generator=generator()),
        model.generate_images(**settings, generator=generator()),
    )
    assert small_model().config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


START = torch.zeros(2, 1, 1, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "must be the same, 1 or more"),
        ({"num_images": 3, "labels": [0, 1]}, "must be the same"),
        ({"num_images": 1, "labels": [0, 1]}, "must be the same"),
        ({"labels": [0, 1, 2], "start": START}, "must be the same"),
        ({"labels": [0, 3]}, "Labels .*3"),
        ({"labels": [-2]}, "Labels .*-2.*-1 stands for any class. Classes: \\['LABEL_0'"),
        ({"labels": [[0, 1]]}, "Labels must be"),
        ({"start": START[..., :3]}, "The model's images are 3 x 4 pixels of 1 channels"),
        ({"start": START + 5}, "from 0 to 4, got 5"),
        ({"start": START.float()}, "whole numbers"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0}, "top_p is 0"),
    ],
)
def test_what_cannot_be_drawn(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model().generate_images(**arguments)


def test_bad_models_and_images() -> None:
    with pytest.raises(ValueError, match="knows no classes"):
        small_model(num_classes=None).generate_images(labels=1)
    with pytest.raises(ValueError, match="The processor brings images to this size"):
        small_model().bits_per_value(torch.zeros(1, 1, 3, 3, dtype=torch.int64))
    text = TextAdapter.Config(vocab_size=9, max_length=8, num_channels=64)
    with pytest.raises(ValueError, match="needs a PixelSequenceAdapter"):
        PerceiverARForImageGeneration(causal_config(text, variant="tiny", max_length=8, vocab_size=9))
    made = config(variant="tiny", num_classes=3)
    pixels = made.inputs["tokens"]
    with pytest.raises(ValueError, match="Beside the pixels there may be the input 'label'"):
        other = causal_config(
            pixels,
            variant="compact",
            max_length=70,
            vocab_size=257,
            conditions={"colour": FeaturesAdapter.Config(num_features=3)},
        )
        PerceiverARForImageGeneration(other)
    with pytest.raises(ValueError, match="no values"):
        config(tokens={"vocab_size": 1})
    with pytest.raises(ValueError, match="There is no variant 'huge'"):
        config(variant="huge")

"""Models of `transformers` with random weights, saved by it and loaded by us: the same outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import perceiver_io as pio

from .theirs import CASES, Case, Inputs, relative_error

# Fields that change what is computed, besides the published values.
VARIATIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "width of the queries": {"cross_attention_shape_for_attention": "q"},
    "widths": {"qk_channels": 16, "v_channels": 32},
    "feed-forwards": {"self_attention_widening_factor": 2, "cross_attention_widening_factor": 3},
    "no residual": {"use_query_residual": False},
    "approximated GELU": {"hidden_act": "gelu_pytorch_tanh"},
    "another approximation": {"hidden_act": "gelu_new"},
    "heads": {
        "num_cross_attention_heads": 2,
        "num_self_attention_heads": 2,
        "num_blocks": 1,
        "qk_channels": 8,
        "v_channels": 32,
    },
}


def loaded(model: PreTrainedModel, folder: Path, **options: Any) -> Any:
    model.save_pretrained(folder)
    return pio.from_pretrained(folder, **options)


def compare(case: Case, theirs: PreTrainedModel, ours: Any, inputs: Inputs) -> float:
    with torch.no_grad():
        return relative_error(case.run_ours(ours, inputs), case.run_theirs(theirs, inputs))


@pytest.mark.parametrize("name", CASES)
def test_each_class_computes_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    theirs = case.make()
    ours = loaded(theirs, tmp_path)
    assert type(ours).__name__ == case.ours
    assert not ours.training
    assert compare(case, theirs, ours, case.inputs()) < 1e-4


@pytest.mark.parametrize("variation", list(VARIATIONS)[1:])
@pytest.mark.parametrize("name", ["fourier", "language", "flow", "multimodal"])
def test_what_the_configuration_says_is_computed(name: str, variation: str, tmp_path: Path) -> None:
    case = CASES[name]
    theirs = case.make(**VARIATIONS[variation])
    assert compare(case, theirs, loaded(theirs, tmp_path), case.inputs()) < 1e-4


def test_the_variations_matter() -> None:
    case = CASES["fourier"]
    inputs = case.inputs()
    outputs = []
    for changes in ({}, {"hidden_act": "gelu_pytorch_tanh"}, {"use_query_residual": False}):
        torch.manual_seed(1)
        model = case.make(**changes)
        with torch.no_grad():
            outputs.append(case.run_theirs(model, inputs))
    assert relative_error(outputs[1], outputs[0]) > 1e-4
    assert relative_error(outputs[2], outputs[0]) > 1e-4


@pytest.mark.parametrize("size", [(12, 7), (5, 5), (16, 16)])
def test_learned_positions_are_interpolated_as_theirs(size: tuple[int, int], tmp_path: Path) -> None:
    case = CASES["learned"]
    theirs = case.make()
    assert compare(case, theirs, loaded(theirs, tmp_path), {"image": torch.randn(2, 3, *size)}) < 1e-4


@pytest.mark.parametrize("name", ["learned", "fourier"])
def test_masked_pixels(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    theirs = case.make()
    inputs = {"image": torch.randn(2, 3, 8, 8), "image_mask": torch.rand(2, 8, 8) < 0.6}
    ours = loaded(theirs, tmp_path)
    assert compare(case, theirs, ours, inputs) < 1e-4
    inputs["image"] = torch.where(inputs["image_mask"][:, None], inputs["image"], 9.0)
    assert compare(case, theirs, ours, inputs) < 1e-4


def test_masked_elements_of_convolutional_features(tmp_path: Path) -> None:
    theirs = CASES["conv"].make()
    ours = loaded(theirs, tmp_path)
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    mask[0, 16:] = False
    image = torch.randn(2, 3, 32, 32) * mask[:, None]  # ours sets masked pixels to zero, theirs does not
    elements = ours.perceiver.encode({"image": image}, {"image": mask}).byte_arrays["image"].mask
    assert elements.shape == (2, 49) and 0 < elements[0].sum() < 49
    with torch.no_grad():
        expected = theirs(inputs=image, attention_mask=elements.float()).logits
        found = ours(image, pixel_mask=mask).logits
    assert (found - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.parametrize("length", [1, 9, 12])
def test_text_of_any_length_with_and_without_padding(length: int, tmp_path: Path) -> None:
    case = CASES["language"]
    theirs = case.make()
    ours = loaded(theirs, tmp_path)
    ids = torch.randint(0, 262, (2, length))
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[0, (length + 1) // 2 :] = 0
    assert compare(case, theirs, ours, {"text": ids, "text_mask": mask}) < 1e-4
    with torch.no_grad():
        expected = theirs(inputs=ids).logits[:, :length]
        assert (ours(ids).logits - expected).abs().max() < 1e-4 * expected.std()


def test_labels_keep_their_names(tmp_path: Path) -> None:
    names = {0: "cat", 1: "dog", 2: "eel", 3: "fox", 4: "gnu"}
    ours = loaded(CASES["fourier"].make(id2label=names), tmp_path)
    assert ours.config.id2label == names
    assert ours.config.label2id["eel"] == 2


def test_training_starts_with_their_dropout(tmp_path: Path) -> None:
    ours = loaded(CASES["fourier"].make(attention_probs_dropout_prob=0.25), tmp_path)
    assert ours.config.encoder.attention_dropout == 0.25
    assert ours.config.outputs["label"].attention_dropout == 0.25
    assert ours.config.encoder.dropout == 0


@pytest.mark.parametrize("size", [8, [8, 8]])
def test_image_size_is_a_number_or_a_pair(size: Any, tmp_path: Path) -> None:
    theirs = CASES["learned"].make()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": size}))
    assert pio.from_pretrained(tmp_path).config.inputs["image"].size == (8, 8)


def test_a_configuration_that_is_passed_counts(tmp_path: Path) -> None:
    """The weights of `transformers` with the numerics of the original release."""
    case = CASES["fourier"]
    theirs, tanh = case.make(), case.make(hidden_act="gelu_pytorch_tanh")
    tanh.load_state_dict(theirs.state_dict())
    config = loaded(tanh, tmp_path / "tanh").config
    ours = loaded(theirs, tmp_path / "exact", config=config)
    inputs = case.inputs()
    assert compare(case, theirs, ours, inputs) > 1e-4
    assert compare(case, tanh, ours, inputs) < 1e-4

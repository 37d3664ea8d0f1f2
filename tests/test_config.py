"""The configuration of a whole model: strict, and JSON there and back."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

import perceiver_io as pio
from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.testing import ElementsAdapter


def config(**fields: Any) -> PerceiverIOConfig:
    defaults: dict[str, Any] = {
        "inputs": {"image": ImageAdapter.Config(size=(4, 6), num_bands=2, max_resolution=(4, 6))},
        "encoder": EncoderConfig(num_latents=3, latent_channels=8, num_blocks=2),
        "outputs": {"label": ClassificationDecoder.Config(num_classes=3)},
    }
    return PerceiverIOConfig(**defaults | fields)


def written(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(config().to_dict())) | changes


def test_survives_json() -> None:
    original = config(id2label={0: "cat", 1: "dog", 2: "eel"})
    values = json.loads(json.dumps(original.to_dict()))
    assert values["model_type"] == "perceiver_io"
    assert values["format_version"] == 1
    assert values["inputs"]["image"] == {"type": "image", **original.inputs["image"].to_dict()}
    assert values["outputs"]["label"]["type"] == "classification"
    read = PerceiverIOConfig.from_dict(values)
    assert read == original
    assert read.inputs == original.inputs
    assert read.encoder == original.encoder
    assert read.outputs == original.outputs
    assert read.id2label == {0: "cat", 1: "dog", 2: "eel"}
    assert read.label2id == {"cat": 0, "dog": 1, "eel": 2}


def test_reading_leaves_the_dictionary_alone() -> None:
    values = written()
    before = copy.deepcopy(values)
    PerceiverIOConfig.from_dict(values)
    assert values == before


def test_saves_and_loads(tmp_path: Path) -> None:
    original = config()
    original.save_pretrained(tmp_path)
    assert PerceiverIOConfig.from_pretrained(tmp_path) == original
    auto = AutoConfig.from_pretrained(tmp_path)
    assert auto.name_or_path == str(tmp_path)
    auto.name_or_path = ""
    assert auto == original


def test_equality_sees_every_part() -> None:
    assert config() == config()
    assert config() != config(encoder=EncoderConfig(num_latents=4, latent_channels=8, num_blocks=2))
    assert config() != config(outputs={"label": ClassificationDecoder.Config(num_classes=4)})
    assert config() != config(inputs={"image": ImageAdapter.Config(size=(4, 6), num_bands=3)})


def test_copies_are_equal_and_apart() -> None:
    original = config(id2label={0: "a", 1: "b", 2: "c"})
    twin = copy.deepcopy(original)
    assert twin == original
    twin.id2label[0] = "z"
    assert original.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, r"unknown keys \['learning_rate'\]\. Known keys: .*encoder"),
        ({"model_type": "bert"}, "'bert' model, expected 'perceiver_io'"),
        ({"format_version": 2}, r"format version 2; .* reads 1 to 1\. Upgrade"),
        ({"format_version": 0}, "format version 0"),
        ({"format_version": "1"}, "format version '1'"),
        ({"encoder": None}, "needs an object under 'encoder', got None"),
        ({"inputs": []}, r"needs an object under 'inputs', got \[\]"),
        ({"inputs": {}}, "at least one input and one output"),
        ({"outputs": {}}, "at least one input and one output"),
        ({"inputs": {"image": {"size": [4, 6]}}}, r"inputs\['image'\] must be an object whose 'type' names"),
        ({"inputs": {"image": 3}}, r"inputs\['image'\] must be an object"),
        ({"inputs": {"x": {"type": "lidar"}}}, "There is no adapter 'lidar'. Known: .*image"),
        ({"inputs": {"x": {"type": "image", "size": [4, 6], "colour": 1}}}, r"unknown keys \['colour'\]"),
        ({"inputs": {"x": {"type": "image"}}}, r"needs the keys \['size'\]"),
        ({"inputs": {"a-b": {"type": "image", "size": [4, 6]}}}, "Python identifiers, got 'a-b'"),
        ({"inputs": {"keys": {"type": "image", "size": [4, 6]}}}, "The name 'keys' is taken"),
        ({"outputs": {"y": {"type": "image"}}}, "There is no decoder 'image'. Known: .*classification"),
        ({"encoder": {"num_latents": 1, "latent_channels": 2, "depth": 3}}, r"unknown keys \['depth'\]"),
        ({"id2label": {"a": "b"}}, "id2label must name classes by their index"),
        ({"id2label": ["a"]}, "id2label must name classes by their index"),
        ({"packing": []}, r"packing must be an object, got \[\]"),
        ({"packing": {"min_paddings": 2}}, r"PackingConfig got the unknown keys \['min_paddings'\]"),
        ({"packing": {"min_padding": -1}}, "min_padding must be 0 or more, got -1"),
        ({"shared_attention": "label"}, "shared_attention must be an object, got 'label'"),
        ({"shared_attention": {"outputs": ["label"]}}, r"needs the keys \['output_channels'\]"),
        (
            {"shared_attention": {"outputs": ["label"], "output_channels": 2, "heads": 1}},
            r"SharedAttentionConfig got the unknown keys \['heads'\]",
        ),
        ({"architectures": "PerceiverIO"}, "architectures must be a list of class names, got 'PerceiverIO'"),
    ],
)
def test_what_is_not_a_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOConfig.from_dict(written(**changes))


@pytest.mark.parametrize("key", ["inputs", "encoder", "outputs"])
def test_missing_parts_are_named(key: str) -> None:
    values = written()
    del values[key]
    with pytest.raises(ValueError, match=f"needs an object under {key!r}"):
        PerceiverIOConfig.from_dict(values)


def test_nothing_that_json_names_is_imported() -> None:
    with pytest.raises(ValueError, match=r"There is no adapter 'perceiver_io\.adapters\.image:ImageAdapter'"):
        PerceiverIOConfig.from_dict(
            written(inputs={"x": {"type": "perceiver_io.adapters.image:ImageAdapter", "size": [4, 6]}})
        )


def test_classes_that_are_not_registered_are_passed() -> None:
    inputs = {"x": ElementsAdapter.Config(num_channels=4)}
    with pytest.raises(
        ValueError, match=r"No registered adapter has the configuration ElementsAdapter\.Config"
    ):
        config(inputs=inputs)
    passed = config(inputs=inputs, adapters={"elements": ElementsAdapter})
    assert passed.adapter_class("x") is ElementsAdapter
    values = passed.to_dict()
    assert values["inputs"]["x"]["type"] == "elements"
    with pytest.raises(ValueError, match="There is no adapter 'elements'"):
        PerceiverIOConfig.from_dict(values)
    assert PerceiverIOConfig.from_dict(values, adapters={"elements": ElementsAdapter}) == passed


def test_encoder_must_be_its_configuration() -> None:
    with pytest.raises(
        ValueError, match="encoder must be an EncoderConfig or a CausalEncoderConfig, got dict"
    ):
        config(encoder={"num_latents": 3})


def test_classes_of_components() -> None:
    assert config().adapter_class("image") is ImageAdapter
    assert config().decoder_class("label") is pio.ClassificationDecoder


def test_type_is_kept() -> None:
    original = config()
    original.dtype = torch.bfloat16
    read = PerceiverIOConfig.from_dict(json.loads(original.to_json_string(use_diff=False)))
    assert read.dtype == torch.bfloat16


def test_what_transformers_passes_on_loading() -> None:
    read, unused = PerceiverIOConfig.from_dict(
        written(), dtype=torch.float64, return_unused_kwargs=True, no_such_setting=1
    )
    assert read.dtype == torch.float64
    assert unused == {"no_such_setting": 1}


def test_marks_that_others_leave_are_not_written(tmp_path: Path) -> None:
    """`transformers.Trainer` sets `use_cache` on the configuration of what it trains."""
    marked = config()
    marked.use_cache = False
    assert marked == config()
    marked.save_pretrained(tmp_path)
    assert "use_cache" not in json.loads((tmp_path / "config.json").read_text())
    assert PerceiverIOConfig.from_pretrained(tmp_path) == marked


def test_packing_and_shared_attention_survive_json() -> None:
    original = config(
        packing=PackingConfig(
            min_padding=4, mask_probabilities=(("image", 0.5),), input_dropout=(("image", 0.25),)
        ),
        shared_attention=SharedAttentionConfig(outputs=("label",), output_channels=6),
    )
    values = json.loads(json.dumps(original.to_dict()))
    assert values["packing"] == {
        "min_padding": 4,
        "mask_probabilities": [["image", 0.5]],
        "input_dropout": [["image", 0.25]],
    }
    assert values["shared_attention"]["outputs"] == ["label"]
    read = PerceiverIOConfig.from_dict(values)
    assert read == original
    assert read.packing == original.packing
    assert read.shared_attention == original.shared_attention
    assert read != config(packing=original.packing)
    assert read != config(shared_attention=original.shared_attention)


def test_packing_and_shared_attention_may_be_left_out() -> None:
    """As in configurations that were written before there were any."""
    values = written()
    assert "shared_attention" not in values
    del values["packing"]
    read = PerceiverIOConfig.from_dict(values)
    assert read == config()
    assert read.packing == PackingConfig()
    assert read.shared_attention is None


def dense(**fields: Any) -> DenseDecoder.Config:
    return DenseDecoder.Config(**{"output_channels": 2, "grid": (4, 6)} | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"packing": PackingConfig(mask_probabilities=(("imag", 0.5),))},
            r"packing\.mask_probabilities names \['imag'\], but there are only \['image'\]",
        ),
        (
            {"packing": PackingConfig(input_dropout=(("imag", 0.5),))},
            r"packing\.input_dropout names \['imag'\], but there are only \['image'\]",
        ),
        (
            {"shared_attention": SharedAttentionConfig(outputs=("label", "flow"), output_channels=6)},
            r"shared_attention\.outputs names \['flow'\], but there are only \['label'\]",
        ),
        (
            {"outputs": {"flow": dense(grid_input="frames")}},
            r"outputs\['flow'\] names \['frames'\], but there are only \['image'\]",
        ),
        (
            {"outputs": {"flow": dense(query_input="flow", query_input_channels=1)}},
            r"outputs\['flow'\] names \['flow'\]",
        ),
        (
            {"outputs": {"flow": dense(query_mask_input="mask")}},
            r"outputs\['flow'\] names \['mask'\]",
        ),
        (
            {"outputs": {"flow": dense(tied_to="text")}},
            r"outputs\['flow'\] names \['text'\]",
        ),
    ],
)
def test_names_of_what_is_not_there_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)
    assert config(outputs={"flow": dense(query_input="image", query_input_channels=1)}).outputs


@pytest.mark.parametrize("field", ["num_latents", "latent_channels", "cross_attention_widening_factor"])
@pytest.mark.parametrize("size", [2**60, 2**62, 2**63 - 1])
def test_models_that_nothing_can_hold(field: str, size: int) -> None:
    """They were errors of any type, out of the depth of PyTorch."""
    encoder = EncoderConfig(**{"num_latents": 3, "latent_channels": 8, field: size})
    with pytest.raises(ValueError, match=r"A PerceiverIO of these settings cannot be built|channels|heads"):
        pio.PerceiverIO(config(encoder=encoder))


@pytest.mark.parametrize("dtype", ["bogus", "int8", torch.int8, 5, ["float32"]])
def test_types_that_no_weights_have(dtype: Any) -> None:
    settings = config()
    settings.dtype = dtype
    with pytest.raises(ValueError, match=r"dtype must name a type of weights"):
        pio.PerceiverIO(settings)


PARTS = ("inputs", "outputs", "packing", "shared_attention", "label2id", "adapters", "decoders", "encoder")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "value", [5, "image", ["image"], [1], {5: 1}, {"image": [1]}, {"image": "x"}, object()]
)
def test_parts_of_other_types(part: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{part} must be "):
        config(**{part: value})


def test_a_parts_own_errors_stay_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise TypeError("a fault of mine")

    monkeypatch.setattr(ElementsAdapter, "__init__", faulty)
    inputs = {"elements": ElementsAdapter.Config(num_channels=4)}
    with pytest.raises(TypeError, match="a fault of mine"):
        pio.PerceiverIO(config(inputs=inputs, adapters={"elements": ElementsAdapter}))

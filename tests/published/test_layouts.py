"""What is known of the published models: sizes, names, and which layout a configuration belongs to."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
import transformers
from transformers import PerceiverConfig

from perceiver_io import PerceiverIOConfig
from perceiver_io.published import layout, layout_of, layouts, published_config
from perceiver_io.published.fields import all_fields

# Numbers of parameters, as counted in the original release.
NUM_PARAMETERS = {
    "vision-perceiver-learned": 62_255_848,
    "vision-perceiver-fourier": 48_440_627,
    "vision-perceiver-conv": 48_646_522,
    "language-perceiver": 201_108_230,
    "optical-flow-perceiver": 41_057_134,
    "multimodal-perceiver": 19_858_855,
}
IMAGENET = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
    "image_size": 224,
}
# The published models in the words of `transformers`.
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "vision-perceiver-learned": ("PerceiverForImageClassificationLearned", IMAGENET),
    "vision-perceiver-fourier": ("PerceiverForImageClassificationFourier", IMAGENET),
    "vision-perceiver-conv": ("PerceiverForImageClassificationConvProcessing", IMAGENET),
    "language-perceiver": ("PerceiverForMaskedLM", {"qk_channels": 256, "v_channels": 1280}),
    "optical-flow-perceiver": (
        "PerceiverForOpticalFlow",
        {
            "num_latents": 2048,
            "d_latents": 512,
            "num_self_attends_per_block": 24,
            "num_self_attention_heads": 16,
            "num_cross_attention_heads": 1,
        },
    ),
    "multimodal-perceiver": (
        "PerceiverForMultimodalAutoencoding",
        {
            "num_latents": 784,
            "d_latents": 512,
            "num_self_attends_per_block": 8,
            "num_cross_attention_heads": 1,
            "num_labels": 700,
        },
    ),
}


def on_meta(make: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return make()


def differences(ours: PerceiverIOConfig, theirs: PerceiverIOConfig) -> set[str]:
    """Dotted names of the settings that differ."""

    def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
        if isinstance(values, dict):
            for name, value in values.items():
                yield from flat(value, f"{prefix}.{name}")
        else:
            yield prefix[1:], json.dumps(values)

    parts = ("inputs", "encoder", "outputs", "packing", "shared_attention")
    a, b = (dict(flat({part: c.to_dict().get(part) for part in parts})) for c in (ours, theirs))
    return {name for name in {*a, *b} if a.get(name) != b.get(name)}


def read(name: str) -> PerceiverIOConfig:
    architecture, fields = THEIRS[name]
    readers = {key: value for known in layouts() for key, value in known.architectures.items()}
    return readers[architecture](all_fields(PerceiverConfig(**fields).to_dict()))


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_published_models_have_as_many_parameters(name: str) -> None:
    config = published_config(name)
    model = on_meta(lambda: layout_of(config).model_class(config))
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", THEIRS)
def test_the_classes_of_transformers_have_the_same_tensors(name: str) -> None:
    from perceiver_io.published.huggingface import _names

    architecture, fields = THEIRS[name]
    theirs = on_meta(lambda: getattr(transformers, architecture)(PerceiverConfig(**fields))).state_dict()
    for config in (read(name), published_config(name)):
        known = layout_of(config)
        ours = on_meta(lambda config=config, known=known: known.model_class(config)).state_dict()
        shapes = {theirs: ours[name].shape for name, theirs in _names(ours, known).items()}
        assert shapes == {name: value.shape for name, value in theirs.items()}


# What the port computes otherwise than the original release; where a default is written out, it is the same number.
TRAINING = {"encoder.attention_dropout"}
EXPECTED = {
    "vision-perceiver-learned": {"outputs.label.use_query_residual"},
    "vision-perceiver-fourier": set(),
    "vision-perceiver-conv": {"inputs.image.conv_padding"},
    "language-perceiver": {"outputs.text.query_mask_input"},
    "optical-flow-perceiver": set(),
    "multimodal-perceiver": set(),
}
WRITTEN_OUT = {
    "inputs.image.max_resolution",
    "inputs.image.feature_channels",
    "inputs.frames.max_resolution",
    "inputs.audio.max_resolution",
}


@pytest.mark.parametrize("name", THEIRS)
def test_ports_differ_where_they_are_known_to(name: str) -> None:
    found = differences(published_config(name), read(name))
    activations = {setting for setting in found if setting.endswith(".activation")}
    assert activations
    dropouts = {setting for setting in found if setting.endswith(".attention_dropout")}
    assert found - activations - dropouts - WRITTEN_OUT == EXPECTED[name]


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_written_is_read_back(name: str) -> None:
    config = read(name)
    fields = layout_of(config).to_transformers(config)
    assert fields["architectures"] == [THEIRS[name][0]]
    readers = layout_of(config).architectures
    again = readers[fields["architectures"][0]](all_fields(fields))
    assert differences(config, again) == set()


@pytest.mark.parametrize("name", ["vision-perceiver-fourier", *list(THEIRS)[3:]])
def test_the_numerics_of_the_release_can_be_exported(name: str) -> None:
    config = published_config(name)
    fields = layout_of(config).to_transformers(config)
    assert fields["hidden_act"] == "gelu_pytorch_tanh"


@pytest.mark.parametrize("name", ["vision-perceiver-learned", "vision-perceiver-conv"])
def test_or_not_where_the_classes_compute_something_else(name: str) -> None:
    config = published_config(name)
    with pytest.raises(ValueError, match=EXPECTED[name].copy().pop()):
        layout_of(config).to_transformers(config)


@pytest.mark.parametrize(
    ("name", "part", "changes", "message"),
    [
        (
            "language-perceiver",
            "encoder",
            {"num_cross_attends": 1, "self_attention_qk_channels": 128},
            "qk_channels",
        ),
        ("language-perceiver", "text", {"num_heads": 4}, "outputs.text.num_heads: 4 here, 8 there"),
        ("optical-flow-perceiver", "flow", {"scale": 1.0}, "outputs.flow.scale: 1.0 here, 0.2 there"),
        (
            "optical-flow-perceiver",
            "encoder",
            {"num_blocks": 2, "share_blocks": "none"},
            "share_blocks: 'none' here",
        ),
        ("multimodal-perceiver", "image", {"spacing": "ends"}, "outputs.image.spacing: 'ends' here"),
        (
            "vision-perceiver-fourier",
            "label",
            {"activation": "gelu"},
            "outputs.label.activation: 'gelu' here",
        ),
    ],
)
def test_differences_are_named(name: str, part: str, changes: dict[str, Any], message: str) -> None:
    values = published_config(name).to_dict()
    (values["encoder"] if part == "encoder" else values["outputs"][part]).update(changes)
    config = PerceiverIOConfig.from_dict(values)
    with pytest.raises(ValueError, match=r"computes something else than this model:\n(.|\n)*" + message):
        layout_of(config).to_transformers(config)


def test_names_with_and_without_the_publisher() -> None:
    assert published_config("deepmind/language-perceiver") == published_config("language-perceiver")


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError) as caught:
        published_config("audio-perceiver")
    assert all(name in str(caught.value) for name in NUM_PARAMETERS)


def test_layouts_that_fail_to_import_only_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_module:LAYOUT", layout.LAYOUT_GROUP),
        EntryPoint("good", "perceiver_io.tasks.optical_flow.published:LAYOUT", layout.LAYOUT_GROUP),
    ]
    monkeypatch.setattr(layout, "entry_points", lambda **_: points)
    with pytest.warns(UserWarning, match="'broken' cannot be imported: .* ModuleNotFoundError"):
        assert [known.outputs for known in layouts()] == [("flow",)]


@pytest.mark.slow
def test_layouts_are_not_imported_before_they_are_asked_for() -> None:
    import subprocess

    # The tasks' own; the package perceiver_io.published only says how they are found.
    program = "import sys, perceiver_io; print([name for name in sys.modules if name.endswith('.published')])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['perceiver_io.published']"


def test_the_longest_name_counts() -> None:
    names = {"a": "x", "a.b": "y", "a.b.c.weight": "z"}
    assert layout.renamed("a.b.c.weight", names) == ("z", "")
    assert layout.renamed("a.b.c.bias", names) == ("y", "c.bias")
    assert layout.renamed("a.bb", names) == ("x", "bb")
    assert layout.renamed("b.a", names) is None

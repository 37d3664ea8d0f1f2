"""Saving and loading: bit-equal, strict, and clear about what is wrong."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import perceiver_io as pio
from perceiver_io import (
    WHOLE_OUTPUT,
    ClassificationDecoder,
    Decoder,
    DecoderConfig,
    DecoderParts,
    DecoderRequest,
    Encoded,
    EncoderConfig,
    PerceiverIO,
)
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks import image_classification
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification
from perceiver_io.testing import ElementsAdapter

WEIGHTS = "model.safetensors"
LATENTS = "perceiver.encoder.latents.weight"


def classifier() -> PerceiverIOForImageClassification:
    config = image_classification.config(
        size=(4, 4),
        class_names=["cat", "dog", "eel"],
        variant="tiny",
        image={"num_bands": 2},
        encoder={"num_latents": 3, "latent_channels": 8, "num_self_attention_heads": 2},
    )
    model = PerceiverIOForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> tuple[PerceiverIOForImageClassification, Path]:
    model = classifier()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_bit_equal(model: torch.nn.Module, twin: torch.nn.Module) -> None:
    assert model.state_dict().keys() == twin.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


def test_a_folder_holds_a_config_and_safetensors(saved: Any) -> None:
    _, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", WEIGHTS]
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "PerceiverIOForImageClassification"
    ]


@pytest.mark.parametrize("load", [pio.from_pretrained, PerceiverIOForImageClassification.from_pretrained])
def test_twin_is_bit_equal(saved: Any, load: Any) -> None:
    model, folder = saved
    twin = load(folder)
    assert type(twin) is PerceiverIOForImageClassification
    assert not twin.training
    assert twin.config.id2label == {0: "cat", 1: "dog", 2: "eel"}
    assert_bit_equal(model, twin)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(model(x).logits, twin(x).logits)


@pytest.mark.parametrize("load", [PerceiverIO.from_pretrained, AutoModel.from_pretrained])
def test_base_model_loads_from_a_tasks_folder(saved: Any, load: Any) -> None:
    model, folder = saved
    base = load(folder)
    assert type(base) is PerceiverIO
    assert_bit_equal(model.perceiver, base)


def test_tasks_model_loads_from_a_base_folder(tmp_path: Path) -> None:
    model = classifier()
    model.perceiver.save_pretrained(tmp_path)
    assert type(pio.from_pretrained(tmp_path)) is PerceiverIO
    assert_bit_equal(model, PerceiverIOForImageClassification.from_pretrained(tmp_path))


def test_a_string_is_a_path_too(saved: Any) -> None:
    model, folder = saved
    assert_bit_equal(model, pio.from_pretrained(str(folder)))


def test_type_is_chosen_on_loading(saved: Any) -> None:
    model, folder = saved
    twin = pio.from_pretrained(folder, dtype=torch.float64)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float64}
    torch.testing.assert_close(twin.double().state_dict(), model.double().state_dict(), rtol=0, atol=0)


def test_missing_tensors_are_named(saved: Any) -> None:
    _, folder = saved
    change_weights(folder, **{LATENTS: None})
    with pytest.raises(
        ValueError, match=r"do not fit PerceiverIOForImageClassification .*\n  missing tensor: .*latents"
    ):
        pio.from_pretrained(folder)


def test_unexpected_tensors_are_named(saved: Any) -> None:
    _, folder = saved
    change_weights(folder, **{"perceiver.encoder.extra": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"unexpected tensor: .*encoder\.extra"):
        pio.from_pretrained(folder)


def test_what_does_not_fit_is_said_once(saved: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, folder = saved
    change_weights(folder, **{"extra": torch.zeros(3), LATENTS: torch.zeros(5, 8)})
    logging.getLogger("transformers").propagate = True
    try:
        with pytest.raises(ValueError, match="unexpected tensor"):
            pio.from_pretrained(folder)
        assert "LOAD REPORT" not in caplog.text
        change_weights(folder, **{"extra": None})
        pio.from_pretrained(folder, ignore_mismatched_sizes=True)
        assert "LOAD REPORT" in caplog.text
    finally:
        logging.getLogger("transformers").propagate = False


def test_wrong_shapes_are_named_and_may_be_allowed(saved: Any) -> None:
    _, folder = saved
    change_weights(folder, **{LATENTS: torch.zeros(5, 8)})
    with pytest.raises(ValueError, match=r"wrong shape: .*latents.weight is \(5, 8\), expected \(3, 8\)"):
        pio.from_pretrained(folder)
    fresh = pio.from_pretrained(folder, ignore_mismatched_sizes=True)
    latents = fresh.state_dict()[LATENTS]
    assert latents.shape == (3, 8)
    assert latents.any() and latents.isfinite().all()


def test_all_that_is_wrong_is_reported_at_once(saved: Any) -> None:
    _, folder = saved
    change_weights(
        folder,
        **{
            LATENTS: torch.zeros(5, 8),
            "perceiver.decoders.label.output.bias": None,
            "perceiver.extra": torch.zeros(3),
        },
    )
    with pytest.raises(ValueError) as caught:
        pio.from_pretrained(folder)
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("keep", [0, 5, 100, -40])
def test_truncated_weights_are_refused(saved: Any, keep: int) -> None:
    _, folder = saved
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cannot be read .* truncated or is no safetensors file"):
        pio.from_pretrained(folder)


def test_missing_weights_are_refused(saved: Any) -> None:
    _, folder = saved
    (folder / WEIGHTS).unlink()
    with pytest.raises(OSError, match=WEIGHTS):
        pio.from_pretrained(folder)


def test_weights_with_a_configuration_that_is_passed_need_no_config_json(saved: Any) -> None:
    model, folder = saved
    (folder / "config.json").unlink()
    assert_bit_equal(model, pio.from_pretrained(folder, config=model.config))
    with pytest.raises(OSError, match=r"has no config\.json"):
        pio.from_pretrained(folder)


def test_pickles_are_not_read(saved: Any) -> None:
    model, folder = saved
    (folder / WEIGHTS).unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=WEIGHTS):
        pio.from_pretrained(folder)


@pytest.mark.parametrize(
    "load", [pio.from_pretrained, PerceiverIO.from_pretrained, PerceiverIOConfig.from_pretrained]
)
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\x01"])
def test_invalid_json_is_refused(saved: Any, load: Any, text: str) -> None:
    _, folder = saved
    (folder / "config.json").write_text(text)
    # OSError is what `transformers` makes of it.
    with pytest.raises((ValueError, OSError), match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("load", [pio.from_pretrained, PerceiverIO.from_pretrained])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"no_such_key": 1}, r"unknown keys \['no_such_key'\]"),
        ({"model_type": "bert"}, "'bert' model, expected 'perceiver_io'"),
        ({"inputs": {"image": {"type": "lidar"}}}, "There is no adapter 'lidar'"),
    ],
)
def test_configurations_that_are_not_ours_are_refused(
    saved: Any, load: Any, changes: dict[str, Any], message: str
) -> None:
    _, folder = saved
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_unknown_model_classes_are_refused(saved: Any) -> None:
    _, folder = saved
    change_config(folder, architectures=["PerceiverIOForTelepathy"])
    with pytest.raises(
        ValueError, match=r"'PerceiverIOForTelepathy', which is not known here\. Known: .*PerceiverIO,"
    ):
        pio.from_pretrained(folder)


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no_such_folder"):
        pio.from_pretrained(tmp_path / "no_such_folder")


class Gate(Decoder):
    """A decoder of somebody else's, unregistered."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        width: int

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(parts.latent_channels, config.width)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        return self.layer(encoded.latents).sigmoid()


@pytest.fixture
def unregistered(tmp_path: Path) -> Iterator[tuple[PerceiverIO, Path, dict[str, Any]]]:
    classes: dict[str, Any] = {"adapters": {"elements": ElementsAdapter}, "decoders": {"gate": Gate}}
    model = PerceiverIO(
        PerceiverIOConfig(
            inputs={"x": ElementsAdapter.Config(num_channels=4)},
            encoder=EncoderConfig(num_latents=3, latent_channels=8),
            outputs={"y": Gate.Config(width=2), "label": ClassificationDecoder.Config(num_classes=2)},
            **classes,
        )
    ).eval()
    model.save_pretrained(tmp_path)
    yield model, tmp_path, classes


@pytest.mark.parametrize("load", [pio.from_pretrained, PerceiverIO.from_pretrained])
def test_unregistered_classes_are_passed_on_loading(unregistered: Any, load: Any) -> None:
    model, folder, classes = unregistered
    twin = load(folder, **classes)
    assert_bit_equal(model, twin)
    x = torch.randn(2, 5, 4)
    assert torch.equal(model({"x": x})["y"], twin({"x": x})["y"])
    with pytest.raises(ValueError, match="There is no adapter 'elements'"):
        load(folder)
    with pytest.raises(ValueError, match="There is no decoder 'gate'"):
        load(folder, adapters=classes["adapters"])


def test_a_twin_saves_again(unregistered: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    model, folder, classes = unregistered
    again = tmp_path_factory.mktemp("again")
    pio.from_pretrained(folder, **classes).save_pretrained(again)
    assert_bit_equal(model, pio.from_pretrained(again, **classes))


def test_plugins_that_fail_to_import_only_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import perceiver_io.loading

    points = [
        EntryPoint("broken", "no_such_module", "perceiver_io.models"),
        EntryPoint("good", "perceiver_io.tasks.image_classification", "perceiver_io.models"),
    ]
    monkeypatch.setattr(perceiver_io.loading, "entry_points", lambda **_: points)
    with pytest.warns(UserWarning, match="'broken' cannot be imported: .* ModuleNotFoundError"):
        perceiver_io.loading.load_model_plugins()

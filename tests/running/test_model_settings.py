from __future__ import annotations

from typing import Any

import pytest

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.running.model_settings import ModelSettings, with_settings
from perceiver_io.vector_decoders import ClassificationDecoder


def config(**encoder: Any) -> PerceiverIOConfig:
    return PerceiverIOConfig(
        inputs={"text": TextAdapter.Config(vocab_size=9, max_length=5, num_channels=8)},
        encoder=EncoderConfig(**{"num_latents": 4, "latent_channels": 16} | encoder),
        outputs={"label": ClassificationDecoder.Config(num_classes=3)},
    )


def test_settings_are_laid_over_a_configuration() -> None:
    settings = {
        "encoder": {"num_latents": 6, "dropout": 0.5},
        "inputs": {"text": {"max_length": 7}},
        "outputs": {"label": {"query_channels": 24}},
    }
    old = config()
    new = with_settings(old, ModelSettings(settings))
    assert (new.encoder.num_latents, new.encoder.dropout, new.encoder.latent_channels) == (6, 0.5, 16)
    assert new.inputs["text"] == TextAdapter.Config(vocab_size=9, max_length=7, num_channels=8)
    assert new.outputs["label"] == ClassificationDecoder.Config(num_classes=3, query_channels=24)
    assert old == config()
    assert with_settings(old, ModelSettings({})) == old


def test_parts_are_read_as_settings_by_name() -> None:
    settings = ModelSettings(
        {"encoder": {"dropout": 0.5}, "inputs": {"text": {"max_length": 7}, "more": None}}
    )
    assert settings.encoder == {"dropout": 0.5}
    assert settings.input("text") == {"max_length": 7}
    assert (
        settings.input("more") == settings.input("other") == settings.output("text") == settings.packing == {}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"num_latent": 3}}, r"num_latent\b.*num_latents"),
        ({"encoder": {"num_latents": "many"}}, "num_latents"),
        (
            {"inputs": {"image": {"size": 3}}},
            r"no model.inputs.image to set \['size'\].*inputs \['text'\].*outputs \['label'\]",
        ),
        ({"outputs": {"flow": {"size": 3}}}, "no model.outputs.flow"),
        ({"shared_attention": {"num_heads": 3}}, "no model.shared_attention"),
    ],
)
def test_what_cannot_be_set(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_settings(config(), ModelSettings(settings))


def test_a_setting_that_was_passed_over_is_refused() -> None:
    settings = ModelSettings({"encoder": {"num_latents": 6, "dropout": 0.5}})
    settings.check(config(num_latents=6, dropout=0.5))
    with pytest.raises(ValueError, match=r"model.encoder cannot be set so.*'num_latents': \(6, 4\)"):
        settings.check(config(dropout=0.5))


@pytest.mark.parametrize("name", ["inputs", "outputs"])
def test_a_setting_of_a_part_that_is_not_there_is_refused(name: str) -> None:
    settings = ModelSettings({name: {"picture": {"size": 3}}})
    with pytest.raises(ValueError, match=rf"no model.{name}.picture to set \['size'\]"):
        settings.check(config())

"""Folders from strangers: whatever stands in their files, loading says what is wrong, and nothing else happens."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from published.theirs import CASES
from safetensors.torch import save_file
from transformers import AutoModel

import perceiver_io as pio
from perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks import image_classification
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LOADERS = [pio.from_pretrained, PerceiverIOForImageClassification.from_pretrained]
NOT_LOADED = (ValueError, OSError)

HUGE = [10**9, 10**12, 2**62, 2**63, 10**30, -1, -(10**12), 1e999, -1e999, 1e308, 1e-320, 0, 0.5, True, None, ""]
VALUES = st.recursive(
    st.sampled_from(HUGE) | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind of part, and a published one."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("images", "texts", "published")}
    encoder = {
        "num_latents": 3,
        "latent_channels": 8,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
    }
    config = image_classification.config(
        size=(4, 4), variant="tiny", num_classes=3, image={"num_bands": 2}, encoder=encoder
    )
    PerceiverIOForImageClassification(config).save_pretrained(found["images"])
    PerceiverIO(
        PerceiverIOConfig(
            inputs={
                "text": TextAdapter.Config(vocab_size=11, max_length=9, num_channels=6, features="conv"),
                "image": ImageAdapter.Config(size=(4, 4), position="learned", position_channels=3),
            },
            encoder=pio.EncoderConfig(**encoder),
            outputs={
                "text": pio.DenseDecoder.Config(
                    output_channels=11,
                    grid=(9,),
                    grid_input="text",
                    position="learned",
                    position_channels=6,
                    position_resize="truncate",
                    channel_axis=-1,
                ),
                "age": pio.RegressionDecoder.Config(),
            },
            packing=pio.PackingConfig(mask_probabilities=(("text", 0.5),)),
            shared_attention=pio.SharedAttentionConfig(outputs=("text", "age"), output_channels=6),
        )
    ).save_pretrained(found["texts"])
    CASES["fourier"].make().save_pretrained(found["published"])
    return found


def fields(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything in JSON values."""
    yield place
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        yield from fields(values[key], (*place, key))


def replaced(values: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = values.copy()
    copy[place[0]] = replaced(values[place[0]], place[1:], new)
    return copy


@pytest.mark.parametrize("name", ["images", "texts", "published"])
def test_every_field_may_hold_anything(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    original = json.loads((folders[name] / CONFIG).read_text())
    (tmp_path / WEIGHTS).symlink_to(folders[name] / WEIGHTS)

    @settings(max_examples=250)
    @given(place=st.sampled_from(list(fields(original))), value=VALUES)
    def check(place: tuple[Any, ...], value: Any) -> None:
        (tmp_path / CONFIG).write_text(json.dumps(replaced(original, place, value)))
        try:
            pio.from_pretrained(tmp_path)
        except NOT_LOADED as error:
            assert len(str(error)) < 5000

    check()

"""Windows of text and the model's length; what is damaged beside a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perceiver_io.data import ByteWindows, Splits
from perceiver_io.running.building import build
from perceiver_io.tasks import masked_language_modeling as mlm
from perceiver_io.tasks.masked_language_modeling.recipe import MaskedLanguageModelingRecipe
from perceiver_io.tasks.masked_language_modeling.task import MaskedLanguageModelingTask

TASK = MaskedLanguageModelingTask()
ROWS = ByteWindows([b"some text"], 4)
DATA = Splits(train=ROWS, validation=None, test=ROWS)
LONG = {"inputs": {"text": {"max_length": 16}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny", max_length=16))
    model.save_pretrained(path)
    TASK.save_processor(model, path)
    return path


@pytest.mark.parametrize("settings", [{"variant": "tiny", "model": LONG}, {"pretrained": True}])
def test_windows_that_are_longer_than_the_model_are_refused(settings: dict[str, Any], folder: Path) -> None:
    if "pretrained" in settings:
        settings = {"pretrained": str(folder)}
    with pytest.raises(ValueError, match=r"max_length is 17 tokens, but the model takes 16\."):
        build(TASK, MaskedLanguageModelingRecipe(max_length=17, **settings), DATA)
    setup = build(TASK, MaskedLanguageModelingRecipe(max_length=9, **settings), DATA)
    assert setup.model.max_length in (9, 16)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json of .* is damaged: "):
        TASK.load(folder, device="cpu")

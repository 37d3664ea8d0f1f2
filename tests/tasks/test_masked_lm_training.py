"""A tiny model learns a few sentences by heart; it is then used in every way that there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, PerceiverTokenizer, pipeline

import perceiver_io as pio
from perceiver_io.cli import main
from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks import masked_language_modeling as mlm
from perceiver_io.tasks.masked_language_modeling.task import MaskedLanguageModelingTask

SENTENCES = ["The cat sat on the mat.", "Zürich lies by a lake."]


@pytest.fixture(scope="module")
def trained() -> mlm.PerceiverIOForMaskedLM:
    torch.manual_seed(0)
    model = mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny", max_length=32, encoder={"num_latents": 16}))
    tokenizer = PerceiverTokenizer()
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rows = [tokenizer(sentence) for sentence in SENTENCES]
    for _ in range(400):
        loss = model(**collate(rows)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def folder(trained: mlm.PerceiverIOForMaskedLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked-lm")
    trained.save_pretrained(path)
    MaskedLanguageModelingTask().save_processor(trained, path)
    return path


def test_it_fills_in_what_it_learned(trained: mlm.PerceiverIOForMaskedLM) -> None:
    fill = mlm.FillMaskPipeline(trained)
    assert fill(SENTENCES[0], mask=(3, 7)).fills == (" cat",)
    assert fill(SENTENCES[0], mask=[(4, 7), (19, 22)]).fills == ("cat", "mat")
    assert fill(SENTENCES[1], mask=(0, 2)).fills == ("Zü",)
    assert fill("Z[MASK][MASK]rich lies by a lake.").text == SENTENCES[1]


def test_prediction_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["The [MASK][MASK][MASK] sat on the mat.", "Z[MASK][MASK]rich lies by a lake."]
    assert main(["predict", str(folder), *texts, "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[4]] == SENTENCES and len(lines) == 7
    assert lines[1].startswith("  byte 4: c   of  c ") and lines[5].startswith("  byte 1: \\xc3   of  \\xc3 ")
    assert main(["predict", str(folder), texts[0], "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["input"] == texts[0] and result["text"] == SENTENCES[0] and result["fills"] == ["cat"]
    assert len(result["masked"]) == 3 and len(result["masked"][0]["candidates"]) == 5
    assert main(["predict", str(folder), texts[0], "--json", "--no-special-tokens"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["masked"][0]["position"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "Nothing is masked"),
        (["[MASK]" * 40], "42 tokens"),
        (["[MASK]", "--top-k", "0"], "top_k is 0"),
        (["[MASK]", "--batch-size", "0"], "batch_size is 0"),
        (["[MASK]", "-o", "folder"], "leave out --output-dir"),
    ],
)
def test_bad_arguments(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_another_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ic.config(variant="tiny", size=(8, 8), num_classes=2)
    ic.PerceiverIOForImageClassification(config).save_pretrained(tmp_path)
    assert main(["predict", str(tmp_path), "[MASK]", "--task", "masked-language-modeling"]) == 2
    assert (
        "is a PerceiverIOForImageClassification, expected a PerceiverIOForMaskedLM" in capsys.readouterr().err
    )


def test_the_saved_folder_holds_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is PerceiverTokenizer and tokenizer.model_max_length == 32
    assert tokenizer("Zü")["input_ids"] == [4, 96, 201, 194, 5]
    # A folder without one is as good: the tokenizer has no files that it needs.
    assert type(pio.from_pretrained(folder)) is mlm.PerceiverIOForMaskedLM


def test_the_tokenizer_is_taken_over(
    trained: mlm.PerceiverIOForMaskedLM, folder: Path, tmp_path: Path
) -> None:
    PerceiverTokenizer(mask_token="<?>").save_pretrained(tmp_path)
    MaskedLanguageModelingTask().save_processor(trained, folder / "copy", source=tmp_path)
    assert AutoTokenizer.from_pretrained(folder / "copy").mask_token == "<?>"


def test_the_pipeline_of_transformers_fills_single_bytes(folder: Path) -> None:
    fill = pipeline("fill-mask", model=str(folder), device="cpu")
    best = fill("The ca[MASK] sat on the mat.")[0]
    assert best["token_str"] == "t" and best["sequence"] == SENTENCES[0]
    ours = mlm.FillMaskPipeline(pio.from_pretrained(folder).eval())("The ca[MASK] sat on the mat.")
    assert ours.masked[0].filled.probability == pytest.approx(best["score"], rel=1e-4)
    # It looks at one byte at a time, and the bytes of "ü" alone are no characters.
    first, second = fill("Z[MASK][MASK]rich lies by a lake.")
    assert [first[0]["token_str"], second[0]["token_str"]] == ["\ufffd", "\ufffd"]


def test_characters_that_steer_a_terminal_are_not_printed() -> None:
    described = MaskedLanguageModelingTask().describe_prediction({"text": "é\x1b[2J\x07\ta\nb", "masked": []})
    assert described == "é\\x1b[2J\\x07\ta\nb"

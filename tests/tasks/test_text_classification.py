"""Text classification: the embedded passages, texts of one's own, pipelines, padding, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PerceiverTokenizer, pipeline

from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.cli.main import main
from perceiver_io.running.building import build
from perceiver_io.running.runner import attention, evaluate, predict, train
from perceiver_io.tasks import masked_language_modeling as mlm
from perceiver_io.tasks import text_classification as tc
from perceiver_io.tasks.modalities.text import TEXTS, TextSettings
from perceiver_io.tasks.text_classification.data import stdlib_packages
from perceiver_io.tasks.text_classification.task import TextClassificationTask

TASK = TextClassificationTask()
TINY = {
    "max_steps": 2,
    "batch_size": 4,
    "device": "cpu",
    "report_to": "none",
    "evaluate_every": 1,
    "model": {
        "encoder": {"num_latents": 4, "latent_channels": 16},
        "inputs": {"text": {"num_channels": 16, "embedding_channels": 8}},
    },
}
GREETINGS = {"hello": "Good morning, number {}!" + " Hé" * 3, "bye": "So long, {}."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    for name, text in GREETINGS.items():
        (root / name).mkdir()
        for index in range(10):
            (root / name / f"{index}.txt").write_text(text.format(10**index))
    return root


def recipe(folder: Path | str, tmp_path: Path, **changes: Any) -> Any:
    values = {**TINY, "dataset": str(folder), "output_dir": str(tmp_path / "run")} | changes
    return TASK.recipe_class(**values)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    train(TASK, recipe(folder, root))
    return root / "run"


def test_passages_are_the_same_each_time_and_modules_are_held_out_whole(tmp_path: Path) -> None:
    made = stdlib_packages()
    assert made.rows == stdlib_packages().rows
    assert all(len(row["text"].encode()) <= 512 for row in made.rows)
    assert made.groups is not None
    module_of = {row["text"]: module for row, module in zip(made.rows, made.groups, strict=True)}
    data = TASK.data(recipe("stdlib-packages", tmp_path))
    sets = [
        {module_of[part[index]["text"]] for index in range(len(part))}
        for part in (data.train, data.validation, data.test)
    ]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert sum(map(len, sets)) == len(set(made.groups))
    for rows in (data.train, data.validation, data.test):
        assert {rows[index]["label"] for index in range(len(rows))} == set(range(6))
    assert 0.15 < len(data.test) / len(made.rows) < 0.25
    other = TASK.data(recipe("stdlib-packages", tmp_path, seed=1))
    assert [row["text"] for row in other.test] == [row["text"] for row in data.test]


def test_pipeline_and_auto_classes_give_what_predict_gives(run: Path, folder: Path) -> None:
    file = folder / "hello" / "3.txt"
    text = file.read_text()
    of_file, of_text = predict(TASK, run, [str(file), text])
    assert of_file["labels"] == of_text["labels"] and of_text["file"] == text
    expected = {one["label"]: one["probability"] for one in of_file["labels"]}
    model = AutoModelForSequenceClassification.from_pretrained(run)
    assert type(model) is tc.PerceiverIOForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert type(tokenizer) is PerceiverTokenizer
    theirs = pipeline("text-classification", model=model, tokenizer=tokenizer)(text, top_k=None)
    assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in theirs} == expected


@pytest.mark.parametrize("special_tokens", [True, False])
def test_a_tokenizer_becomes_the_processor_that_it_was_saved_of(tmp_path: Path, special_tokens: bool) -> None:
    processor = ByteTextProcessor(max_length=40, special_tokens=special_tokens)
    processor.save_pretrained(tmp_path)
    assert TEXTS.loaded(AutoTokenizer.from_pretrained(tmp_path)) == processor
    assert TEXTS.loaded(PerceiverTokenizer()) == ByteTextProcessor()
    with pytest.raises(ValueError, match="expected a PerceiverTokenizer"):
        TEXTS.loaded(object())


def test_padding_changes_nothing(folder: Path, tmp_path: Path) -> None:
    settings = recipe(folder, tmp_path)
    setup = build(TASK, settings, TASK.data(settings))
    setup.model.eval()
    rows = [{"text": text} for text in ("a", "Good morning!", "Hé, so long")]
    batch = TASK.collate(rows, setup.processor)
    assert not batch["attention_mask"].all()
    with torch.inference_mode():
        together = setup.model(**batch).logits
        alone = torch.cat([setup.model(**TASK.collate([row], setup.processor)).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_variation_is_a_window_with_holes() -> None:
    text = "0123456789" * 5
    processor = TEXTS.processor(TextSettings(), [text])
    assert processor.max_length == 52
    still = TextSettings(crop=0, byte_dropout=0)
    assert torch.equal(TEXTS.varied(text, processor, still), processor.prepare(text))
    whole = processor.prepare(text)[1:-1]
    for _ in range(20):
        ids = TEXTS.varied(text, processor, TextSettings(crop=0.5, byte_dropout=0.2))
        assert (ids[0], ids[-1]) == (4, 5) and 25 <= len(ids) - 2 <= 50
        windows = whole.unfold(0, len(ids) - 2, 1)
        assert ((ids[1:-1] == windows) | (ids[1:-1] == 3)).all(1).any()
    short = ByteTextProcessor(max_length=12)  # of a text that is too long any part is seen
    starts = {TEXTS.varied(text, short, still)[1].item() for _ in range(60)}
    assert len(starts) == 10


def test_tables_of_texts(folder: Path, tmp_path: Path) -> None:
    texts = [GREETINGS[name].format(index) for name in GREETINGS for index in range(10)]
    labels = [name for name in GREETINGS for _ in range(10)]
    (tmp_path / "table").mkdir()
    table = datasets.Dataset.from_dict({"sentence": texts, "kind": labels})
    table.to_parquet(tmp_path / "table" / "train.parquet")
    settings = recipe(tmp_path / "table", tmp_path, input_column="sentence", label_column="kind")
    data = TASK.data(settings)
    assert data.class_names == ("bye", "hello")
    assert TEXTS.content.decode(data.train[0]["text"]) in texts
    batch = TASK.collate([data.train[0], data.train[1]], TASK.processor(settings, data))
    assert batch["input_ids"].shape[0] == 2
    with pytest.raises(ValueError, match="'number' of the train split holds no texts"):
        datasets.Dataset.from_dict({"number": [1, 2], "label": ["a", "b"]}).to_parquet(
            tmp_path / "table" / "train.parquet"
        )
        TASK.data(recipe(tmp_path / "table", tmp_path, input_column="number"))


def test_evaluates_resumes_and_draws(run: Path, folder: Path, tmp_path: Path) -> None:
    assert evaluate(TASK, run, split="validation")["validation_samples"] > 0
    assert main(["train", "text-classification", "--output-dir", str(run), "--resume"]) == 0
    attention(TASK, run, ["Good morning, whoever you are."], tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 5000
    assert {"confusion.png", "attention.png", "learning_curve.png"} <= {one.name for one in run.iterdir()}


def test_starts_from_a_run_with_other_classes(run: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "other" / name / f"{index}.txt").write_text(f"{name} {index}")
    settings = recipe(tmp_path / "other", tmp_path, pretrained=str(run), model={}, validation_fraction=0.3)
    assert train(TASK, settings)["steps"] == 2
    assert TASK.load(tmp_path / "run").model.num_classes == 3


def test_starts_from_a_language_model(folder: Path, tmp_path: Path) -> None:
    language = mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny", max_length=64))
    language.save_pretrained(tmp_path / "language")
    settings = recipe(folder, tmp_path, pretrained=str(tmp_path / "language"), model={})
    setup = build(TASK, settings, TASK.data(settings))
    assert type(setup.model) is tc.PerceiverIOForSequenceClassification
    assert list(setup.model.config.outputs) == ["label"] and setup.model.num_classes == 2
    assert setup.processor.processors["text"].max_length == 64
    ours, theirs = setup.model.state_dict(), language.state_dict()
    shared = [name for name in ours if not name.startswith("perceiver.decoders.")]
    assert len(shared) > 10 and all(torch.equal(ours[name], theirs[name]) for name in shared)
    assert train(TASK, settings)["steps"] == 2
    assert predict(TASK, tmp_path / "run", ["Good morning"])[0]["labels"][0]["label"] in GREETINGS
    with pytest.raises(ValueError, match="it belongs to another task"):
        TASK.load(tmp_path / "language")


def test_bad_files_are_named(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in GREETINGS:
        (tmp_path / "bad" / name).mkdir(parents=True)
        for file in (folder / name).iterdir():
            (tmp_path / "bad" / name / file.name).symlink_to(file)
    broken = tmp_path / "bad" / "bye" / "broken.txt"
    broken.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"broken\.txt \(not UTF-8 at byte 3"):
        TASK.data(recipe(tmp_path / "bad", tmp_path))
    assert len(TASK.data(recipe(tmp_path / "bad", tmp_path, skip_bad_files=True)).train) > 10
    assert main(["predict", str(run), str(broken)]) == 2
    assert "broken.txt is not UTF-8" in capsys.readouterr().err
    assert main(["predict", str(run), ""]) == 2
    assert "The text is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_length": 0}, "max_length"),
        ({"crop": 1.0}, "crop"),
        ({"byte_dropout": -0.1}, "byte_dropout"),
        ({"words": 3}, "words"),
    ],
)
def test_bad_settings(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"section text: .*{message}"):
        TASK.recipe_class(text=section)


def test_presets() -> None:
    config = tc.config(class_names=["a", "b"], variant="tiny", settings={"max_length": 64})
    assert config.inputs["text"].max_length == 64
    model = tc.PerceiverIOForSequenceClassification(config)
    assert model(torch.randint(6, 262, (2, 20))).logits.shape == (2, 2)
    with pytest.raises(ValueError, match="variant"):
        tc.config(variant="huge")

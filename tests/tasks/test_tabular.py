"""Classes and numbers of rows of a table: files of one's own, what is missing, files of many rows, padding."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import perceiver_io as pio
from perceiver_io.cli.main import main
from perceiver_io.running.building import build
from perceiver_io.running.runner import attention, evaluate, predict, train
from perceiver_io.tasks import tabular
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.modalities.table import ROWS, TableSettings
from perceiver_io.tasks.regression import PerceiverIOForRegression
from perceiver_io.tasks.tabular.classification import TabularClassificationTask
from perceiver_io.tasks.tabular.data import CLASSIFICATION_SETS, REGRESSION_SETS, read_rows
from perceiver_io.tasks.tabular.regression import TabularRegressionTask

CLASSES, NUMBERS = TabularClassificationTask(), TabularRegressionTask()
TINY = {
    "max_steps": 2,
    "batch_size": 4,
    "device": "cpu",
    "report_to": "none",
    "evaluate_every": 1,
    "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
}
LABELS = {CLASSES.name: "sold", NUMBERS.name: "price"}
TASKS = pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=[CLASSES.name, NUMBERS.name])


def houses(count: int = 40) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        area, town = float(rng.normal(90, 20)), str(rng.choice(["Ulm", "Bonn", "Köln"]))
        rows.append(
            {
                "area": None if index % 7 == 3 else area,
                "town": None if index % 5 == 4 else town,
                "garden": bool(rng.random() < 0.5),
                "rooms": int(rng.integers(1, 6)),
                "price": 3 * area + 50 * (town == "Bonn"),
                "sold": "yes" if area > 90 else "no",
            }
        )
    return rows


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    table = datasets.Dataset.from_list(rows)
    if path.suffix == ".csv":
        table.to_csv(path)
    elif path.suffix == ".tsv":
        table.to_csv(path, sep="\t")
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(houses(), tmp_path_factory.mktemp("houses") / "houses.csv")


def recipe(task: Any, source: Path | str, tmp_path: Path, **changes: Any) -> Any:
    values = {**TINY, "dataset": str(source), "output_dir": str(tmp_path / "run")}
    if str(source) not in task.recipe_class.embedded:
        values |= {"label_column": LABELS[task.name]}
    return task.recipe_class(**values | changes)


@pytest.fixture(scope="module")
def runs(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for task in (CLASSES, NUMBERS):
        root = tmp_path_factory.mktemp(task.name)
        train(task, recipe(task, table, root, table={"columns": ["area", "town", "garden", "rooms"]}))
        made[task.name] = root / "run"
    return made


@pytest.mark.parametrize(
    ("name", "size", "columns"),
    [("breast-cancer", 569, 30), ("wine", 178, 13), ("diabetes", 442, 10), ("friedman", 4000, 11)],
)
def test_embedded_tables(name: str, size: int, columns: int, tmp_path: Path) -> None:
    rows = (CLASSIFICATION_SETS | REGRESSION_SETS)[name]()
    assert len(rows) == size and all(len(row) == columns + 1 for row in rows)
    assert rows == (CLASSIFICATION_SETS | REGRESSION_SETS)[name]()
    task = CLASSES if name in CLASSIFICATION_SETS else NUMBERS
    data = task.data(recipe(task, name, tmp_path))
    assert len(data.train) + len(data.validation) + len(data.test) == size
    assert "label" not in data.train[0]["table"]


def test_friedman_is_what_it_says() -> None:
    rows = [row for row in REGRESSION_SETS["friedman"]() if None not in row.values()]
    shift = {"north": -3, "east": -1, "south": 1, "west": 3}
    noise = [
        row["label"]
        - shift[row["site"]]
        - 10 * math.sin(math.pi * row["x1"] * row["x2"])
        - 20 * (row["x3"] - 0.5) ** 2
        - 10 * row["x4"]
        - 5 * row["x5"]
        for row in rows
    ]
    assert len(rows) > 1000 and abs(np.mean(noise)) < 0.1 and 0.95 < np.std(noise) < 1.05


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_files_of_rows(suffix: str, tmp_path: Path) -> None:
    rows = houses()
    read = read_rows(write(rows, tmp_path / f"houses{suffix}"))
    assert len(read) == len(rows)
    for one, other in zip(read, rows, strict=True):
        assert one == {
            name: pytest.approx(cell) if isinstance(cell, float) else cell for name, cell in other.items()
        }


@TASKS
def test_folders_with_sets(task: Any, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    for number, name in enumerate(("train", "test")):
        write(houses(30)[number * 10 : 20 + number * 10], tmp_path / "sets" / f"{name}.csv")
    data = task.data(recipe(task, tmp_path / "sets", tmp_path))
    assert len(data.test) == 20 and len(data.train) + len(data.validation) == 20


@TASKS
def test_every_row_of_a_file_is_predicted(task: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    rows = houses(70)  # more than a batch
    file = write(rows, tmp_path / "new.jsonl")
    results = predict(task, runs[task.name], [str(file)])
    assert [one["file"] for one in results] == [f"{file}:{number}" for number in range(1, 71)]
    loaded = task.load(runs[task.name])
    assert type(loaded.model) is (
        PerceiverIOForClassification if task is CLASSES else PerceiverIOForRegression
    )
    columns = loaded.processor.processors["table"].columns
    assert columns == ("area", "town", "garden", "rooms")
    for number in (0, 6, 69):
        row = {column: rows[number][column] for column in columns}
        with torch.no_grad():
            logits = loaded.model(**loaded.processor({"table": row})).logits[0]
        if task is CLASSES:
            found = {one["label"]: one["probability"] for one in results[number]["labels"]}
            assert found == {
                name: pytest.approx(p, abs=1e-5)
                for name, p in zip(("no", "yes"), logits.softmax(-1).tolist(), strict=True)
            }
        else:
            assert results[number]["value"] == pytest.approx(logits.item(), rel=1e-4)
    (alone,) = predict(task, runs[task.name], [f"{file}:7"])
    assert alone["file"] == f"{file}:7"


@TASKS
def test_what_is_missing_changes_nothing_for_others(task: Any, table: Path, tmp_path: Path) -> None:
    settings = recipe(task, table, tmp_path)
    setup = build(task, settings, task.data(settings))
    setup.model.eval()
    rows = [
        {"table": row}
        for row in ({"area": 80.0}, {"area": 95.0, "town": "Ulm", "rooms": 2}, {"town": "Rom", "rooms": 1})
    ]
    batch = task.collate(rows, setup.processor)
    assert not batch["masks"]["table"].all()
    with torch.inference_mode():
        together = setup.model(**batch).logits
        alone = torch.cat([setup.model(**task.collate([row], setup.processor)).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_numbers_start_from_the_training_mean(table: Path, tmp_path: Path) -> None:
    settings = recipe(NUMBERS, table, tmp_path)
    data = NUMBERS.data(settings)
    labels = np.array([row["label"] for row in data.train])
    part = NUMBERS.config(settings, data).outputs["value"]
    assert part.offset == (pytest.approx(labels.mean()),) and part.scale == (pytest.approx(labels.std()),)
    changed = recipe(NUMBERS, table, tmp_path, model={"outputs": {"value": {"offset": [1.0]}}})
    assert NUMBERS.config(changed, data).outputs["value"].offset == (1.0,)


@TASKS
def test_evaluates_resumes_draws_and_goes_on(
    task: Any, runs: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    run = runs[task.name]
    assert evaluate(task, run, split="validation")["validation_samples"] > 0
    assert main(["train", task.name, "--output-dir", str(run), "--resume"]) == 0
    attention(task, run, [f"{table}:2"], tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 5000
    assert {"attention.png", "learning_curve.png"} <= {one.name for one in run.iterdir()}
    results = train(task, recipe(task, table, tmp_path, pretrained=str(run), model={}))
    assert results["steps"] == 2
    twin = pio.from_pretrained(tmp_path / "run")
    assert type(twin) is task.model_class


@TASKS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_column": "colour"}, "no column 'colour', it has"),
        ({"table": {"columns": ["area", "colour"]}}, r"no columns \['colour'\]"),
        ({"table": {"categorical": ["colour"]}}, "colour"),
        ({"dataset": "nowhere.csv"}, "nowhere.csv is missing"),
        ({"dataset": None}, "There is no dataset"),
        ({"label_column": "area"}, r"6 rows of the train set have no 'area'"),
    ],
)
def test_wrong_arguments(
    task: Any, change: dict[str, Any], message: str, table: Path, tmp_path: Path
) -> None:
    settings = recipe(task, table, tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        task.processor(settings, task.data(settings))


def test_labels_that_are_none(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold numbers"):
        NUMBERS.data(recipe(NUMBERS, table, tmp_path, label_column="sold"))
    same = write([{**row, "sold": "no"} for row in houses()], tmp_path / "same.csv")
    with pytest.raises(ValueError, match="the class 'no' alone"):
        CLASSES.data(recipe(CLASSES, same, tmp_path))


@TASKS
def test_rows_that_hold_nothing(task: Any, tmp_path: Path) -> None:
    rows = houses()
    for index in (1, 30):
        rows[index] |= {"area": None, "town": None}
    file = write(rows, tmp_path / "houses.parquet")
    of = {"table": {"columns": ["area", "town"]}}
    with pytest.raises(ValueError, match=r"3 rows of the train set hold nothing .*: rows 2, 25, 31\."):
        task.data(recipe(task, file, tmp_path, **of))
    data = task.data(recipe(task, file, tmp_path, skip_bad_files=True, **of))
    assert len(data.train) + len(data.validation) + len(data.test) == 37


@TASKS
def test_bad_files(
    task: Any, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs[task.name])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.csv").write_text("area,town\n")
    (tmp_path / "other.csv").write_text("height\n3\n")
    (tmp_path / "text.csv").write_text("area,town\nbig,Ulm\n")
    for name, message in (
        ("broken.parquet", "is no table"),
        ("empty.csv", "has no rows"),
        ("other.csv", "expected some of ['area', 'town', 'garden', 'rooms']"),
        ("text.csv", "'area' holds 'big'"),
        ("text.csv:2", "there is no row 2"),
        ("gone.csv", "is missing"),
        ("photo.png", "no table that can be read"),
    ):
        assert main(["predict", run, str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_variation_hides_cells_but_not_all() -> None:
    rows = [{"a": float(index), "b": index % 3} for index in range(9)]
    processor = ROWS.processor(TableSettings(categorical=("b",)), rows)
    assert processor.num_categories == (0, 3)
    still = ROWS.varied(rows[1], processor, TableSettings(cell_dropout=0))
    assert torch.equal(still, processor.prepare(rows[1]))
    drawn = [ROWS.varied(rows[1], processor, TableSettings(cell_dropout=0.5)) for _ in range(50)]
    assert len({tuple(one.isnan().tolist()) for one in drawn}) == 3


@pytest.mark.parametrize("section", [{"columns": []}, {"cell_dropout": 1.0}, {"rows": 3}])
@TASKS
def test_bad_settings(task: Any, section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"section table: .*{next(iter(section))}"):
        task.recipe_class(table=section)


def test_presets() -> None:
    columns = [("number", 0.0, 1.0), ("category", 3)]
    rows = torch.tensor([[0.3, 2.0], [float("nan"), 1.0]])
    classes = PerceiverIOForClassification(
        tabular.classification_config(columns=columns, class_names=["a", "b"])
    )
    assert classes({"table": rows}).logits.shape == (2, 2)
    numbers = PerceiverIOForRegression(tabular.regression_config(columns=columns, offset=5.0, scale=0.1))
    assert numbers({"table": rows}).logits.shape == (2, 1)
    with pytest.raises(ValueError, match="variant"):
        tabular.regression_config(columns=columns, variant="huge")

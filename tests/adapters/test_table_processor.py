"""Rows to numbers: kinds, categories, scales, and what is missing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io.adapters.table_processor import TableProcessor

ROWS: list[dict[str, Any]] = [
    {"age": 20, "sex": "f", "smoker": True, "visits": "3", "ward": 7, "constant": 5},
    {"age": 30.0, "sex": "m", "smoker": False, "visits": "10", "ward": 11, "constant": 5},
    {"age": None, "sex": "", "smoker": None, "visits": "", "ward": 7, "constant": 5},
    {"age": 70, "sex": "f", "smoker": True, "visits": "2", "ward": 2.0, "constant": 5},
]


def fitted(**options: Any) -> TableProcessor:
    return TableProcessor.fitted(ROWS, categorical=["ward"], **options)


def test_kinds_categories_and_scales_are_found() -> None:
    processor = fitted()
    assert processor.columns == ("age", "sex", "smoker", "visits", "ward", "constant")
    assert processor.categories == (None, ("f", "m"), ("False", "True"), None, ("2", "7", "11"), None)
    assert processor.num_categories == (0, 2, 2, 0, 3, 0)
    assert processor.means[0] == 40 and processor.scales[0] == pytest.approx(np.std([20, 30, 70]))
    assert processor.means[1] == 0 and processor.scales[1] == processor.scales[5] == 1


def test_rows_become_numbers() -> None:
    processor = fitted()
    rows = torch.stack([processor.prepare(row) for row in ROWS])
    assert rows.dtype == torch.float32
    assert rows[2, :4].isnan().all() and rows[:, 4].tolist() == [1, 2, 1, 0]
    assert rows[[0, 1, 3], 1].tolist() == [0, 1, 0] and rows[[0, 1, 3], 2].tolist() == [1, 0, 1]
    ages = rows[[0, 1, 3], 0]
    torch.testing.assert_close(ages.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(ages.std(correction=0), torch.tensor(1.0))
    assert rows[:, 5].tolist() == [0, 0, 0, 0]
    assert processor.prepare({"age": "40"})[0] == 0


def test_what_a_row_lacks_is_missing() -> None:
    row = fitted().prepare({"sex": "m", "age": math.nan})
    assert row[1] == 1 and row.isnan().sum() == 5
    with pytest.raises(ValueError, match="holds nothing"):
        fitted().prepare({"age": None})


def test_unknown_categories_are_missing_or_an_error() -> None:
    row = {"age": 40, "sex": "x"}
    assert fitted().prepare(row).isnan()[1]
    with pytest.raises(ValueError, match="'x' in the column 'sex' is no known category: f, m"):
        fitted(unknown="error").prepare(row)


def test_batches_say_what_is_missing() -> None:
    processor = TableProcessor.fitted(ROWS, columns=["age", "sex"])
    full, half = processor.prepare({"age": 40, "sex": "m"}), processor.prepare({"age": 40})
    batch, mask = processor.collate([full, None, half])
    assert mask is not None
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert torch.equal(batch[mask], torch.tensor([0.0, 1, 0])) and batch[~mask].isnan().all()
    assert processor.collate([full, full])[1] is None
    with pytest.raises(ValueError, match="leave the input out"):
        processor.collate([None])


def test_settings_survive_json_and_are_strict() -> None:
    processor = fitted()
    assert TableProcessor.from_dict(json.loads(json.dumps(processor.to_dict()))) == processor
    with pytest.raises(ValueError, match="unknown keys"):
        TableProcessor.from_dict({**processor.to_dict(), "names": 1})
    with pytest.raises(ValueError, match="2 columns"):
        TableProcessor(columns=("a", "b"), categories=(None,), means=(0,), scales=(1,))
    with pytest.raises(ValueError, match="above zero"):
        TableProcessor(columns=("a",), categories=(None,), means=(0,), scales=(0,))
    with pytest.raises(ValueError, match="each once"):
        TableProcessor(columns=("a",), categories=(("x", "x"),), means=(0,), scales=(1,))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "no rows"),
        ([{"a": None}, {"a": ""}], {}, r"\['a'\] hold nothing"),
        ([{"a": 1}], {"columns": ["b"]}, r"\['b'\] hold nothing"),
        ([{"a": 1}], {"categorical": ["b"]}, "said to be categorical"),
        ([{"a": 1}, {"a": math.inf}], {}, "infinities"),
        ([{"a": str(number) + "x"} for number in range(9)], {"max_categories": 8}, "9 different texts"),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableProcessor.fitted(rows, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Age": 3}, r"columns \['Age'\], expected some of"),
        ({"age": "old"}, "'age' holds 'old', expected a number"),
        ({"age": True}, "expected a number"),
        ({"age": math.inf}, "expected a number"),
        ([3], "expected a row"),
    ],
)
def test_bad_rows_are_refused(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted().prepare(row)


def test_times_in_nanoseconds_are_numbers_as_others_are() -> None:
    """Numbers beyond 1e16 are refused by models, and not here, where they are made small."""
    processor = TableProcessor.fitted([{"time": 1.6e18}, {"time": 1.8e18}])
    assert processor.prepare({"time": 1.7e18}).tolist() == [0.0]
    with pytest.raises(ValueError, match="too large for a deviation"):
        TableProcessor.fitted([{"time": 1e200}, {"time": -1e200}])

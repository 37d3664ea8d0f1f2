"""The adapter of tables: numbers, categories, what is missing, and what it refuses."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.table import TableAdapter

NAN = torch.nan
COLUMNS = (("category", 3), ("number", 10.0, 2.0), ("category", 2), ("number", 0.0, 0.5))


def adapter(columns: tuple[Any, ...] = COLUMNS, **fields: Any) -> TableAdapter:
    settings = {"num_channels": 5, "position_channels": 4, "num_frequencies": 3}
    return TableAdapter(TableAdapter.Config(columns=columns, **settings | fields))


def test_elements_are_those_of_numpy() -> None:
    module = adapter().double()
    weights = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    values = module(torch.tensor([[2.0, 13.0, 1.0, -0.25]], dtype=torch.float64)).values[0].detach().numpy()
    rows = weights["categories.rows.weight"]
    np.testing.assert_array_equal(values[0, :5], rows[2])
    np.testing.assert_array_equal(values[2, :5], rows[3 + 1])
    for place, (column, z) in enumerate([(1, 1.5), (3, -0.5)]):
        phases = 2 * np.pi * z * weights["numbers.frequencies.weight"][place]
        waves = np.concatenate([np.sin(phases), np.cos(phases)])
        expected = z * weights["numbers.slope.weight"][place] + weights["numbers.bias.weight"][place]
        expected = expected + waves @ weights["numbers.mix.weight"][place].reshape(6, 5)
        np.testing.assert_allclose(values[column, :5], expected, atol=1e-12)
    np.testing.assert_array_equal(values[:, 5:], weights["position.weight"])


def test_what_is_missing_is_masked() -> None:
    x = torch.tensor([[NAN, 11.0, 1.0, NAN], [NAN, NAN, NAN, NAN]])
    byte_array = adapter()(x)
    assert byte_array.mask is not None
    assert byte_array.mask.tolist() == [[False, True, True, False], [False] * 4]
    assert not byte_array.values[..., :5][~byte_array.mask].any()
    assert byte_array.values.isfinite().all()
    mask = torch.tensor([[True, True, False, True]] * 2)
    masked = adapter()(x, mask).mask
    assert masked is not None and masked.tolist() == [[False, True, False, False], [False] * 4]


def test_a_model_refuses_a_row_without_anything() -> None:
    model = PerceiverIO(
        PerceiverIOConfig(
            inputs={"table": adapter().config},
            encoder=EncoderConfig(num_latents=2, latent_channels=8, num_self_attention_heads=2),
            outputs={"label": ClassificationDecoder.Config(num_classes=2)},
        )
    ).eval()
    rows = torch.tensor([[1.0, 11.0, NAN, NAN], [NAN] * 4])
    assert model({"table": rows[:1]})["label"].isfinite().all()
    with pytest.raises(ValueError, match=r"Every element of the samples \[1\] is masked"):
        model({"table": rows})


def test_numbers_start_with_the_variance_of_categories() -> None:
    torch.manual_seed(1)
    module = adapter((("number", 3.0, 2.0), ("category", 500)), num_channels=400, num_frequencies=16)
    x = torch.stack([3 + 2 * torch.randn(500), torch.arange(500.0)], dim=1)
    number, category = module(x).values[..., :400].detach().std(dim=(0, 2)).tolist()
    assert number == pytest.approx(1, abs=0.15)
    assert category == pytest.approx(0.88, abs=0.1)  # a unit normal, cut at two


def test_settings_survive_json() -> None:
    config = adapter().config
    assert TableAdapter.Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[3.0, 0.0, 0.0, 0.0]], r"Column 0 of the rows must hold whole numbers from 0 to 2, got 3\.0"),
        ([[0.0, 0.0, -1.0, 0.0]], r"Column 2 .* from 0 to 1, got -1\.0"),
        ([[0.5, 0.0, 0.0, 0.0]], r"Column 0 .* got 0\.5"),
        ([[0.0, torch.inf, 0.0, 0.0]], "What is missing is NaN, not infinite"),
        ([[0.0, 0.0, 0.0]], r"must be \(batch, 4\), got 2 axes: \(1, 3\)"),
        ([0.0, 0.0, 0.0, 0.0], "got 1 axes"),
        ([[0, 0, 0, 0]], "must be floating point, got torch.int64"),
    ],
)
def test_bad_rows_are_refused(x: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(torch.tensor(x))
    with pytest.raises(ValueError, match="must not be empty"):
        adapter()(torch.zeros(0, 4))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((), "must name at least one column"),
        ((("number", 0.0, 0.0),), r"columns\[0\] must have a scale above 0"),
        ((("category", 0),), r"columns\[0\] must have at least one category"),
        ((("text", 3),), "columns must be"),
        ((("category", 3, 1),), "columns must be"),
    ],
)
def test_bad_settings_are_refused(columns: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(columns)

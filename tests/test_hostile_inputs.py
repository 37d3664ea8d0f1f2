"""Inputs that are no plain batches of numbers: each is one clear ValueError, whatever kind of tensor it is."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io.adapters.point_cloud import PointCloudAdapter
from perceiver_io.adapters.time_series import TimeSeriesAdapter
from perceiver_io.points import Points
from perceiver_io.tasks import image_classification as ic

KINDS: dict[str, Any] = {
    "meta": lambda x: x.to("meta"),
    "sparse": torch.Tensor.to_sparse,
    "sparse rows": lambda x: x.flatten(1).to_sparse_csr(),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "jagged": lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "complex": lambda x: x.to(torch.complex64),
    "half": torch.Tensor.half,
    "large": lambda x: x * 1e20,
    "largest": lambda x: torch.full_like(x, 3e38),
    "an array": lambda x: x.numpy(),
    "a list": lambda x: x.tolist(),
    "nothing": lambda x: None,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return ic.PerceiverIOForImageClassification(ic.config(size=(8, 8), num_classes=3, variant="tiny")).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_other_kinds(kind: str, model: Any) -> None:
    x = KINDS[kind](torch.rand(2, 3, 8, 8) + 0.1)
    for call in (
        lambda: model(pixel_values=x),
        lambda: model.perceiver({"image": x}),
        lambda: model.attention_maps(x),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("argument", ["masks", "hidden"])
def test_masks_of_other_kinds(argument: str, kind: str, model: Any) -> None:
    mask = KINDS[kind](torch.ones(2, 8, 8))
    with pytest.raises(ValueError) as error:
        model.perceiver({"image": torch.rand(2, 3, 8, 8)}, **{argument: {"image": mask}})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_other_kinds(kind: str) -> None:
    with pytest.raises(ValueError):
        Points.parse(KINDS[kind](torch.full((4, 2), 0.5)), (3, 3), name="image")


def test_a_model_without_memory_takes_inputs_without_memory() -> None:
    with torch.device("meta"):
        model = ic.PerceiverIOForImageClassification(ic.config(size=(8, 8), num_classes=3, variant="tiny"))
    assert model(pixel_values=torch.empty(2, 3, 8, 8, device="meta")).logits.shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_places_of_half_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    """Phases of rounded places were noise: features as far from the true ones as those of another point."""
    generator = torch.Generator().manual_seed(0)
    cloud = (torch.rand(1, 50, 3, generator=generator) * 40).to(dtype)
    series = torch.cat([torch.rand(1, 50, 1, generator=generator) * 40, torch.zeros(1, 50, 1)], dim=-1).to(
        dtype
    )
    cases: list[tuple[pio.InputAdapter, Tensor]] = [
        (PointCloudAdapter(PointCloudAdapter.Config(minimum=(0.0,) * 3, maximum=(41.0,) * 3)), cloud),
        (
            TimeSeriesAdapter(
                TimeSeriesAdapter.Config(num_variables=1, time_range=(0.0, 41.0), num_bands=16)
            ),
            series,
        ),
    ]
    for adapter, x in cases:
        exact, half = adapter(x.double()).values, adapter.to(dtype)(x).values
        assert half.dtype == dtype
        assert (half.double() - exact).abs().max() < 2**-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_classifiers_say_what_they_say_in_float32(dtype: torch.dtype, model: Any) -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    half = copy.deepcopy(model).to(dtype)
    torch.testing.assert_close(
        half(pixel_values=x.to(dtype)).logits.softmax(-1).float(),
        model(pixel_values=x).logits.softmax(-1),
        rtol=0,
        atol=0.03,
    )
    assert all(map_.weights["image"].isfinite().all() for map_ in half.attention_maps(x.to(dtype)))

"""The contract suite over every registered adapter; a new adapter adds its cases to CASES."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.registry import ADAPTERS
from perceiver_io.testing import ADAPTER_CHECKS, AdapterCase, ElementsAdapter


def image_case(*, size: tuple[int, int] = (4, 6), **fields: Any) -> AdapterCase:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, fields.get("image_channels", 3), *size, generator=generator)
    mask = torch.ones(2, *size, dtype=torch.bool)
    mask[0, : size[0] // 2] = False
    mask[1, :, : size[1] // 2] = False
    config = ImageAdapter.Config(**{"size": size, "num_bands": 2, "position_channels": 3} | fields)
    return AdapterCase(adapter_class=ImageAdapter, config=config, x=x, mask=mask)


def elements_case() -> AdapterCase:
    mask = torch.tensor([[True, True, False], [False, True, True]])
    config = ElementsAdapter.Config(num_channels=4, num_content_channels=3)
    return AdapterCase(adapter_class=ElementsAdapter, config=config, x=torch.randn(2, 3, 4), mask=mask)


# By the adapter's registered name, then by what is special about the case.
CASES: dict[str, dict[str, Callable[[], AdapterCase]]] = {
    "image": {
        "pixels-fourier": lambda: image_case(),
        "grey-without-coordinates": lambda: image_case(image_channels=1, include_coordinates=False),
        "patches-fourier-projected": lambda: image_case(
            features="patches", patch_size=2, position_projection=5
        ),
        "patches-learned-added": lambda: image_case(
            features="patches", patch_size=2, position="learned", position_projection=12, combine="add"
        ),
        "conv1x1-learned": lambda: image_case(features="conv1x1", feature_channels=4, position="learned"),
        "conv-fourier": lambda: image_case(features="conv", feature_channels=4, size=(9, 10)),
        "pixels-without-positions": lambda: image_case(position="none"),
    },
}


@pytest.mark.parametrize("check", ADAPTER_CHECKS.values(), ids=ADAPTER_CHECKS)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{adapter}-{name}")
        for adapter, cases in CASES.items()
        for name, case in cases.items()
    ]
    + [pytest.param(elements_case, id="testing-elements")],
)
def test_contract(case: Callable[[], AdapterCase], check: Callable[[AdapterCase], None]) -> None:
    check(case())


def test_every_registered_adapter_has_cases() -> None:
    # Plug-ins that happen to be installed or registered by other tests answer for themselves.
    ours = {name for name in ADAPTERS.names() if ADAPTERS.get(name).__module__.startswith("perceiver_io.")}
    assert ours == set(CASES)
    for name, cases in CASES.items():
        assert {case().adapter_class for case in cases.values()} == {ADAPTERS.get(name)}

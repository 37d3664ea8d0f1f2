"""What presets are made with: variants by name, class names, layers of settings."""

from __future__ import annotations

from typing import Any

import pytest

from perceiver_io import EncoderConfig
from perceiver_io.presets import class_labels, given, laid_over, variant_parts


def test_each_caller_gets_parts_of_its_own() -> None:
    variants: dict[str, Any] = {"a": lambda: {"x": 1}, "b": dict}
    variant_parts(variants, "a", of="thing")["x"] = 2
    assert variant_parts(variants, "a", of="thing") == {"x": 1}
    with pytest.raises(ValueError, match=r"no variant 'c' of the thing\. Known: a, b"):
        variant_parts(variants, "c", of="thing")


@pytest.mark.parametrize(
    ("num_classes", "class_names", "expected"),
    [
        (None, None, (7, None)),
        (3, None, (3, None)),
        (None, ["x", "y"], (2, {0: "x", 1: "y"})),
        (2, ("x", "y"), (2, {0: "x", 1: "y"})),
        # Nothing is made of nothing: the default is not for these.
        (0, None, (0, None)),
        (None, [], (0, {})),
    ],
)
def test_classes(num_classes: int | None, class_names: Any, expected: Any) -> None:
    assert class_labels(num_classes, class_names, default=7) == expected


@pytest.mark.parametrize(
    ("num_classes", "class_names", "message"),
    [
        (3, ["x", "y"], "num_classes is 3, but class_names has 2 names"),
        (None, ["x", "y", "x"], r"must differ from each other, got \['x', 'y', 'x'\]"),
    ],
)
def test_classes_that_do_not_fit(num_classes: int | None, class_names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_labels(num_classes, class_names, default=7)


def test_later_layers_go_before_earlier_ones() -> None:
    variant = {"num_latents": 4, "latent_channels": 8}
    found = laid_over(
        EncoderConfig, variant, None, given(latent_channels=16, dropout=None), {"num_blocks": 3}
    )
    assert found == EncoderConfig(num_latents=4, latent_channels=16, num_blocks=3)
    assert variant == {"num_latents": 4, "latent_channels": 8}
    with pytest.raises(ValueError, match=r"unknown keys \['latents'\]"):
        laid_over(EncoderConfig, variant, {"latents": 4})


def test_what_is_given_may_be_nothing_but_not_none() -> None:
    assert given(a=0, b=None, c=()) == {"a": 0, "c": ()}

"""Values are looked at where it costs nothing, or where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from perceiver_io import (
    ClassificationDecoder,
    EncoderConfig,
    PerceiverIOConfig,
    RegressionDecoder,
    check_values,
    value_checks,
)
from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.input_tools import check_finite
from perceiver_io.tasks import (
    image_classification,
    masked_language_modeling,
    multimodal_autoencoding,
    optical_flow,
)
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.regression import PerceiverIOForRegression
from perceiver_io.value_checks import looks_at
from tests.sized_models import TINY


def image() -> tuple[nn.Module, dict[str, Any]]:
    settings = image_classification.config(size=(8, 8), num_classes=3, variant="tiny", encoder=TINY)
    return image_classification.PerceiverIOForImageClassification(settings), {
        "pixel_values": torch.zeros(2, 3, 8, 8),
        "pixel_mask": torch.ones(2, 8, 8, dtype=torch.int64),
        "labels": torch.zeros(2, dtype=torch.int64),
    }


def text() -> tuple[nn.Module, dict[str, Any]]:
    settings = masked_language_modeling.config(variant="tiny", max_length=16, text={"num_channels": 8})
    return masked_language_modeling.PerceiverIOForMaskedLM(settings), {
        "input_ids": torch.zeros(2, 5, dtype=torch.int64),
        "attention_mask": torch.ones(2, 5, dtype=torch.int64),
        "positions": torch.zeros(2, 3, dtype=torch.int64),
        "labels": torch.zeros(2, 3, dtype=torch.int64),
    }


def flow() -> tuple[nn.Module, dict[str, Any]]:
    settings = optical_flow.config(variant="tiny", size=(8, 8))
    return optical_flow.PerceiverIOForOpticalFlow(settings), {
        "frames": torch.zeros(2, 2, 3, 8, 8),
        "labels": torch.zeros(2, 2, 8, 8),
        "valid": torch.ones(2, 8, 8, dtype=torch.bool),
        "pixel_mask": torch.ones(2, 8, 8, dtype=torch.int64),
    }


def multimodal() -> tuple[nn.Module, dict[str, Any]]:
    settings = multimodal_autoencoding.config(
        variant="tiny", size=(2, 8, 8), num_samples=64, num_classes=3, encoder=TINY
    )
    return multimodal_autoencoding.PerceiverIOForMultimodalAutoencoding(settings), {
        "image": torch.zeros(2, 2, 3, 8, 8),
        "audio": torch.zeros(2, 64),
        "label": torch.zeros(2, dtype=torch.int64),
        "masks": {"audio": torch.ones(2, 64, dtype=torch.bool)},
        "points": {"image": torch.zeros(2, 5, 3, dtype=torch.int64), "audio": None, "label": None},
    }


def sound(
    model: Callable[[PerceiverIOConfig], nn.Module], output: Any, labels: Callable[[], Tensor]
) -> tuple[nn.Module, dict[str, Any]]:
    settings = PerceiverIOConfig(
        inputs={"sound": AudioAdapter.Config(num_samples=16, samples_per_patch=4, num_bands=2)},
        encoder=EncoderConfig(**TINY),
        outputs={"y": output},
    )
    return model(settings), {"inputs": {"sound": torch.zeros(2, 16)}, "labels": labels()}


MODELS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "image": image,
    "text": text,
    "flow": flow,
    "multimodal": multimodal,
    "classification": lambda: sound(
        PerceiverIOForClassification,
        ClassificationDecoder.Config(num_classes=3),
        lambda: torch.zeros(2, dtype=torch.int64),
    ),
    "probabilities": lambda: sound(
        PerceiverIOForClassification,
        ClassificationDecoder.Config(num_classes=3),
        lambda: torch.zeros(2, 3),
    ),
    "regression": lambda: sound(
        PerceiverIOForRegression, RegressionDecoder.Config(num_outputs=2), lambda: torch.zeros(2, 2)
    ),
}


class Reads(TorchDispatchMode):
    """Counts what a processor must wait for when tensors lie on an accelerator: reads, and shapes made of values."""

    WAITING = (
        "aten._local_scalar_dense",
        "aten.equal",
        "aten.nonzero",
        "aten.masked_select",
        "aten._unique2",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if str(func).startswith(("aten.index.", "aten.index_put")) else ()
        by_mask = any(x is not None and x.dtype == torch.bool for x in indices)
        if by_mask or str(func).startswith(self.WAITING):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no tensor lay in the processor's own memory."""
    monkeypatch.setattr(value_checks, "_HERE", set())


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_step_in_training_reads_nothing_from_an_accelerator(
    build: Callable[[], tuple[nn.Module, dict[str, Any]]],
) -> None:
    model, batch = build()
    with Reads() as reads:
        model.train()(**batch).loss.backward()
    assert reads.found == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_values_are_read_for_who_asks(build: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> None:
    model, batch = build()
    with check_values(), Reads() as reads:
        model(**batch)
    assert len(reads.found) >= 3  # the input, the latents, the labels


def test_checks_are_on_until_the_block_ends_or_they_are_switched_off() -> None:
    there = torch.empty(2, device="meta")
    assert not looks_at(there)
    with check_values():
        assert looks_at(there)
        with check_values(False):
            assert not looks_at(there)
        assert looks_at(there)
    assert not looks_at(there)
    try:
        check_values()
        assert looks_at(there)
    finally:
        check_values(False)
    assert not looks_at(there)


def test_what_the_processor_holds_is_always_checked() -> None:
    with check_values(False), pytest.raises(ValueError, match="1 values that are NaN or infinite"):
        check_finite(torch.tensor([0.0, torch.nan]), name="The batch")

"""Models with any named inputs and one output: classes, or numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import perceiver_io as pio
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.regression import PerceiverIOForRegression
from perceiver_io.testing import ElementsAdapter

ENCODER = pio.EncoderConfig(
    num_latents=3, latent_channels=8, num_self_attends_per_block=1, num_self_attention_heads=2
)
INPUTS = {"a": torch.randn(4, 5, 6), "b": torch.randn(4, 2, 3)}
MASKS = {"a": torch.tensor([[True, True, False, True, False]] * 4)}


def config(**outputs: pio.ComponentConfig) -> pio.PerceiverIOConfig:
    inputs = {"a": ElementsAdapter.Config(num_channels=6), "b": ElementsAdapter.Config(num_channels=3)}
    return pio.PerceiverIOConfig(
        inputs=inputs, encoder=ENCODER, outputs=outputs, adapters={"elements": ElementsAdapter}
    )


def test_classes_have_the_loss_of_torch() -> None:
    model = PerceiverIOForClassification(config(kind=pio.ClassificationDecoder.Config(num_classes=3))).eval()
    labels = torch.tensor([0, 2, 1, 1])
    output = model(INPUTS, MASKS, labels)
    assert torch.equal(output.logits, model.perceiver(INPUTS, MASKS)["kind"])
    assert output.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(output.logits, labels).item()
    )
    soft = torch.nn.functional.one_hot(labels, 3).float()
    assert model(INPUTS, MASKS, soft).loss.item() == pytest.approx(output.loss.item(), rel=1e-6)
    assert model.num_classes == 3 and model(INPUTS).loss is None
    with pytest.raises(ValueError, match="classes 0 to 2"):
        model(INPUTS, MASKS, labels + 1)


def test_numbers_have_a_loss_in_units_of_the_scale() -> None:
    part = pio.RegressionDecoder.Config(num_outputs=2, offset=(10.0, -3.0), scale=(5.0, 0.5))
    model = PerceiverIOForRegression(config(place=part)).eval()
    labels = torch.randn(4, 2) * 5 + 10
    output = model(INPUTS, MASKS, labels)
    expected = (((output.logits - labels) / torch.tensor([5.0, 0.5])) ** 2).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    plain = PerceiverIOForRegression(config(place=pio.RegressionDecoder.Config(num_outputs=2))).eval()
    plain.load_state_dict(model.state_dict())
    unscaled = plain(INPUTS, MASKS).logits * torch.tensor([5.0, 0.5]) + torch.tensor([10.0, -3.0])
    torch.testing.assert_close(output.logits, unscaled)
    with pytest.raises(ValueError, match=r"labels must be \(4, 2\), got \(4,\)"):
        model(INPUTS, MASKS, labels[:, 0])
    with pytest.raises(ValueError, match="NaN or infinities"):
        model(INPUTS, MASKS, labels * float("nan"))
    one = PerceiverIOForRegression(config(age=pio.RegressionDecoder.Config()))
    assert one(INPUTS, MASKS, labels[:, 0]).loss == one(INPUTS, MASKS, labels[:, :1]).loss


@pytest.mark.parametrize("model_class", [PerceiverIOForClassification, PerceiverIOForRegression])
def test_other_outputs_are_refused(model_class: type[pio.PerceiverIOPreTrainedModel]) -> None:
    numbers, classes = pio.RegressionDecoder.Config(), pio.ClassificationDecoder.Config(num_classes=2)
    with pytest.raises(ValueError, match="has one output, got the outputs"):
        part = numbers if model_class is PerceiverIOForRegression else classes
        model_class(config(first=part, second=part))
    other = classes if model_class is PerceiverIOForRegression else numbers
    with pytest.raises(ValueError, match=rf"got {type(other).__qualname__}"):
        model_class(config(y=other))


@pytest.mark.parametrize("values", [{"offset": (1.0, 2.0)}, {"scale": (0.0,)}, {"scale": (float("inf"),)}])
def test_bad_offsets_and_scales(values: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"RegressionDecoder.Config.(offset|scale)"):
        pio.RegressionDecoder.Config(num_outputs=3, **values)


def test_they_are_saved_and_found_again(tmp_path: Path) -> None:
    of = config(kind=pio.ClassificationDecoder.Config(num_classes=2))
    model = PerceiverIOForClassification(of).eval()
    model.save_pretrained(tmp_path)
    twin = pio.from_pretrained(tmp_path, adapters={"elements": ElementsAdapter}).eval()
    assert type(twin) is PerceiverIOForClassification
    assert torch.equal(twin(INPUTS, MASKS).logits, model(INPUTS, MASKS).logits)
    assert twin.attention_maps(INPUTS)[0].weights["a"].shape == (4, 1, 3, 5)
    assert twin.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}

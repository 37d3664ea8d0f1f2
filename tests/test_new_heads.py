"""Another number of classes, or other ones, on loading: the head starts anew, all else is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published.theirs import CASES
from transformers import AutoModel, AutoModelForImageClassification, PreTrainedModel

import perceiver_io as pio
from perceiver_io.tasks import image_classification, multimodal_autoencoding
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification
from perceiver_io.tasks.multimodal_autoencoding import PerceiverIOForMultimodalAutoencoding
from perceiver_io.tasks.regression import PerceiverIOForRegression
from perceiver_io.testing import ElementsAdapter

ENCODER = {
    "num_latents": 3,
    "latent_channels": 8,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
}
NEW = {"num_labels": 3, "ignore_mismatched_sizes": True}
ADAPTERS = {"elements": ElementsAdapter}


def images(**fields: Any) -> PerceiverIOForImageClassification:
    config = image_classification.config(
        size=(4, 4), variant="tiny", image={"num_bands": 2}, encoder=ENCODER, **fields
    )
    return PerceiverIOForImageClassification(config)


def elements(output: pio.DecoderConfig) -> pio.PerceiverIOConfig:
    return pio.PerceiverIOConfig(
        inputs={"x": ElementsAdapter.Config(num_channels=6)},
        encoder=pio.EncoderConfig(**ENCODER),
        outputs={"y": output},
        adapters=ADAPTERS,
    )


def classes() -> PerceiverIOForClassification:
    return PerceiverIOForClassification(elements(pio.PooledClassificationDecoder.Config(num_classes=5)))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "images": lambda: images(num_classes=5),
    "named images": lambda: images(class_names=list("abcde")),
    "classes": classes,
}


def logits(model: PreTrainedModel) -> torch.Tensor:
    if isinstance(model, PerceiverIOForImageClassification):
        return model(torch.randn(2, 3, 4, 4)).logits
    return model({"x": torch.randn(2, 7, 6)}).logits


def differing(model: PreTrainedModel, trained: PreTrainedModel) -> set[str]:
    """The names of the tensors that are not what they were."""
    before, after = trained.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda model, *args, **kwargs: pio.from_pretrained(*args, **kwargs), id="any"),
        pytest.param(lambda model, *args, **kwargs: type(model).from_pretrained(*args, **kwargs), id="class"),
    ],
)
def test_another_number_of_classes(name: str, load: Any, tmp_path: Path) -> None:
    trained = MODELS[name]()
    trained.save_pretrained(tmp_path)
    model = load(trained, tmp_path, **NEW, adapters=ADAPTERS)
    assert type(model) is type(trained)
    assert logits(model).shape == (2, 3)
    assert model.config.num_labels == 3
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    changed = differing(model, trained)
    assert {tail.rpartition(".")[2] for tail in changed} <= {"weight", "bias"} and len(changed) == 2
    assert all(".output." in tensor for tensor in changed)
    model.save_pretrained(tmp_path / "again")
    again = load(trained, tmp_path / "again", adapters=ADAPTERS)
    assert not differing(again, model)
    assert again.config.id2label == model.config.id2label


def test_the_new_head_starts_as_in_a_new_model(tmp_path: Path) -> None:
    trained = images(num_classes=5)
    with torch.no_grad():
        trained.perceiver.decoders["label"].output.bias.fill_(7)
    trained.save_pretrained(tmp_path)
    fresh = images(num_classes=3000).perceiver.decoders["label"].output
    head = pio.from_pretrained(tmp_path, num_labels=3000, ignore_mismatched_sizes=True).perceiver.decoders[
        "label"
    ]
    assert not head.output.bias.any()
    assert head.output.weight.std().item() == pytest.approx(fresh.weight.std().item(), rel=0.05)


def test_auto_classes_take_the_number_too(tmp_path: Path) -> None:
    trained = images(num_classes=5)
    trained.save_pretrained(tmp_path)
    for auto_class in (AutoModelForImageClassification, AutoModel):
        model = auto_class.from_pretrained(tmp_path, **NEW)
        assert model.config.num_labels == model.config.outputs["label"].num_classes == 3
    model = AutoModelForImageClassification.from_pretrained(
        tmp_path, id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1}, ignore_mismatched_sizes=True
    )
    assert model.config.id2label == {0: "yes", 1: "no"} and logits(model).shape == (2, 2)


@pytest.mark.parametrize(
    "names",
    [
        {"id2label": {0: "cat", 1: "dog"}},
        {"id2label": {"0": "cat", "1": "dog"}, "num_labels": 2},
        {"label2id": {"dog": 1, "cat": 0}},
        {"id2label": {0: "cat", 1: "dog"}, "label2id": {"dog": 1, "cat": 0}},
    ],
)
def test_names_say_how_many_there_are(names: dict[str, Any], tmp_path: Path) -> None:
    images(num_classes=5).save_pretrained(tmp_path)
    model = pio.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **names)
    assert model.config.id2label == {0: "cat", 1: "dog"}
    assert model.config.label2id == {"cat": 0, "dog": 1}
    assert logits(model).shape == (2, 2)


def test_as_many_classes_as_before_keep_the_head(tmp_path: Path) -> None:
    trained = images(class_names=list("abcde"))
    trained.save_pretrained(tmp_path)
    model = pio.from_pretrained(tmp_path, num_labels=5)
    assert not differing(model, trained) and model.config.id2label == trained.config.id2label
    renamed = pio.from_pretrained(tmp_path, id2label=dict(enumerate("vwxyz")))
    assert not differing(renamed, trained) and renamed.config.label2id["z"] == 4


def test_with_a_configuration_besides(tmp_path: Path) -> None:
    trained = images(num_classes=5)
    trained.save_pretrained(tmp_path)
    for load in (pio.from_pretrained, type(trained).from_pretrained):
        model = load(tmp_path, config=trained.config, **NEW)
        assert logits(model).shape == (2, 3)
    assert trained.config.num_labels == 5


def test_without_leave_the_error_says_what_to_pass(tmp_path: Path) -> None:
    images(num_classes=5).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"wrong shape: perceiver\.decoders\.label\.output\.bias is \(5,\), expected \(3,\)"
        r"(.|\n)*ignore_mismatched_sizes=True",
    ):
        pio.from_pretrained(tmp_path, num_labels=3)


@pytest.mark.parametrize("name", ["fourier", "learned"])
def test_published_models(name: str, tmp_path: Path) -> None:
    CASES[name].make().save_pretrained(tmp_path)
    published = pio.from_pretrained(tmp_path)
    model = pio.from_pretrained(
        tmp_path,
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
        ignore_mismatched_sizes=True,
    )
    head = {f"perceiver.decoders.label.output.{leaf}" for leaf in ("weight", "bias")}
    assert differing(model, published) == head
    assert model(torch.randn(2, 3, 8, 8)).logits.shape == (2, 3)
    assert not model.perceiver.decoders["label"].output.bias.any()
    model.save_pretrained(tmp_path / "ours")
    again = pio.from_pretrained(tmp_path / "ours")
    assert not differing(again, model) and again.config.id2label == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(ValueError, match=r"wrong shape: .*final_layer(.|\n)*ignore_mismatched_sizes=True"):
        pio.from_pretrained(tmp_path, num_labels=3)


def test_labels_that_go_in_and_come_out(tmp_path: Path) -> None:
    config = multimodal_autoencoding.config(variant="tiny", num_classes=5)
    trained = PerceiverIOForMultimodalAutoencoding(config)
    trained.save_pretrained(tmp_path)
    model = pio.from_pretrained(tmp_path, **NEW)
    assert model.config.inputs["label"].num_classes == model.config.outputs["label"].num_classes == 3
    changed = differing(model, trained)
    assert changed and all("label" in name for name in changed)


def test_numbers_of_a_regression(tmp_path: Path) -> None:
    trained = PerceiverIOForRegression(elements(pio.RegressionDecoder.Config(num_outputs=2)))
    trained.save_pretrained(tmp_path)
    model = pio.from_pretrained(tmp_path, **NEW, adapters=ADAPTERS)
    assert logits(model).shape == (2, 3) and model.config.outputs["y"].num_outputs == 3
    assert len(differing(model, trained)) == 2
    with pytest.raises(ValueError, match="have no names: pass num_labels alone"):
        pio.from_pretrained(tmp_path, id2label={0: "a"}, adapters=ADAPTERS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"num_labels": 2, "id2label": {0: "a"}}, "num_labels is 2, but there are names for 1 classes"),
        ({"id2label": {1: "a"}}, "id2label must name classes by their index"),
        ({"id2label": ["a", "b"]}, "id2label must name classes by their index"),
        ({"num_labels": 0}, "num_classes must be"),
        ({"num_labels": "3"}, "num_classes must be int"),
    ],
)
def test_labels_that_cannot_be(labels: dict[str, Any], message: str, tmp_path: Path) -> None:
    images(num_classes=5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        pio.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **labels)


def test_models_without_classes_refuse_them(tmp_path: Path) -> None:
    CASES["flow"].make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Of the outputs \['flow'\], 0 have them"):
        pio.from_pretrained(tmp_path, **NEW)

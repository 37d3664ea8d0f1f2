"""The image classifier: presets, labels, the auto classes, and training by a plain Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification, Trainer, TrainingArguments

from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIOConfig, RegressionDecoder
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.tasks.image_classification import VARIANTS, PerceiverIOForImageClassification, config
from perceiver_io.vector_decoders import PooledClassificationDecoder


def classifier(**fields: Any) -> PerceiverIOForImageClassification:
    encoder = {"num_latents": 4, "latent_channels": 8, "num_self_attention_heads": 2}
    defaults = {
        "size": (6, 6),
        "num_classes": 3,
        "variant": "tiny",
        "image": {"num_bands": 2},
        "encoder": encoder,
    }
    return PerceiverIOForImageClassification(config(**defaults | fields)).eval()


@pytest.mark.parametrize(
    ("variant", "num_parameters"),
    [
        ("learned", 62_255_848),
        ("fourier", 48_440_627),
        ("conv", 48_646_522),
        ("perceiver", 44_912_254),
    ],
)
def test_published_numbers_of_parameters(variant: str, num_parameters: int) -> None:
    with torch.device("meta"):
        model = PerceiverIOForImageClassification(config(variant=variant))
    assert model.num_parameters() == num_parameters
    assert model.num_labels == 1000


@pytest.mark.parametrize(
    ("variant", "byte_array"), [("learned", 512), ("fourier", 261), ("conv", 322), ("perceiver", 261)]
)
def test_published_widths_and_settings(variant: str, byte_array: int) -> None:
    settings = config(variant=variant)
    with torch.device("meta"):
        adapter = ImageAdapter(settings.inputs["image"])
    assert adapter.num_channels == byte_array
    assert settings.inputs["image"].grid((224, 224)) == ((56, 56) if variant == "conv" else (224, 224))
    encoder, decoder = settings.encoder, settings.outputs["label"]
    assert (encoder.num_latents, encoder.latent_channels) == (512, 1024)
    assert (encoder.num_blocks, encoder.num_self_attends_per_block, encoder.share_blocks) == (8, 6, "all")
    assert (encoder.num_cross_attention_heads, encoder.num_self_attention_heads) == (1, 8)
    assert (encoder.activation, encoder.cross_attention_init) == ("gelu_tanh", "fan_in")
    assert encoder.cross_attention_query_gain == 1.0
    assert (encoder.dropout, encoder.attention_dropout, encoder.latent_std) == (0.0, 0.0, 0.02)
    if variant == "perceiver":
        assert (encoder.num_cross_attends, encoder.share_cross_attends) == (8, "after_first")
        assert decoder == PooledClassificationDecoder.Config(num_classes=1000, use_layer_norm=False)
    else:
        assert encoder.num_cross_attends == 1
        assert decoder.use_query_residual == (variant != "learned")
        assert (decoder.num_heads, decoder.activation) == (1, "gelu_tanh")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_classifies(variant: str) -> None:
    small = {"num_latents": 3, "latent_channels": 16, "num_blocks": 2, "num_cross_attends": 2}
    model = PerceiverIOForImageClassification(
        config(size=(8, 8), num_classes=4, image_channels=1, variant=variant, encoder=small)
    ).eval()
    assert model(torch.randn(2, 1, 8, 8)).logits.shape == (2, 4)


@pytest.mark.parametrize("size", [(32, 24), (16, 16)])
def test_other_sizes_at_run_time(size: tuple[int, int]) -> None:
    model = classifier()
    assert model(torch.randn(1, 3, *size)).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "huge"}, "no variant 'huge' .* Known: .*fourier"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, "num_classes is 3, but class_names has 2 names"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"image": {"colour": 1}}, r"unknown keys \['colour'\]"),
        ({"encoder": {"depth": 1}}, r"unknown keys \['depth'\]"),
        ({"decoder": {"depth": 1}}, r"unknown keys \['depth'\]"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_presets_are_made_anew_each_time() -> None:
    before = config(variant="fourier")
    config(variant="fourier", encoder={"num_latents": 7}, image={"num_bands": 3}, decoder={"num_heads": 2})
    assert config(variant="fourier") == before


def test_class_names() -> None:
    named = classifier(num_classes=None, class_names=["cat", "dog"])
    assert named.config.id2label == {0: "cat", 1: "dog"}
    assert named.config.label2id == {"cat": 0, "dog": 1}
    assert named.config.num_labels == named.num_labels == 2
    unnamed = classifier()
    assert unnamed.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_logits_are_those_of_the_perceiver() -> None:
    model, x = classifier(), torch.randn(2, 3, 6, 6)
    out = model(x)
    assert out.loss is None
    assert torch.equal(out.logits, model.perceiver({"image": x})["label"])
    mask = torch.ones(2, 6, 6, dtype=torch.bool)
    mask[:, 3:] = False
    masked = model(pixel_values=x, pixel_mask=mask).logits
    assert torch.equal(masked, model.perceiver({"image": x}, {"image": mask})["label"])
    assert torch.equal(masked, model(pixel_values=x, pixel_mask=mask.long()).logits)
    assert not torch.allclose(masked, out.logits)


def test_hard_and_soft_labels() -> None:
    model, x = classifier(), torch.randn(2, 3, 6, 6)
    log_probabilities = model(x).logits.log_softmax(-1)
    hard = model(x, labels=torch.tensor([2, 0])).loss
    torch.testing.assert_close(hard, -(log_probabilities[0, 2] + log_probabilities[1, 0]) / 2)
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    soft = model(x, labels=mixed).loss
    torch.testing.assert_close(soft, -(mixed * log_probabilities).sum() / 2)
    one_hot = torch.nn.functional.one_hot(torch.tensor([2, 0]), 3).float()
    torch.testing.assert_close(model(x, labels=one_hot).loss, hard)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), "classes 0 to 2, got 0 to 3"),
        (torch.tensor([-1, 0]), "classes 0 to 2, got -1 to 0"),
        (torch.tensor([0, 1, 2]), r"int64 class indices \(2,\) .* got torch.int64 \(3,\)"),
        (torch.tensor([[0], [1]]), r"got torch.int64 \(2, 1\)"),
        (torch.tensor([0, 1], dtype=torch.int32), "got torch.int32"),
        (torch.tensor([True, False]), "got torch.bool"),
        (torch.tensor([0.0, 1.0]), r"probabilities \(2, 3\), got torch.float32 \(2,\)"),
        (torch.zeros(2, 4), r"got torch.float32 \(2, 4\)"),
        (torch.full((2, 3), torch.nan), "negative or NaN probabilities"),
        (torch.tensor([[2.0, -1.0, 0.0]] * 2), "negative or NaN probabilities"),
        ([0, 1], "labels must be a tensor, got list"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier()(torch.randn(2, 3, 6, 6), labels=labels)


def settings(**fields: Any) -> PerceiverIOConfig:
    defaults = {
        "inputs": {"image": ImageAdapter.Config(size=(4, 4), num_bands=2)},
        "encoder": EncoderConfig(num_latents=3, latent_channels=8),
        "outputs": {"label": ClassificationDecoder.Config(num_classes=3)},
    }
    return PerceiverIOConfig(**defaults | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"inputs": {"video": ImageAdapter.Config(size=(4, 4))}},
            r"the input 'image', got the inputs \['video'\]",
        ),
        (
            {"outputs": {"number": RegressionDecoder.Config()}},
            r"needs a decoder whose configuration has num_classes, .* got RegressionDecoder.Config",
        ),
        ({"id2label": {0: "a", 1: "b"}}, "names 2 classes in id2label, its decoder has 3"),
    ],
)
def test_configurations_of_something_else_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOForImageClassification(settings(**fields))


def test_attention_maps_are_those_of_the_perceiver() -> None:
    model, x = classifier(), torch.randn(2, 3, 6, 6)
    mask = torch.ones(2, 6, 6, dtype=torch.bool)
    mask[:, :2] = False
    maps = model.attention_maps(x, mask, latents=[1, 2])
    expected = model.perceiver.attention_maps({"image": x}, {"image": mask}, latents=[1, 2])
    assert len(maps) == len(expected) == model.config.encoder.num_cross_attends
    for ours, theirs in zip(maps, expected, strict=True):
        heads = model.config.encoder.num_cross_attention_heads
        assert ours.weights["image"].shape == (2, heads, 2, 3, 3)  # patches of 2x2 pixels
        assert torch.equal(ours.weights["image"], theirs.weights["image"])
        assert not ours.weights["image"][..., :1, :].any()


def test_auto_classes(tmp_path: Path) -> None:
    model = classifier(num_classes=None, class_names=["cat", "dog", "eel"])
    model.save_pretrained(tmp_path)
    twin = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(twin) is PerceiverIOForImageClassification
    assert type(AutoConfig.from_pretrained(tmp_path)) is PerceiverIOConfig
    assert twin.config.id2label == {0: "cat", 1: "dog", 2: "eel"}
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(model(x).logits, twin(x).logits)
    fresh = AutoModelForImageClassification.from_config(model.config)
    assert type(fresh) is PerceiverIOForImageClassification


class BrightOrDark:
    """Images of one brightness or the other: learned in a few steps."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        label = index % 2
        pixels = torch.randn(1, 4, 4, generator=generator) / 4 + 2 * label - 1
        return {"pixel_values": pixels, "labels": torch.tensor(label)}


def test_plain_trainer_trains(tmp_path: Path) -> None:
    model = classifier(size=(4, 4), num_classes=2, image_channels=1)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=30,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=BrightOrDark(), eval_dataset=BrightOrDark())
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.1 < before
    predictions = trainer.predict(BrightOrDark())
    assert (predictions.predictions.argmax(-1) == predictions.label_ids).all()
    trainer.save_model()
    twin = AutoModelForImageClassification.from_pretrained(tmp_path)
    batch = torch.stack([BrightOrDark()[index]["pixel_values"] for index in range(4)])
    with torch.no_grad():
        assert torch.equal(model.eval()(batch).logits, twin(batch).logits)


def test_other_features_than_the_variants_need_no_further_fields() -> None:
    made = config(variant="tiny", size=(32, 32), num_classes=3, image={"features": "conv"})
    assert made.inputs["image"].grid((32, 32)) == (8, 8)
    made = config(variant="learned", num_classes=3, image={"features": "pixels"})
    assert made.inputs["image"].feature_channels is None


def test_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ"):
        config(class_names=["cat", "dog", "cat"])

"""Masked autoencoding: what is hidden, what the loss is about, and classifiers that start from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import perceiver_io as pio
from perceiver_io.adapters import FeaturesAdapter, ImageAdapter, PointCloudAdapter, TextAdapter
from perceiver_io.media.sound import write_wav
from perceiver_io.running import runner
from perceiver_io.running.building import build
from perceiver_io.tasks.audio_classification.task import AudioClassificationTask
from perceiver_io.tasks.image_classification.task import ImageClassificationTask
from perceiver_io.tasks.masked_autoencoding import (
    PerceiverIOForMaskedAutoencoding,
    config,
    draw_hidden,
)
from perceiver_io.tasks.masked_autoencoding.picture import draw_reconstructions, panel
from perceiver_io.tasks.masked_autoencoding.task import MaskedAutoencodingTask, ReconstructionOptions
from perceiver_io.tasks.multimodal_classification.task import MultimodalClassificationTask

TASK = MaskedAutoencodingTask()
ENCODER = pio.EncoderConfig(num_latents=4, latent_channels=16, num_self_attention_heads=4)
IMAGE = ImageAdapter.Config(size=(8, 8), image_channels=1, features="patches", patch_size=2, num_bands=2)
FEATURES = FeaturesAdapter.Config(num_features=3, position="fourier", num_bands=2, max_length=6)
SETTINGS: dict[str, Any] = {
    "batch_size": 8,
    "num_epochs": None,
    "max_steps": 40,
    "evaluate_every": 40,
    "device": "cpu",
    "report_to": "none",
    "model": {"encoder": {"num_latents": 4, "latent_channels": 32}},
    "image": {"rotation": 0, "translation": 0, "scaling": 0},
}


def model_of(**inputs: Any) -> PerceiverIOForMaskedAutoencoding:
    return PerceiverIOForMaskedAutoencoding(config(inputs, ENCODER)).eval()


def stripes(index: int) -> np.ndarray:
    """(8, 8) stripes, upright or level, of one of two phases: any four patches tell the others."""
    line = np.tile([40, 220] if index // 2 % 2 else [220, 40], 4).repeat(1)
    pixels = np.tile(line, (8, 1))
    return (pixels if index % 2 else pixels.T).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stripes")
    for index in range(48):
        (path / ("upright" if index % 2 else "level")).mkdir(exist_ok=True)
        name = path / ("upright" if index % 2 else "level") / f"{index}.png"
        Image.fromarray(stripes(index)).save(name)
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked") / "run"
    more = {**SETTINGS, "max_steps": 150, "evaluate_every": 150}
    runner.train(TASK, TASK.recipe_class(dataset=str(folder), output_dir=str(path), **more))
    return path


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_as_many_are_hidden_as_is_said(ratio: float) -> None:
    known = torch.ones(5, 20, dtype=torch.bool)
    known[1, 10:] = False
    known[2, 1:] = False  # one is left
    known[3] = False
    known[4, 2:] = False
    hidden = draw_hidden(known, ratio)
    assert not (hidden & ~known).any()
    expected = [round(ratio * 20), max(1, round(ratio * 10)), 0, 0, 1]
    assert hidden.sum(1).tolist() == expected


def test_all_elements_are_hidden_alike() -> None:
    counts = torch.stack([draw_hidden(torch.ones(1, 10, dtype=torch.bool), 0.3)[0] for _ in range(2000)]).sum(
        0
    )
    # Each is drawn with probability 0.3: 600 times, with a deviation of 20.5.
    assert ((counts - 600).abs() < 5 * 20.5).all()
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"is {wrong}, expected more than 0 and less than 1"):
            draw_hidden(torch.ones(1, 4, dtype=torch.bool), wrong)


def test_the_loss_is_the_error_of_what_is_hidden() -> None:
    """By hand: of each input of a sample the mean over the values of its hidden elements, then the mean of these."""
    model = model_of(image=IMAGE, vectors=FEATURES)
    inputs = {"image": torch.randn(3, 1, 8, 8), "vectors": torch.randn(3, 6, 3)}
    masks = {"vectors": torch.ones(3, 6, dtype=torch.bool)}
    masks["vectors"][1, 2:] = False
    hidden = {
        "image": torch.zeros(3, 16, dtype=torch.bool),
        "vectors": torch.zeros(3, 6, dtype=torch.bool),
    }
    hidden["image"][0, :5] = hidden["image"][1, 7] = hidden["vectors"][1, 1] = hidden["vectors"][2, 2:] = True
    output = model(inputs, masks, hidden)
    encoded = model.perceiver.encode(inputs, masks, hidden=hidden)
    whole = model.perceiver.decode(encoded)
    errors = []
    for name, x in inputs.items():
        wrong = (whole[name].flatten(1, -2) - model.perceiver.adapters[name].targets(x)).square().mean(-1)
        errors += [wrong[b][hidden[name][b]].mean() for b in range(3) if hidden[name][b].any()]
    assert len(errors) == 4
    torch.testing.assert_close(output.loss, torch.stack(errors).mean())
    batch = {"inputs": inputs, "masks": masks, "hidden": hidden}
    assert int(TASK.weight(batch)) == 4


def test_only_hidden_elements_count_and_none_of_them_is_seen() -> None:
    model = model_of(image=IMAGE)
    x = torch.randn(2, 1, 8, 8)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 5:9] = True
    adapter = model.perceiver.adapters["image"]
    targets = adapter.targets(x)
    first = model({"image": x}, hidden={"image": hidden})
    other_x = adapter.from_targets(torch.where(hidden[..., None], targets + 3, targets), (4, 4))
    other = model({"image": other_x}, hidden={"image": hidden})
    # What is predicted does not depend on what is hidden; what it is compared with does.
    assert torch.equal(first.reconstructions["image"], other.reconstructions["image"])
    torch.testing.assert_close(other.targets["image"], first.targets["image"] + 3)
    assert not torch.allclose(first.loss, other.loss)
    # Where targets of visible elements are unknown, nothing changes: they are not compared.
    assert first.targets["image"].shape == (2, 4, 4)
    torch.testing.assert_close(first.targets["image"], targets[:, 5:9])


def test_without_anything_hidden_all_is_reconstructed() -> None:
    model = model_of(vectors=FEATURES, image=IMAGE)
    x = torch.randn(2, 5, 3)
    output = model({"vectors": x})
    assert output.loss is None and output.reconstructions["vectors"].shape == (2, 5, 3)
    torch.testing.assert_close(output.targets["vectors"], x)


def test_what_cannot_be_a_masked_autoencoder() -> None:
    with pytest.raises(ValueError, match="has no targets: nothing of it can be reconstructed"):
        config({"text": TextAdapter.Config(vocab_size=5, max_length=4)}, ENCODER)
    with pytest.raises(ValueError, match="has no targets"):
        config({"cloud": PointCloudAdapter.Config()}, ENCODER)
    with pytest.raises(ValueError, match="has no positions beside its content"):
        config({"vectors": FeaturesAdapter.Config(num_features=3)}, ENCODER)
    good = config({"image": IMAGE}, ENCODER)
    with pytest.raises(ValueError, match="has an output for each input, of the same name"):
        PerceiverIOForMaskedAutoencoding(good.replaced(outputs={"other": good.outputs["image"]}))
    wide = type(good.outputs["image"]).from_dict({**good.outputs["image"].to_dict(), "output_channels": 9})
    with pytest.raises(ValueError, match="have targets of 4 values"):
        PerceiverIOForMaskedAutoencoding(good.replaced(outputs={"image": wide}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio is 0.0, expected a part"),
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0, expected a part"),
        ({"inputs": []}, "inputs is"),
        ({"inputs": ["image", "image"]}, "inputs is"),
        ({"inputs": ["text"]}, r"There are no inputs \['text'\]"),
        ({"variant": "nano"}, "variant is 'nano', expected one of tiny, small"),
        ({"variant": "fourier", "inputs": ["audio"]}, "variant is 'fourier', expected one of nano"),
        ({"variant": "tiny", "pretrained": "runs/other"}, "variant cannot be chosen"),
        ({"image": {"rotation": 200.0}}, "The section image"),
    ],
)
def test_recipes_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASK.recipe_class(dataset="digits", **changes)
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match="mask_ratio"):
            ReconstructionOptions(mask_ratio=wrong)


def test_a_set_without_the_inputs_is_refused() -> None:
    recipe = TASK.recipe_class(dataset="digits", inputs=["audio"], validation_fraction=0.0)
    with pytest.raises(ValueError, match="'digits' has the inputs \\['image'\\], not \\['audio'\\]"):
        TASK.data(recipe)


def test_hidden_patches_are_learned(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test_r2"] > 0.9
    assert {"reconstructions.png", "attention.png"} <= {path.name for path in run.iterdir()}


def test_the_measure_is_one_less_the_unexplained_part(run: Path, folder: Path) -> None:
    recipe = TASK.recipe_class(dataset=str(folder), **SETTINGS)
    loaded = TASK.load(run, device="cpu")
    setup = build(TASK, recipe, TASK.data(recipe))
    collate = TASK.collator(setup, train=False)
    rows = [setup.data.test[index] for index in range(len(setup.data.test))]
    batch = collate(rows)
    with torch.no_grad():
        output = loaded.model(**batch)
    measures = TASK.measures(setup)
    for part in (batch, batch):
        TASK.update(measures, output, part)
    found, true = output.reconstructions["image"], output.targets["image"]
    expected = 1 - (found - true).square().sum() / (true - true.mean()).square().sum()
    torch.testing.assert_close(measures["r2"].compute(), expected, rtol=1e-4, atol=1e-4)


def test_predictions_of_files(run: Path, folder: Path, tmp_path: Path) -> None:
    file = str(folder / "level" / "4.png")
    options = ReconstructionOptions(output_dir=str(tmp_path / "out"), mask_ratio=0.25)
    (found,) = runner.predict(TASK, run, [file], options)
    (one,) = found["inputs"]
    assert (one["input"], one["values"], one["hidden"]) == ("image", 64, 16)
    made = np.load(found["files"][0])
    true = stripes(4) / 127.5 - 1
    assert made.shape == (1, 8, 8) and (np.abs(made[0] - true) < 1e-6).mean() >= 0.75
    assert one["squared_error"] == pytest.approx(((made[0] - true) ** 2).sum() / 16, rel=1e-4)
    with Image.open(found["files"][1]) as picture:
        assert picture.size[0] > 300
    with pytest.raises(ValueError, match="4-image"):  # two files of one name
        runner.predict(TASK, run, [file, file], options)


@pytest.mark.parametrize("fraction", [1.0, 0.2])
def test_a_classifier_takes_over_adapter_and_encoder(run: Path, folder: Path, fraction: float) -> None:
    task = ImageClassificationTask()
    recipe = task.recipe_class(dataset=str(folder), pretrained=str(run), train_fraction=fraction)
    data = task.data(recipe)
    assert len(data.train) == (34 if fraction == 1 else 6)
    setup = build(task, recipe, data)
    weights = load_file(run / "model.safetensors")
    own = setup.model.state_dict()
    shared = [name for name in weights if name.startswith(("perceiver.adapters.", "perceiver.encoder."))]
    assert len(shared) > 10 and all(torch.equal(own[name], weights[name]) for name in shared)
    others = {name for name in own if name not in shared}
    assert others and all(name.startswith("perceiver.decoders.label.") for name in others)
    assert setup.model.config.id2label == {0: "level", 1: "upright"}
    # What it was tested on here, nothing was learned from there.
    masked = TASK.data(TASK.recipe_class(dataset=str(folder)))
    pixels = [np.asarray(masked.test[index]["image"]) for index in range(len(masked.test))]
    assert all(np.array_equal(a, data.test[index]["image"]) for index, a in enumerate(pixels))


def test_fine_tuning_runs_to_its_end(run: Path, folder: Path, tmp_path: Path) -> None:
    task = ImageClassificationTask()
    recipe = task.recipe_class(
        dataset=str(folder),
        pretrained=str(run),
        output_dir=str(tmp_path / "tuned"),
        max_steps=2,
        evaluate_every=2,
        device="cpu",
        report_to="none",
    )
    metrics = runner.train(task, recipe)
    assert metrics["steps"] == 2
    assert task.load(tmp_path / "tuned").model.config.inputs == TASK.load(run).model.config.inputs


def test_models_of_other_inputs_are_refused(run: Path, folder: Path) -> None:
    task = AudioClassificationTask()
    with pytest.raises(
        ValueError, match=r"expected a PerceiverIOForAudioClassification, or another model whose"
    ):
        task.trained(run)


def test_several_inputs_and_a_classifier_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(24):
        name = tmp_path / "pairs" / ("a" if index % 2 else "b")
        name.mkdir(parents=True, exist_ok=True)
        write_wav(name / f"{index}.wav", rng.uniform(-0.5, 0.5, 500), sample_rate=4000)
        if index > 3:
            Image.fromarray(stripes(index)).save(name / f"{index}.png")
    recipe = TASK.recipe_class(
        dataset=str(tmp_path / "pairs"),
        inputs=["image", "audio"],
        output_dir=str(tmp_path / "run"),
        **{**SETTINGS, "max_steps": 2, "evaluate_every": 2},
    )
    metrics = runner.train(TASK, recipe)
    assert {"test_image_r2", "test_audio_r2"} <= set(metrics)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"reconstructions_image.png", "reconstructions_audio.png"} <= names
    sample = tmp_path / "pairs" / "a" / "5"
    (found,) = runner.predict(TASK, tmp_path / "run", [f"image={sample}.png,audio={sample}.wav"])
    assert [one["input"] for one in found["inputs"]] == ["image", "audio"]
    task = MultimodalClassificationTask()
    tuned = build(
        task,
        task.recipe_class(
            dataset=str(tmp_path / "pairs"), pretrained=str(tmp_path / "run"), input_dropout=0.3
        ),
        task.data(task.recipe_class(dataset=str(tmp_path / "pairs"))),
    )
    assert dict(tuned.model.config.packing.input_dropout) == {"audio": 0.3, "image": 0.3}
    weights = load_file(tmp_path / "run" / "model.safetensors")
    own = tuned.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own if "decoders" not in name)


def test_pictures_show_what_is_hidden(tmp_path: Path) -> None:
    x = torch.tensor([[[0.0, 1.0], [1.0, float("nan")]]])
    pixels = panel(x, low=0.0, high=1.0)
    assert pixels[:, :, 0].tolist() == [[0, 255], [255, 206]] and len(set(pixels[1, 1].tolist())) > 1
    spectrogram = panel(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), low=0.0, high=1.0)
    assert spectrogram[:, :, 0].tolist() == [[255, 0], [0, 0]]  # the higher band above, time to the right
    assert panel(torch.zeros(5, 3, 4, 6), low=0.0, high=1.0).shape == (4, 18, 3)
    constant = torch.full((1, 4, 4), 0.5)
    draw_reconstructions([(constant, constant, constant)], tmp_path / "constant.png")
    assert (tmp_path / "constant.png").stat().st_size
    with pytest.raises(ValueError, match=r"Inputs of the shape \(4,\) cannot be drawn"):
        panel(torch.zeros(4), low=0.0, high=1.0)

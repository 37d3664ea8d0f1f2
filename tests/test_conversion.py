"""`perceiver-io convert` and `perceiver-io init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    PerceiverConfig,
    PerceiverForImageClassificationFourier,
    PerceiverForMaskedLM,
    PerceiverTokenizer,
)
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

import perceiver_io as pio
from perceiver_io.cli import conversion, main
from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks import masked_language_modeling as mlm

IDS = torch.randint(6, 262, (2, 40), generator=torch.Generator().manual_seed(0))


def small_language_model() -> pio.PerceiverIOConfig:
    """The published language model with less of everything that `transformers` does not fix."""
    encoder = {"num_latents": 4, "latent_channels": 32, "num_self_attends_per_block": 1}
    widths = dict.fromkeys(
        (f"{part}_attention_{name}_channels" for part in ("cross", "self") for name in ("qk", "v")), 32
    )
    return mlm.config(
        max_length=40, text={"num_channels": 32}, encoder=encoder | widths, decoder={"v_channels": 32}
    )


def small_classifier() -> pio.PerceiverIOConfig:
    encoder = {"num_latents": 4, "latent_channels": 32, "num_blocks": 1, "num_self_attends_per_block": 1}
    return ic.config(variant="fourier", class_names=["cat", "dog"], encoder=encoder)


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(small_language_model().to_dict()))
    return str(path)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def same_files(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("perceiver-io: error: ")]
    assert len(lines) == 1 and "Traceback" not in captured.err
    return lines[0]


def test_init_writes_a_model_that_predicts(
    config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "model"
    assert main(["init", config_file, "-o", str(folder)]) == 0
    first_line, second_line = capsys.readouterr().out.splitlines()
    assert first_line.startswith("PerceiverIOForMaskedLM, ") and second_line == f"written to {folder}"
    assert files(folder) == {"README.md", "config.json", "model.safetensors", "tokenizer_config.json"}
    assert main(["predict", str(folder), "fill [MASK] in"]) == 0
    assert capsys.readouterr().out.startswith("fill ")


def test_init_is_the_fresh_model_of_the_seed(config_file: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = mlm.PerceiverIOForMaskedLM(small_language_model())
    for name, seed in (("one", "3"), ("two", "4")):
        assert main(["init", config_file, "-o", str(tmp_path / name), "--seed", seed]) == 0
    found = pio.from_pretrained(tmp_path / "one")
    assert type(found) is mlm.PerceiverIOForMaskedLM and found.config.inputs == expected.config.inputs
    assert all(torch.equal(found.state_dict()[name], one) for name, one in expected.state_dict().items())
    assert not same_files(tmp_path / "one", tmp_path / "two")


def test_init_takes_the_names_of_published_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        conversion, "published_config", {"vision-perceiver-fourier": small_classifier()}.__getitem__
    )
    folder = tmp_path / "model"
    assert main(["init", "vision-perceiver-fourier", "-o", str(folder), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["model"] == "PerceiverIOForImageClassification" and written["folder"] == str(folder)
    assert written["parameters"] == pio.from_pretrained(folder).num_parameters()
    assert "preprocessor_config.json" in files(folder)


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = mlm.PerceiverIOForMaskedLM(small_language_model()).eval()
    ours, theirs, again = (tmp_path / name for name in ("ours", "theirs", "again"))
    model.save_pretrained(ours)
    PerceiverTokenizer(mask_token="<?>").save_pretrained(ours)
    assert main(["convert", str(ours), "-o", str(theirs), "--to", "transformers", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["layout"] == "transformers" and written["parameters"] == model.num_parameters()
    with torch.no_grad():
        expected = model(IDS).logits
        published = PerceiverForMaskedLM.from_pretrained(theirs).eval()
        torch.testing.assert_close(published(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    assert AutoTokenizer.from_pretrained(theirs).mask_token == "<?>"
    capsys.readouterr()
    assert main(["predict", str(theirs), "some <?>"]) == 0
    filled = capsys.readouterr().out
    assert main(["convert", str(theirs), "-o", str(again)]) == 0
    assert same_files(ours, again) and not same_files(ours, theirs)
    assert AutoTokenizer.from_pretrained(again).mask_token == "<?>"
    capsys.readouterr()
    assert main(["predict", str(again), "some <?>"]) == 0
    assert capsys.readouterr().out == filled


def test_image_processors_are_converted(tmp_path: Path) -> None:
    ours, theirs, again = (tmp_path / name for name in ("ours", "theirs", "again"))
    ic.PerceiverIOForImageClassification(small_classifier()).save_pretrained(ours)
    processor = ic.PerceiverIOImageProcessor(size=224, crop_fraction=0.875, image_mean=0.3, image_std=0.2)
    processor.save_pretrained(ours)
    assert main(["convert", str(ours), "-o", str(theirs), "--to", "transformers"]) == 0
    published = PerceiverImageProcessorPil.from_pretrained(theirs)
    assert (published.crop_size.height, published.crop_size.width) == (256, 256)
    assert list(published.image_mean) == [0.3] * 3
    assert main(["convert", str(theirs), "-o", str(again)]) == 0
    assert ic.PerceiverIOImageProcessor.from_pretrained(again).to_dict() == processor.to_dict()
    assert json.loads((again / "config.json").read_text())["id2label"] == {"0": "cat", "1": "dog"}


def test_a_processor_that_transformers_lacks_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ic.PerceiverIOForImageClassification(small_classifier()).save_pretrained(tmp_path / "ours")
    ic.PerceiverIOImageProcessor(size=(224, 160)).save_pretrained(tmp_path / "ours")
    arguments = ["convert", str(tmp_path / "ours"), "-o", str(tmp_path / "theirs"), "--to", "transformers"]
    assert main(arguments) == 0
    assert "224 x 160" in caplog.text
    assert files(tmp_path / "theirs") == {"config.json", "model.safetensors"}


def test_a_parameter_file_needs_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mlm.PerceiverIOForMaskedLM(small_language_model())
    monkeypatch.setattr(conversion, "published_config", {"small": small_language_model()}.__getitem__)
    monkeypatch.setattr(conversion, "from_deepmind", lambda path, config: model)
    source = tmp_path / "language.pickle"
    source.write_bytes(b"")
    assert main(["convert", str(source), "-o", str(tmp_path / "model")]) == 2
    assert "Say it with --model" in error_line(capsys)
    assert main(["convert", str(source), "-o", str(tmp_path / "model"), "--model", "small"]) == 0
    assert files(tmp_path / "model") == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
    }
    found = pio.from_pretrained(tmp_path / "model")
    assert torch.equal(found.perceiver.encoder.latents.weight, model.perceiver.encoder.latents.weight)


def test_another_configuration_for_the_weights(config_file: str, tmp_path: Path) -> None:
    model = mlm.PerceiverIOForMaskedLM(small_language_model())
    model.save_pretrained(tmp_path / "ours")
    content = small_language_model().to_dict()
    content["encoder"]["activation"] = "gelu"
    Path(config_file).write_text(json.dumps(content))
    arguments = ["convert", str(tmp_path / "ours"), "-o", str(tmp_path / "exact"), "--model", config_file]
    assert main(arguments) == 0
    found = pio.from_pretrained(tmp_path / "exact")
    assert type(found) is mlm.PerceiverIOForMaskedLM and found.config.encoder.activation == "gelu"
    assert same_files(tmp_path / "ours", tmp_path / "exact")


@pytest.mark.parametrize("command", ["init", "convert"])
def test_a_folder_that_holds_something_is_left_alone(
    command: str, config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    assert main(["init", config_file, "-o", str(source), "--seed", "1"]) == 0
    assert main(["init", config_file, "-o", str(folder), "--seed", "2"]) == 0
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    arguments = [command, config_file if command == "init" else str(source), "-o", str(folder)]
    assert main(arguments) == 2
    assert "--overwrite" in error_line(capsys)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert main([*arguments, "--overwrite"]) == 0
    assert files(folder) == set(before)
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    capsys.readouterr()
    (folder / "recipe.yaml").write_text("task: image-classification\n")
    assert main([*arguments, "--overwrite"]) == 2
    assert "training run" in error_line(capsys)
    assert main([*arguments[:3], config_file]) == 2
    assert "is a file" in error_line(capsys)


@pytest.mark.parametrize("config", [None, "null", '{"model_type": "bert"}'])
def test_overwriting_replaces_nothing_but_a_model(
    config: str | None, config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.safetensors").write_text("years of work")
    if config is not None:
        (folder / "config.json").write_text(config)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["init", config_file, "-o", str(folder), "--overwrite"]) == 2
    assert "no config.json of a Perceiver" in error_line(capsys)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_what_is_converted_is_not_overwritten(
    config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    assert main(["init", config_file, "-o", str(source)]) == 0
    config = str(source / "config.json")
    for arguments in (["convert", str(source)], ["init", config]):
        capsys.readouterr()
        assert main([*arguments, "-o", f"{source}/../source", "--overwrite"]) == 2
        assert "lies in it, which is read" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init", "gpt-17"], "no published model 'gpt-17'. Known: language-perceiver"),
        (["init", "broken.json"], "broken.json cannot be read"),
        (["init", "empty.json"], "needs an object under"),
        (["convert", "missing"], "There is no folder missing"),
        (["convert", "empty"], "no config.json"),
        (["convert", "broken.json", "--model", "language-perceiver"], "broken.json"),
        (["convert", "empty", "--model", "gpt-17"], "no published model 'gpt-17'"),
        (["convert", "tiny", "--to", "transformers"], "PerceiverForMaskedLM"),
    ],
)
def test_bad_arguments_write_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("empty.json").write_text("{}")
    Path("empty").mkdir()
    mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny")).save_pretrained("tiny")
    before = files(tmp_path)
    assert main([*arguments, "-o", "output/folder"]) == 2
    assert message in error_line(capsys)
    assert files(tmp_path) - {"output"} == before and not Path("output/folder").exists()


def test_a_failed_write_leaves_nothing(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlm.PerceiverIOForMaskedLM, "save_pretrained", fail)
    assert main(["init", config_file, "-o", str(tmp_path / "model")]) == 2
    assert "No space left" in error_line(capsys)
    assert not (tmp_path / "model").exists()


def test_a_class_without_a_task_is_converted_too(tmp_path: Path) -> None:
    model = pio.PerceiverIO(small_language_model())
    model.save_pretrained(tmp_path / "ours")
    assert main(["convert", str(tmp_path / "ours"), "-o", str(tmp_path / "copy")]) == 0
    assert type(pio.from_pretrained(tmp_path / "copy")) is pio.PerceiverIO
    assert files(tmp_path / "copy") == {"README.md", "config.json", "model.safetensors"}


def test_init_leaves_the_random_numbers_of_the_process_alone(config_file: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    conversion.init(config_file, tmp_path / "model", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_folders_of_transformers_are_described_and_predicted_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"num_latents": 4, "d_latents": 32, "num_blocks": 1, "num_self_attends_per_block": 1}
    config = PerceiverConfig(**settings, num_cross_attention_heads=1, id2label={0: "cat", 1: "dog", 2: "owl"})
    PerceiverForImageClassificationFourier(config).save_pretrained(tmp_path)
    PerceiverImageProcessorPil().save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    capsys.readouterr()
    assert main(["predict", str(tmp_path), str(tmp_path / "picture.png"), "--json", "--top-k", "3"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    pixels = PerceiverImageProcessorPil()(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = PerceiverForImageClassificationFourier.from_pretrained(tmp_path).eval()(pixels).logits
    for label in result["labels"]:
        expected = logits.softmax(-1)[0, ["cat", "dog", "owl"].index(label["label"])].item()
        assert label["probability"] == pytest.approx(expected, rel=1e-4)
    capsys.readouterr()
    assert main(["info", str(tmp_path), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["model"] == "PerceiverIOForImageClassification"
    assert described["encoder"]["num_latents"] == 4


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    small_language_model().save_pretrained(tmp_path / "small")
    assert main(["init", "small/config.json", "--output-dir=~/x"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "x"]

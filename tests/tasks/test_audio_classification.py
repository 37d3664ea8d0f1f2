"""Audio classification: data of one's own, files, pipelines, padding, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from perceiver_io.cli.main import main
from perceiver_io.media.sound import Sound, read_sound, write_wav
from perceiver_io.running.building import build
from perceiver_io.running.runner import attention, evaluate, predict, train
from perceiver_io.tasks import audio_classification as ac
from perceiver_io.tasks.audio_classification.data import instruments
from perceiver_io.tasks.audio_classification.task import AudioClassificationTask
from perceiver_io.tasks.modalities.audio import AUDIO, AudioSettings

TASK = AudioClassificationTask()
TINY = {
    "max_steps": 2,
    "batch_size": 4,
    "device": "cpu",
    "report_to": "none",
    "evaluate_every": 1,
    "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
}


def tone(pitch: float, seconds: float, rate: int = 4000) -> np.ndarray[Any, Any]:
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sounds")
    for name, pitch in (("high", 900), ("low", 200)):
        (root / name).mkdir()
        for index in range(10):
            write_wav(root / name / f"{index}.wav", tone(pitch + index, 0.2 + 0.02 * index), sample_rate=4000)
    return root


def recipe(folder: Path, tmp_path: Path, **changes: Any) -> Any:
    values = {**TINY, "dataset": str(folder), "output_dir": str(tmp_path / "run")} | changes
    return TASK.recipe_class(**values)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    train(TASK, recipe(folder, root))
    return root / "run"


def test_instruments_are_the_same_each_time_and_of_unequal_lengths() -> None:
    one, other = instruments(), instruments()
    assert len(one.rows) == 6 * 250 and one.class_names[0] == "flute"
    assert all(
        np.array_equal(a["audio"].samples, b["audio"].samples)
        for a, b in zip(one.rows, other.rows, strict=True)
    )
    assert len({row["audio"].samples.shape[1] for row in one.rows}) > 100


def test_the_processor_takes_rate_and_length_from_the_training_set(run: Path) -> None:
    settings = TASK.load_processor(run).processors["audio"].settings
    assert settings.sampling_rate == 4000
    assert 0.3 < settings.max_seconds <= 0.38


def test_pipeline_and_auto_classes_give_what_predict_gives(run: Path, folder: Path) -> None:
    file = folder / "high" / "3.wav"
    (mine,) = predict(TASK, run, [str(file)])
    of_file = {one["label"]: one["probability"] for one in mine["labels"]}
    model = AutoModelForAudioClassification.from_pretrained(run)
    assert type(model) is ac.PerceiverIOForAudioClassification
    extractor = AutoFeatureExtractor.from_pretrained(run)
    sound = read_sound(file)
    classifier = pipeline("audio-classification", model=model, feature_extractor=extractor)
    theirs = classifier({"raw": sound.samples[0], "sampling_rate": sound.sample_rate})
    assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in theirs} == of_file


@pytest.mark.parametrize("features", ["log-mel", "raw"])
def test_padding_changes_nothing(folder: Path, tmp_path: Path, features: str) -> None:
    settings = recipe(folder, tmp_path, audio={"features": features})
    setup = build(TASK, settings, TASK.data(settings))
    setup.model.eval()
    rows = [
        {"audio": Sound(tone(300, seconds)[None].astype(np.float32), 4000)} for seconds in (0.1, 0.33, 0.21)
    ]
    batch = TASK.collate(rows, setup.processor)
    assert not batch["attention_mask"].all()
    with torch.inference_mode():
        together = setup.model(**batch).logits
        alone = torch.cat([setup.model(**TASK.collate([row], setup.processor)).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_variation_is_drawn_and_can_be_turned_off() -> None:
    sound = Sound(tone(300, 0.5)[None].astype(np.float32), 4000)
    for features in ("log-mel", "raw"):
        settings = AudioSettings(features=features)  # type: ignore[arg-type]
        processor = AUDIO.processor(settings, [sound])
        first, second = (AUDIO.varied(sound, processor, settings) for _ in range(2))
        assert first.shape != second.shape or not torch.equal(first, second)
        still = AudioSettings(  # type: ignore[arg-type]
            features=features, speed=0, shift=0, gain=0, noise=0, mask_time=0, mask_bands=0
        )
        torch.testing.assert_close(AUDIO.varied(sound, processor, still), processor.prepare(sound))


def test_shortest_sounds_survive_the_variation() -> None:
    settings = AudioSettings(shift=0.5)
    sound = Sound(np.ones((1, 1), dtype=np.float32), 4000)
    processor = AUDIO.processor(settings, [sound])
    for _ in range(20):
        assert AUDIO.varied(sound, processor, settings).numel()


def test_tables_of_files(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.glob("*/*.wav"))
    table = datasets.Dataset.from_dict(
        {
            "clip": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "kind": [file.parent.name for file in files],
        }
    )
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    data = TASK.data(recipe(tmp_path / "table", tmp_path, input_column="clip", label_column="kind"))
    assert data.class_names == ("high", "low")
    assert read_sound(data.train[0]["audio"]).sample_rate == 4000


def test_evaluates_resumes_and_draws(run: Path, folder: Path, tmp_path: Path) -> None:
    assert evaluate(TASK, run, split="validation")["validation_samples"] > 0
    assert main(["train", "audio-classification", "--output-dir", str(run), "--resume"]) == 0
    attention(TASK, run, [str(folder / "low" / "0.wav")], tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 5000
    assert {"confusion.png", "attention.png", "learning_curve.png"} <= {one.name for one in run.iterdir()}


def test_starts_from_a_run_with_other_classes(run: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "other" / name / f"{index}.wav").symlink_to(folder / "low" / f"{index}.wav")
    results = train(
        TASK, recipe(tmp_path / "other", tmp_path, pretrained=str(run), model={}, validation_fraction=0.3)
    )
    assert results["steps"] == 2
    assert TASK.load(tmp_path / "run").model.num_classes == 3


def test_bad_files_are_named(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("high", "low"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        for file in (folder / name).iterdir():
            (tmp_path / "bad" / name / file.name).symlink_to(file)
    (tmp_path / "bad" / "low" / "broken.wav").write_bytes(b"RIFF and no more")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        TASK.data(recipe(tmp_path / "bad", tmp_path))
    assert len(TASK.data(recipe(tmp_path / "bad", tmp_path, skip_bad_files=True)).train) > 10
    assert main(["predict", str(run), str(tmp_path / "bad" / "low" / "broken.wav")]) == 2
    assert "broken.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"features": "mfcc"}, "features"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"speed": 1.0}, "speed"),
        ({"max_seconds": -1}, "max_seconds"),
        ({"bands": 3}, "bands"),
    ],
)
def test_bad_settings(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"section audio: .*{message}"):
        TASK.recipe_class(audio=section)


def test_presets() -> None:
    config = ac.config(
        class_names=["a", "b"], variant="tiny", settings={"sampling_rate": 8000, "features": "raw"}
    )
    assert config.inputs["audio"].samples_per_patch == 160
    model = ac.PerceiverIOForAudioClassification(config)
    assert model(torch.randn(2, 800)).logits.shape == (2, 2)
    with pytest.raises(ValueError, match="variant"):
        ac.config(variant="huge")

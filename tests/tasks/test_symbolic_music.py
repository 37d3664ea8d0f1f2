"""Symbolic music: made-up tunes, folders of MIDI files, and what a model continues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch

from perceiver_io.adapters.music_events import EDGE, VOCAB_SIZE, decode_events, encode_notes, transposed
from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.media.midi import new_notes, write_midi
from perceiver_io.running import LoadedModel, Setup, parse_recipe, read_recipe_file
from perceiver_io.running.runner import predict, train
from perceiver_io.tasks import symbolic_music as sm
from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.krasserm import save_krasserm
from perceiver_io.tasks.autoregressive.windows import Window
from perceiver_io.tasks.symbolic_music import task as symbolic_music_task
from perceiver_io.tasks.symbolic_music.recipe import SymbolicMusicRecipe
from perceiver_io.tasks.symbolic_music.task import MusicOptions, SymbolicMusicTask, TransposingCollator
from perceiver_io.tasks.symbolic_music.tunes import made_up_tune, made_up_tunes

SCALES = {"major": {0, 2, 4, 5, 7, 9, 11}, "minor": {0, 2, 3, 5, 7, 8, 11}}


def scale_up(first: int, *, length: int = 12) -> Any:
    """A melody of rising pitches, a note each 0.2 s."""
    starts = np.arange(length) * 0.2
    return new_notes(first + np.arange(length), 80, starts, starts + 0.2)


def write_tunes(folder: Path, firsts: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for first in firsts:
        write_midi(folder / f"{first}.mid", scale_up(first))


def recipe(**settings: Any) -> SymbolicMusicRecipe:
    small = {"variant": "tiny", "max_length": 24, "num_latents": 8, "max_steps": 2, "evaluate_every": 1}
    return SymbolicMusicRecipe(**{**small, "device": "cpu", "report_to": "none", **settings})


@pytest.mark.parametrize("mode", SCALES)
def test_made_up_tunes_have_a_key_a_metre_and_a_form(mode: str) -> None:
    for seed in range(20):
        notes = made_up_tune(np.random.default_rng(seed), mode)
        tonic = int(notes["pitch"][np.argmax(notes["end"])]) % 12  # one of the last chord
        keys = [
            key
            for key in range(12)
            if {(pitch - key) % 12 for pitch in notes["pitch"].tolist()} <= SCALES[mode]
        ]
        assert keys and any((tonic - key) % 12 in (0, 3, 4, 7) for key in keys)
        # The second and the last of four phrases are the same.
        phrase = notes["end"].max() / 4
        parts = [
            notes[(notes["start"] > number * phrase - 1e-6) & (notes["start"] < (number + 1) * phrase - 1e-6)]
            for number in range(4)
        ]
        second, last = parts[1], parts[3]
        assert np.array_equal(second["pitch"], last["pitch"])
        np.testing.assert_allclose(second["start"] + 2 * phrase, last["start"])
        bar = phrase / 4
        downbeats = notes[notes["velocity"] == 100]["start"]
        np.testing.assert_allclose(downbeats, np.arange(16) * bar, atol=1e-9)


def test_made_up_tunes_are_the_same_each_time() -> None:
    first, again = made_up_tunes(5), made_up_tunes(5)
    assert len(first.rows) == 5 and set(first.class_names) == {"major", "minor"}
    for one, other in zip(first.rows, again.rows, strict=True):
        assert np.array_equal(one["music"], other["music"])
    assert not np.array_equal(first.rows[0]["music"], first.rows[1]["music"])


def test_a_folder_is_read_to_its_depths_and_split_by_piece(tmp_path: Path) -> None:
    write_tunes(tmp_path / "midi", range(40, 50))
    write_tunes(tmp_path / "midi" / "deeper", range(50, 60))
    data = SymbolicMusicTask().data(recipe(dataset=str(tmp_path / "midi")))
    documents = [rows.documents for rows in (data.train, data.validation, data.test)]
    found = [tuple(one.tolist()) for part in documents for one in part]
    expected = [(EDGE, *encode_notes(scale_up(first)).tolist(), EDGE) for first in range(40, 60)]
    assert sorted(found) == sorted(expected)
    assert [len(part) for part in documents] == [14, 2, 4]


def test_sets_that_a_folder_has_are_used(tmp_path: Path) -> None:
    write_tunes(tmp_path / "midi" / "train", range(40, 50))
    write_tunes(tmp_path / "midi" / "test", [70])
    data = SymbolicMusicTask().data(recipe(dataset=str(tmp_path / "midi")))
    (only,) = data.test.documents
    assert only[2] == 70


def test_bad_files_are_named_or_left_out(tmp_path: Path) -> None:
    write_tunes(tmp_path / "midi", range(40, 60))
    (tmp_path / "midi" / "bad.mid").write_bytes((tmp_path / "midi" / "41.mid").read_bytes()[:50])
    (tmp_path / "midi" / "no.midi").write_bytes(b"no music")
    settings = {"dataset": str(tmp_path / "midi")}
    with pytest.raises(ValueError, match=r"2 of 22 MIDI files .*bad\.mid \(a damaged MIDI file.*no\.midi"):
        SymbolicMusicTask().data(recipe(**settings))
    data = SymbolicMusicTask().data(recipe(**settings, skip_bad_files=True))
    assert sum(len(rows.documents) for rows in (data.train, data.validation, data.test)) == 20
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no MIDI files in it"):
        SymbolicMusicTask().data(recipe(dataset=str(tmp_path / "empty")))
    with pytest.raises(ValueError, match="made-up-tunes"):
        SymbolicMusicTask().data(recipe(dataset=str(tmp_path / "missing")))


def test_training_windows_are_transposed_and_others_are_not() -> None:
    ids = np.concatenate([[EDGE], encode_notes(scale_up(60, length=5)), [EDGE]]).astype(np.int16)
    collate = WindowCollator(pad_id=EDGE, num_latents=8, train=False)
    moved = TransposingCollator(collate, 4)
    torch.manual_seed(0)
    found = set()
    for _ in range(60):
        batch = moved([Window(ids, 5)])
        (shift,) = {s for s in range(-5, 6) if batch["input_ids"][0].tolist() == transposed(ids, s).tolist()}
        assert batch["labels"][0, -5:].tolist() == transposed(ids, shift)[-5:].tolist()
        found.add(shift)
    assert found == set(range(-4, 5))


def test_transposition_is_a_setting(tmp_path: Path) -> None:
    write_tunes(tmp_path / "midi", range(40, 60))
    task = SymbolicMusicTask()
    for most, kind in ((0, WindowCollator), (5, TransposingCollator)):
        of = recipe(dataset=str(tmp_path / "midi"), transposition=most)
        data = task.data(of)
        setup = Setup(
            recipe=of, data=data, model=task.new_model(task.config(of, data), task.processor(of, data))
        )
        assert type(task.collator(setup, train=True)) is kind
        assert type(task.collator(setup, train=False)) is WindowCollator
    with pytest.raises(ValueError, match="transposition is -1"):
        recipe(transposition=-1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned rising melodies."""
    root = tmp_path_factory.mktemp("music")
    write_tunes(root / "midi", range(40, 80))
    settings = {"max_steps": 150, "evaluate_every": 75, "batch_size": 8, "learning_rate": 5e-3}
    train(
        SymbolicMusicTask(),
        recipe(
            dataset=str(root / "midi"),
            max_length=48,
            num_latents=24,
            output_dir=str(root / "run"),
            **settings,
        ),
    )
    return root / "run"


def test_a_run_leaves_its_music(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    # What follows is nearly certain: the next pitch is one higher, each lasts 0.2 s, and only the first has a velocity.
    assert metrics["test_nats"] < 0.7 and metrics["test_accuracy"] > 0.8
    assert (run / "piano_roll.png").stat().st_size
    assert pretty_midi.PrettyMIDI(str(run / "sample.mid")).get_end_time() > 0
    generation = json.loads((run / "generation_config.json").read_text())
    assert generation["eos_token_id"] == generation["bos_token_id"] == generation["pad_token_id"] == EDGE


def test_a_melody_is_continued_as_it_began(run: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "tune.mid", scale_up(50))
    options = MusicOptions(
        greedy=True, seconds=0.8, max_new_tokens=12, output_dir=str(tmp_path / "out"), wav=True
    )
    (result,) = predict(SymbolicMusicTask(), run, [str(tmp_path / "tune.mid")], options)
    names = [Path(file).name for file in result["files"]]
    assert names == ["tune-1.mid", "tune-1.wav", "tune-roll.png"]
    (instrument,) = pretty_midi.PrettyMIDI(result["files"][0]).instruments
    pitches = [note.pitch for note in sorted(instrument.notes, key=lambda one: one.start)]
    assert pitches[:4] == [50, 51, 52, 53]  # what was given
    assert pitches[4:6] == [54, 55]
    (sample,) = result["samples"]
    assert sample["notes"] == len(pitches) and len(sample["events"]) <= 12
    sound, rate = soundfile.read(result["files"][1])
    assert len(sound) / rate >= sample["seconds"] and np.abs(sound).max() > 0.1
    assert "tune.mid: " in SymbolicMusicTask().describe_prediction(result)


def test_pieces_begin_and_end_by_themselves(run: Path) -> None:
    options = MusicOptions(num_samples=4, max_new_tokens=120)
    (result,) = predict(SymbolicMusicTask(), run, [""], options)
    assert "files" not in result and len(result["samples"]) == 4
    for sample in result["samples"]:
        assert sample["ended"] == (sample["events"][-1] == EDGE)
        assert EDGE not in sample["events"][:-1]
        assert sample["notes"] == len(decode_events(sample["events"]))
    assert len({tuple(sample["events"]) for sample in result["samples"]}) > 1
    assert any(sample["ended"] for sample in result["samples"])
    assert predict(SymbolicMusicTask(), run, [""], options) == [result]
    other = predict(SymbolicMusicTask(), run, [""], MusicOptions(num_samples=4, max_new_tokens=120, seed=1))
    assert other != [result]


def test_a_piece_that_is_longer_than_the_context_is_continued(run: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "long.mid", scale_up(20, length=80))
    (result,) = predict(SymbolicMusicTask(), run, [str(tmp_path)], MusicOptions(max_new_tokens=60))
    assert result["input"].endswith("long.mid") and result["samples"][0]["notes"] >= 80


def test_bad_options_are_refused(run: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"program": 128}, "program is 128"),
        ({"top_p": 2.0}, "top_p is 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            MusicOptions(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="set output_dir"):
        predict(SymbolicMusicTask(), run, [""], MusicOptions(wav=True))
    (tmp_path / "a-1.mid").write_bytes(b"")
    write_midi(tmp_path / "a.mid", scale_up(50))
    inputs = [str(tmp_path / name) for name in ("a.mid", "a-1.mid")]
    with pytest.raises(ValueError, match="would be overwritten"):
        predict(SymbolicMusicTask(), run, inputs, MusicOptions(output_dir=str(tmp_path)))


def test_a_run_goes_on_from_another(run: Path, tmp_path: Path) -> None:
    write_tunes(tmp_path / "midi", range(40, 60))
    settings = {"pretrained": str(run), "variant": None, "dataset": str(tmp_path / "midi")}
    metrics = train(SymbolicMusicTask(), recipe(**settings, output_dir=str(tmp_path / "tuned")))
    assert metrics["test_nats"] < 1.5  # from the start
    with pytest.raises(ValueError, match="has its own events"):
        recipe(pretrained=str(run), variant=None, krasserm_events=True)


def test_krasserms_models_have_no_edges(tmp_path: Path) -> None:
    config = sm.config(
        variant="tiny",
        max_length=24,
        num_latents=8,
        encoder={"latent_keys": "query_norm", "biases": "cross_attend_output", "rotary_fraction": 1.0},
        decoder={"tied_to": "tokens", "bias": False},
    )
    save_krasserm(sm.PerceiverARForCausalLM(config), tmp_path / "theirs")
    write_midi(tmp_path / "tune.mid", scale_up(50))
    task = SymbolicMusicTask()
    loaded: LoadedModel[Any] = task.load(tmp_path / "theirs")
    of = loaded.processor.processors["tokens"]
    assert of == MusicProcessor(krasserm=True, edges=False)
    (result,) = task.predict(loaded, [str(tmp_path / "tune.mid")], MusicOptions(max_new_tokens=5))
    assert 1 <= len(result["samples"][0]["events"]) <= 5
    with pytest.raises(ValueError, match="give it a MIDI file"):
        task.predict(loaded, [""], MusicOptions())


def test_the_vocabulary_is_that_of_the_field() -> None:
    config = sm.config(variant="tiny", max_length=32)
    assert config.inputs["tokens"].vocab_size == config.outputs["tokens"].vocab_size == VOCAB_SIZE == 389
    assert config.encoder.num_latents == 16


def test_the_recipes_are_valid() -> None:
    task = SymbolicMusicTask()
    folder = Path(symbolic_music_task.__file__).parent / "recipes"
    recipes = {
        path.stem: parse_recipe(SymbolicMusicRecipe, values=read_recipe_file(path, task=task.name))
        for path in folder.glob("*.yaml")
    }
    assert recipes.keys() == {"maestro", "midi_folder"}
    nothing: Any = None
    with torch.device("meta"):
        counts = {
            name: sm.PerceiverARForCausalLM(task.config(one, nothing)).num_parameters()
            for name, one in recipes.items()
        }
    assert 25e6 < counts["maestro"] < 35e6 and recipes["maestro"].num_latents == 1024
    assert recipes["midi_folder"] == SymbolicMusicRecipe(dataset="midi")

"""The task of continuing music."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.music_events import (
    EDGE,
    STEP,
    duration_of,
    sounding_events,
    struck_keys,
    transposed,
    transpositions,
)
from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.midi import Notes, midi_suffixes, synthesized, write_midi
from perceiver_io.media.sound import write_wav
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.piano_roll import Roll, draw_piano_rolls
from perceiver_io.pictures.seen_music import SeenMusic
from perceiver_io.processor import PROCESSOR_FILES, PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, Setup
from perceiver_io.running.task import OURS, Collate, Drawing, Layout
from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.options import GenerateOptions
from perceiver_io.tasks.autoregressive.presets import TOKENS
from perceiver_io.tasks.autoregressive.task import AutoregressiveTask
from perceiver_io.tasks.autoregressive.windows import Window
from perceiver_io.tasks.symbolic_music.data import read_music
from perceiver_io.tasks.symbolic_music.presets import config
from perceiver_io.tasks.symbolic_music.recipe import SymbolicMusicRecipe

__all__ = ["MusicOptions", "SymbolicMusicTask", "TransposingCollator"]

_SAMPLE_RATE = 22050
# What the pictures of a run show: so many events that follow so many seconds of a test piece, or nothing.
_NUM_SHOWN, _SECONDS_SHOWN = 400, 8.0
_CHOICE = {"temperature": 0.95, "top_p": 0.98}
_NEW = "new"


@dataclass(kw_only=True)
class MusicOptions(GenerateOptions):
    """How music is continued."""

    max_new_tokens: int | None = field(
        default=1000, metadata={"help": "How many events to add at most, if the piece does not end before."}
    )
    temperature: float = _CHOICE["temperature"]
    top_p: float | None = _CHOICE["top_p"]
    seconds: float | None = field(
        default=None,
        metadata={"help": "How much of a file is continued, from its beginning; by default all."},
    )
    wav: bool = field(
        default=False,
        metadata={
            "help": "Write sounds too: by FluidSynth where pyfluidsynth is installed, else plain ones."
        },
    )
    program: int = field(
        default=0, metadata={"help": "Instrument of General MIDI that plays what is written; 0: a piano."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}, expected more than 0.")
        if not 0 <= self.program <= 127:
            raise ValueError(f"program is {self.program}, expected 0 to 127.")


class TransposingCollator:
    """Moves each window by a random number of semitones, as far as its pitches allow, before it makes a batch.

    Args:
        collate: Makes a batch of windows.
        most: The most semitones, up or down.
    """

    def __init__(self, collate: WindowCollator, most: int) -> None:
        self.collate, self.most = collate, most

    def __call__(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Returns the batch."""
        moved = []
        for window in windows:
            possible = transpositions(window.tokens, self.most)
            semitones = possible[int(torch.randint(len(possible), ()))]
            moved.append(replace(window, tokens=transposed(window.tokens, semitones)))
        return self.collate(moved)


@register_task("symbolic-music")
class SymbolicMusicTask(AutoregressiveTask):
    """Trains `PerceiverARForCausalLM` on events of music, and continues MIDI files."""

    model_class = PerceiverARForCausalLM
    recipe_class = SymbolicMusicRecipe
    options_class = MusicOptions
    writes_files = True
    unit = "nats"

    def data(self, recipe: SymbolicMusicRecipe) -> Splits:
        """Reads music, and cuts its events in windows."""
        assert recipe.max_length is not None and recipe.num_latents is not None
        return read_music(
            recipe,
            self._music(recipe),
            seed=recipe.seed,
            max_length=recipe.max_length,
            num_latents=recipe.num_latents,
            move_windows=recipe.move_windows,
        )

    def config(self, recipe: SymbolicMusicRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        assert recipe.variant is not None and recipe.max_length is not None
        settings = recipe.model_settings
        return config(
            variant=recipe.variant,
            max_length=recipe.max_length,
            num_latents=recipe.num_latents,
            tokens=settings.input(TOKENS),
            encoder=settings.encoder,
            decoder=settings.output(TOKENS),
        )

    def processor(self, recipe: SymbolicMusicRecipe, data: Splits) -> PerceiverIOProcessor:
        """Returns what makes events of music."""
        return PerceiverIOProcessor({TOKENS: self._music(recipe)})

    def new_model(self, config: PerceiverIOConfig, processor: PerceiverIOProcessor) -> PerceiverARForCausalLM:
        """Returns a new model, which knows the edge of a piece."""
        model = PerceiverARForCausalLM(config)
        assert model.generation_config is not None
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(model.generation_config, name, EDGE)
        return model

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes batches of windows, moved at random in time and pitch in training."""
        collate = self.window_collator(setup, train=train, pad_id=EDGE)
        most = setup.recipe.transposition
        return TransposingCollator(collate, most) if train and most else collate

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """A test piece, how the model continues its beginning, and one that it begins itself: drawn, and as a file."""
        music, model = _of(setup.processor), setup.model.eval()
        piece = setup.data.test.documents[0].astype(np.int64)
        prompt = music.prompt(music.decode(piece), seconds=_SECONDS_SHOWN)
        options = MusicOptions(max_new_tokens=min(_NUM_SHOWN, model.max_length))
        continued = self._continued(model, prompt, options)[0]
        rolls = [
            _roll("A test piece", music.decode(piece)),
            _roll(f"Its first {duration_of(prompt):.0f} seconds, continued", music.decode(continued), prompt),
        ]
        last = music.decode(continued)
        if music.edges:
            last = music.decode(self._continued(model, music.prompt(None), options)[0])
            rolls.append(_roll("A piece from its beginning", last))
        return {
            "attention.png": partial(draw_view, _view(model, prompt, "The beginning of a test piece")),
            "piano_roll.png": partial(draw_piano_rolls, rolls),
            "sample.mid": partial(write_midi, notes=last),
        }

    def file_suffixes(self) -> set[str]:
        """Returns the endings of MIDI files."""
        return midi_suffixes()

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: MusicOptions
    ) -> list[dict[str, Any]]:
        """Continues MIDI files.

        Args:
            loaded: The model and its processor.
            inputs: The files; an empty text asks for a piece from its beginning.
            options: How. With `output_dir` each input leaves `NAME-1.mid`, …, the whole pieces, and `NAME-roll.png`, a
                picture of them, there; `NAME` is that of the file, or "new". With `wav` there are sounds beside them.

        Returns:
            Of each input `input`, `samples` with the `events` that were added, the `notes` of the whole piece and its
            `seconds`, and whether it `ended` by itself; and the `files` that were written.

        Raises:
            ValueError: A file cannot be read or would be overwritten, or an option is out of range.
            OSError: A file cannot be written.
        """
        if options.output_dir is not None:
            names = [name for one in inputs for name in _names(one, options)]
            check_outputs(
                options.output_dir, names, [one for one in inputs if one], overwrite=options.overwrite
            )
        elif options.wav:
            raise ValueError("wav asks for files, but there is no folder for them: set output_dir.")
        music = _of(loaded.processor)
        prompts = [music.prompt(Path(one) if one else None, seconds=options.seconds) for one in inputs]
        results = []
        for one, prompt in zip(inputs, prompts, strict=True):
            found = self._continued(loaded.model, prompt, options)
            pieces = [music.decode(ids) for ids in found]
            samples = [
                {
                    "events": ids[len(prompt) :].tolist(),
                    "notes": len(notes),
                    "seconds": round(duration_of(ids), 2),
                    "ended": bool(len(ids) > len(prompt) and ids[-1] == EDGE),
                }
                for ids, notes in zip(found, pieces, strict=True)
            ]
            result: dict[str, Any] = {"input": one, "samples": samples}
            if options.output_dir is not None:
                result["files"] = _write(one, pieces, prompt, options)
            results.append(result)
        return results

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents on the last events of a file attend to."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one file at a time, got {len(inputs)}.")
        prompt = _of(loaded.processor).prompt(Path(inputs[0]) if inputs[0] else None)
        return _view(loaded.model, prompt, Path(inputs[0]).name)

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns a line for each continuation, and the files that were written."""
        name = prediction["input"] or "From nothing"
        lines = [
            f"{name}: {sample['notes']} notes, {sample['seconds']:.1f} s, {len(sample['events'])} events of them new"
            f"{', to its end' if sample['ended'] else ''}"
            for sample in prediction["samples"]
        ]
        return "\n".join([*lines, *(f"  written: {file}" for file in prediction.get("files", ()))])

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads what makes events of music beside a model; where there is none, that of krasserm's, which have none.

        Raises:
            ValueError: It is damaged, or of another task.
        """
        if Path(source).is_dir() and not any(Path(source, name).is_file() for name in PROCESSOR_FILES):
            return _krasserm_processor()
        try:
            loaded = PerceiverIOProcessor.from_pretrained(source)
        except OSError:
            return _krasserm_processor()
        of = getattr(loaded, "processors", {}).get(TOKENS)
        if not isinstance(of, MusicProcessor):
            raise ValueError(
                f"The processor in {source} is damaged: it holds a {type(of or loaded).__name__}, expected the events "
                "of music."
            )
        assert isinstance(loaded, PerceiverIOProcessor)
        return loaded

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes what makes events of music.

        Args:
            model: The model.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: Of others, only krasserm's models are of music, and have no such file.
        """
        processor = _krasserm_processor() if source is None else self.load_processor(source)
        processor.save_pretrained(folder)

    def _music(self, recipe: SymbolicMusicRecipe) -> MusicProcessor:
        if recipe.pretrained is not None:
            return _of(self.load_processor(recipe.pretrained))
        return MusicProcessor(krasserm=recipe.krasserm_events)

    def _continued(
        self, model: PerceiverARForCausalLM, prompt: NDArray[np.int64], options: MusicOptions
    ) -> list[NDArray[np.int64]]:
        """The prompt with each continuation, which may end with one edge."""
        ids = torch.from_numpy(prompt)[None].to(model.device)
        with torch.no_grad():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=EDGE,
                eos_token_id=EDGE,
                **options.arguments(max_new_tokens=_NUM_SHOWN),
            )
        return [_ended(row, len(prompt)) for row in found.cpu().numpy()]


def _of(processor: PerceiverIOProcessor) -> MusicProcessor:
    of = processor.processors[TOKENS]
    assert isinstance(of, MusicProcessor)
    return of


def _krasserm_processor() -> PerceiverIOProcessor:
    return PerceiverIOProcessor({TOKENS: MusicProcessor(krasserm=True, edges=False)})


def _ended(ids: NDArray[np.int64], num_given: int) -> NDArray[np.int64]:
    """Events up to the first edge after those that were given; what follows pads the batch."""
    edges = np.flatnonzero(ids[num_given:] == EDGE)
    return ids if not len(edges) else ids[: num_given + int(edges[0]) + 1]


def _view(model: PerceiverARForCausalLM, ids: NDArray[np.int64], title: str) -> AttentionView:
    ids = ids[-model.max_length :]
    maps = model.perceiver.attention_maps({TOKENS: torch.from_numpy(ids)[None].to(model.device)})
    first, last = sounding_events(ids)
    return AttentionView(
        maps=maps,
        seen={TOKENS: SeenMusic(num_events=len(ids), pitch=ids[first], first=first, last=last)},
        title=title,
    )


def _roll(title: str, notes: Notes, prompt: NDArray[np.int64] | None = None) -> Roll:
    given = None
    if prompt is not None:
        keys, steps = struck_keys(prompt), np.rint(notes["start"] / STEP).astype(int)
        given = np.array(
            [key in keys for key in zip(notes["pitch"].tolist(), steps.tolist(), strict=True)], dtype=bool
        )
    return Roll(title=title, pitch=notes["pitch"], start=notes["start"], end=notes["end"], given=given)


def _names(file: str, options: MusicOptions) -> list[str]:
    stem = Path(file).stem if file else _NEW
    endings = (".mid", ".wav") if options.wav else (".mid",)
    names = [f"{stem}-{number}{ending}" for number in range(1, options.num_samples + 1) for ending in endings]
    return [*names, f"{stem}-roll.png"]


def _write(file: str, pieces: Sequence[Notes], prompt: NDArray[np.int64], options: MusicOptions) -> list[str]:
    assert options.output_dir is not None
    names = _names(file, options)
    with writing_into(options.output_dir) as folder:
        for name in names[:-1]:
            number = int(Path(name).stem.rpartition("-")[2])
            notes = pieces[number - 1]
            if name.endswith(".mid"):
                write_midi(folder / name, notes, program=options.program)
            else:
                samples = (
                    synthesized(notes, sample_rate=_SAMPLE_RATE, program=options.program)
                    if len(notes)
                    else np.zeros(_SAMPLE_RATE)
                )
                write_wav(folder / name, samples, sample_rate=_SAMPLE_RATE)
        title = Path(file).name or "From nothing"
        rolls = [_roll(f"{title} ({number})", one, prompt) for number, one in enumerate(pieces, 1)]
        draw_piano_rolls(rolls, folder / names[-1])
    return [str(Path(options.output_dir, name)) for name in names]

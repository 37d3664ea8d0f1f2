"""Music beside n-grams of events: nats an event on pieces that nobody learned from.

    python benchmarks/music.py                                   # seed 0 of the embedded set
    python benchmarks/music.py --dataset midi --seeds 0 1 -- --transposition 0
    python benchmarks/music.py --dataset midi --ngrams-only

Ours is the command as it comes. An n-gram says how likely an event is after those before it by counting, and asks the
next shorter one the more, the more rarely it has seen them (Witten and Bell, 1991): a bigram sees one event. All are
counted on the same training pieces, and judged by the same events: all of the test pieces but their first edges.
With --samples, notes of pieces that the trained model begins itself are counted beside those of the test pieces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from token_ngrams import NGrams

from perceiver_io.adapters.music_events import VOCAB_SIZE, decode_events
from perceiver_io.media.midi import Notes, read_midi
from perceiver_io.running import parse_recipe
from perceiver_io.running.runner import predict
from perceiver_io.tasks.symbolic_music.recipe import SymbolicMusicRecipe
from perceiver_io.tasks.symbolic_music.task import MusicOptions, SymbolicMusicTask

ORDERS = (1, 2, 3, 4, 6, 8)
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "harmonic minor": (0, 2, 3, 5, 7, 8, 11)}


def in_key(notes: Notes) -> float:
    """The part of the notes that belong to the one scale which most of them do."""
    pitches = notes["pitch"].astype(int)
    return max(
        float(np.isin((pitches - tonic) % 12, scale).mean())
        for scale in SCALES.values()
        for tonic in range(12)
    )


def describe(pieces: Sequence[Notes]) -> dict[str, float]:
    """Medians over pieces of what can be counted in them."""
    values = {
        "notes": [len(one) for one in pieces],
        "seconds": [float(one["end"].max()) for one in pieces],
        "notes a second": [len(one) / float(one["end"].max()) for one in pieces],
        "seconds of a note": [float(np.median(one["end"] - one["start"])) for one in pieces],
        "lowest pitch": [int(one["pitch"].min()) for one in pieces],
        "highest pitch": [int(one["pitch"].max()) for one in pieces],
        "part in one key": [in_key(one) for one in pieces],
        "starts at once": [len(one) / len(np.unique(one["start"])) for one in pieces],
    }
    return {name: round(float(np.median(column)), 3) for name, column in values.items()}


def train(dataset: str, run: Path, seed: int, flags: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "symbolic-music", "--dataset", dataset]
    command += ["--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def sampled(run: Path, number: int) -> list[Notes]:
    """The notes of pieces that a model begins, as its files have them."""
    with tempfile.TemporaryDirectory() as folder:
        options = MusicOptions(num_samples=number, output_dir=folder, max_new_tokens=1500)
        (result,) = predict(SymbolicMusicTask(), run, [""], options)
        print("ended by themselves:", sum(one["ended"] for one in result["samples"]), "of", number)
        return [read_midi(file) for file in result["files"] if file.endswith(".mid")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="made-up-tunes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ngrams-only", action="store_true", help="train nothing")
    parser.add_argument("--samples", type=int, default=0, help="how many pieces to begin and to count")
    parser.add_argument("--run", type=Path, help="a run that was trained already, to take samples of")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    recipe = parse_recipe(SymbolicMusicRecipe, ["--dataset", args.dataset])
    data = SymbolicMusicTask().data(recipe)
    learned, tested = data.train.documents, data.test.documents
    print(
        f"{len(learned)} pieces of {sum(map(len, learned)):,} events to learn from, {len(tested)} of "
        f"{sum(len(one) - 1 for one in tested):,} to predict"
    )
    grams = NGrams(learned, max(ORDERS), vocab_size=VOCAB_SIZE)
    for order in ORDERS:
        print(f"{order}-gram: {grams.nats(tested, order):.3f} nats an event", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in [] if args.ngrams_only or args.run else args.seeds:
            run = Path(scratch, str(seed))
            metrics = train(args.dataset, run, seed, args.flags)
            print(
                f"seed {seed}: {metrics['test_nats']:.3f} nats an event, accuracy {metrics['test_accuracy']:.1%}, "
                f"{metrics['train_seconds']:.0f} s, {metrics['parameters']:,} parameters",
                flush=True,
            )
        if args.samples:
            run = args.run or run
            print("test pieces:", json.dumps(describe([decode_events(one) for one in tested])))
            print("samples:    ", json.dumps(describe(sampled(run, args.samples))))


if __name__ == "__main__":
    main()

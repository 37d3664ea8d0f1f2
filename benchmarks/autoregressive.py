"""Perceiver AR: training steps, reading a prompt and generating, in seconds and memory, beside what else there is.

Three parts, each of which prints a table.

krasserm: this package's model and krasserm's implementation with the same weights, 512 wide, a cross-attend and 8
self-attends of 8 heads, 512 latents, rotary. Whether both say the same comes first: ours in float32 must be within
1e-4 of the logits' standard deviation of his in float64, and choose the same tokens with a cache, or nothing is timed.
(His in float32 is off by more than that where contexts are long, as it computes the angles of positions in float32.)
Then
  - a training step: forward, backward and AdamW, the 512 last tokens of each context learned, no dropout of any kind;
  - a prompt as long as the context, read by 512 latents into a cache;
  - tokens per second with that cache while latents grow from fewer to 512 and the context becomes full. Both do the
    same work here and must choose the same tokens;
  - tokens per second from there on. Ours reads the window again with 256 latents each 257 tokens, which is exact, and
    a whole such cycle is timed. His drops the oldest latent and token at each step; his keys are those that this latent
    had an influence on, so that his tokens are not what his model says without a cache.
Tokens a second are those of one sequence, and of 8 at once where the context is up to 8,192. All models are stepped by
the same loop, from the first token after the prompt on, not by `generate` of `transformers`: his needs an old one.

gpt2: this package's model and `GPT2LMHeadModel` of `transformers`, as wide, of 9 blocks, with random weights, on equal
tokens. GPT-2 learns all tokens of a step; ours those of its latents, here 512, or as many as there are tokens.

memory: this package's model alone, 64 wide, 4 self-attends, 512 latents, of 10^3 to 10^6 tokens.

Each figure comes from a process of its own, in which the fastest of some repetitions counts; sides take turns, and what
is printed are medians, and the median of each turn's ratio with its range. Memory is the peak of the process, the
libraries that it loads among it; in the part "memory" it is less what the process takes before it has a model's input.

    pip install --no-deps --ignore-requires-python --target krasserm perceiver-io==0.11.0     # and einops, if missing
    PYTHONPATH=krasserm python benchmarks/autoregressive.py
    PYTHONPATH=krasserm python benchmarks/autoregressive.py --parts krasserm --contexts 1024 8192
    python benchmarks/autoregressive.py --parts memory --plot autoregressive-memory.png
    PYTHONPATH=krasserm python benchmarks/autoregressive.py --device cuda --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from autoregressive_peers import CLOCKS, SIDES, VOCABULARY, Krasserm, Side, Size, write_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

PARTS = ("krasserm", "gpt2", "memory")
CONTEXTS = (1_024, 8_192, 65_536)
LENGTHS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_GPT2_UP_TO = 8_192  # beyond it a training step takes minutes
_TOLERANCE = 1e-4
Found = dict[str, Any]


def main() -> None:
    options = _parser().parse_args()
    if options.worker:
        print(json.dumps(_work(options)))
        return
    print(
        f"{options.threads} threads, {options.device}, {options.dtype}, torch {torch.__version__}\n",
        flush=True,
    )
    found: Found = {name: getattr(options, name) for name in ("threads", "clock", "device", "dtype")}
    for part in options.parts:
        found[part] = {"krasserm": _beside_krasserm, "gpt2": _beside_gpt2, "memory": _alone}[part](options)
        if options.out:
            options.out.write_text(json.dumps(found, indent=2) + "\n")
    if options.plot:
        _draw(found["memory"], options.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument(
        "--contexts", nargs="+", type=int, default=list(CONTEXTS), help="of the parts krasserm and gpt2"
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="of the part memory")
    parser.add_argument("--channels", type=int, default=512, help="width of the parts krasserm and gpt2")
    parser.add_argument("--layers", type=int, default=8, help="self-attends of the parts krasserm and gpt2")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3, help="processes of each side")
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions in each process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time, the same on a machine that does other things besides; with one thread",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--out", type=Path, help="JSON file to write all figures to")
    parser.add_argument("--plot", type=Path, help="picture of the part memory to write")
    parser.add_argument("--worker", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=list(_MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--latents", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser


# One process


def _work(options: argparse.Namespace) -> Found:
    """Makes one side's model, and measures one thing."""
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # of what old code should do otherwise
    size = Size(
        context=options.length,
        num_latents=options.latents,
        channels=options.channels,
        num_self_attends=options.layers,
        num_heads=options.heads,
    )
    torch.manual_seed(0)
    side = SIDES[options.worker](options.folder, size, CLOCKS[options.clock])
    # Whether outputs are equal is told in float32; what is timed may be in another type.
    dtype = torch.float32 if options.measure == "check" else getattr(torch, options.dtype)
    side.model.to(options.device, dtype)
    torch.manual_seed(1)
    ids = torch.randint(6, VOCABULARY, (1, options.length + 1)).to(options.device)
    before = _peak(options.device)
    found = _MEASURES[options.measure](side, ids, options)
    return {**found, "bytes": _peak(options.device), "more_bytes": _peak(options.device) - before}


def _check(side: Side, ids: Tensor, options: argparse.Namespace) -> Found:
    """Logits without a cache, and what is chosen with one, to be compared with the other side's."""
    found: Found = {}
    with torch.inference_mode():
        logits = side.logits(ids[:, :-1], options.latents)
        if isinstance(side, Krasserm):
            side.in_float64()
            rounded, logits = logits, side.logits(ids[:, :-1], options.latents)
            found["rounding"] = ((rounded - logits).abs().max() / logits.std()).item()
        found["tokens"], _ = side.generate(ids[:, : options.length - 8], options.latents - 8, 8)
    torch.save(logits.cpu(), Path(options.folder) / f"{options.worker}.pt")
    return found


def _training(side: Side, ids: Tensor, options: argparse.Namespace) -> Found:
    optimizer = torch.optim.AdamW(side.model.parameters(), lr=1e-4)
    side.model.train()

    def step() -> float:
        logits = side.logits(ids[:, :-1], options.latents)
        loss = cross_entropy(logits.flatten(0, 1).float(), ids[0, -logits.shape[1] :])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step()  # makes the optimizer's state
    return {"seconds": _fastest(step, options)}


def _prompt(side: Side, ids: Tensor, options: argparse.Namespace) -> Found:
    def read() -> None:
        side.read(ids[:, :-1], options.latents)

    with torch.inference_mode():
        if options.length <= CONTEXTS[1]:
            read()
        return {"seconds": _fastest(read, options)}


def _generation(side: Side, ids: Tensor, options: argparse.Namespace) -> Found:
    """Seconds a token while latents grow, and after: of a whole cycle of ours, of as many steps of another."""
    grown = _steps(options.length, options.latents)
    ours = options.worker == "ours"
    after = 0 if options.worker == "gpt2" else options.latents // 2 + 1 if ours else grown
    prompt = ids[:, : options.length - grown].expand(options.batch, -1)
    with torch.inference_mode():
        side.generate(prompt[:, -options.latents :], options.latents - 4, 4)  # what is made once is made here
        tokens, times = side.generate(prompt, options.latents - grown, 1 + grown + after)
    found = {"growing": (times[grown] - times[0]) / grown, "tokens": [row[: 1 + grown] for row in tokens]}
    if after:
        found["full"] = (times[-1] - times[grown]) / after
    return found


def _steps(length: int, num_latents: int) -> int:
    """How many tokens are generated before the context is full: fewer where each takes long."""
    return min(64 if length <= 10_000 else 16, num_latents // 2)


_MEASURES: dict[str, Callable[[Side, Tensor, argparse.Namespace], Found]] = {
    "check": _check,
    "training": _training,
    "prompt": _prompt,
    "generation": _generation,
}


def _fastest(run: Callable[[], Any], options: argparse.Namespace) -> float:
    seconds = []
    for _ in range(options.repeats):
        start = CLOCKS[options.clock]()
        run()
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(CLOCKS[options.clock]() - start)
    return min(seconds)


def _peak(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The parts


def _run(
    side: str, measure: str, length: int, folder: str, options: argparse.Namespace, **changes: int
) -> Found:
    """Measures in a process of its own."""
    values = {
        "channels": options.channels,
        "layers": options.layers,
        "heads": options.heads,
        "repeats": options.repeats,
        "latents": min(512, length),
        **changes,
    }
    command = [sys.executable, __file__, "--worker", side, "--measure", measure, "--length", str(length)]
    command += ["--folder", folder, "--threads", str(options.threads)]
    command += ["--device", options.device, "--dtype", options.dtype, "--clock", options.clock]
    command += [word for name, value in values.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _write(folder: str, length: int, options: argparse.Namespace, **changes: int) -> None:
    torch.manual_seed(0)
    values = {
        "num_latents": min(512, length),
        "channels": options.channels,
        "num_self_attends": options.layers,
        "num_heads": options.heads,
        **changes,
    }
    write_model(Size(context=length, **values), folder)


def _turns(
    sides: tuple[str, str],
    measure: str,
    length: int,
    folder: str,
    options: argparse.Namespace,
    **changes: int,
) -> list[dict[str, Found]]:
    """Lets two sides take turns."""
    turns = tqdm(range(options.turns), desc=f"{measure}, {length:,}", disable=None, leave=False)
    return [{side: _run(side, measure, length, folder, options, **changes) for side in sides} for _ in turns]


def _beside_krasserm(options: argparse.Namespace) -> Found:
    sides = ("ours", "krasserm")
    print(
        "| context | | ours | krasserm's | times faster | GB | krasserm's |\n|---:|---|---:|---:|---:|---:|---:|"
    )
    found: Found = {}
    for length in options.contexts:
        of_length = found[str(length)] = {}
        with tempfile.TemporaryDirectory() as folder:
            _write(folder, length, options)
            of_length["apart"] = _compared(length, folder, options)
            for measure, name in (("training", "training step, s"), ("prompt", "prompt, s")):
                turns = of_length[measure] = _turns(sides, measure, length, folder, options)
                print(_row(f"{length:,}", name, turns, sides, "seconds"), flush=True)
            for batch in _batches(length):
                turns = _turns(sides, "generation", length, folder, options, batch=batch)
                of_length[f"generation of {batch}"] = turns
                of_length[f"same tokens of {batch}"] = all(
                    turn["ours"]["tokens"] == turn["krasserm"]["tokens"] for turn in turns
                )
                of = f", {batch} sequences" if batch > 1 else ""
                for key, name in (("growing", "latents grow"), ("full", "window full")):
                    name = f"tokens a second, {name}{of}"
                    print(_row(f"{length:,}", name, turns, sides, key, batch=batch), flush=True)
    print()
    print(
        "| context | ours apart | krasserm's rounding | same tokens while latents grow |\n|---:|---:|---:|---|"
    )
    for length, of_length in found.items():
        same = all(of_length[f"same tokens of {batch}"] for batch in _batches(int(length)))
        apart = [f"{of_length['apart'][side]:.1e}" for side in sides]
        print(f"| {int(length):,} | {' | '.join(apart)} | {'yes' if same else 'no'} |")
    print()
    return found


def _batches(length: int) -> tuple[int, ...]:
    return (1, 8) if length <= 10_000 else (1,)


def _compared(length: int, folder: str, options: argparse.Namespace) -> Found:
    """How far logits are apart, and his own from themselves in float64; ends the program where ours are too far off."""
    ours, theirs = (_run(side, "check", length, folder, options) for side in ("ours", "krasserm"))
    logits, exact = (
        torch.load(Path(folder) / f"{side}.pt", weights_only=True) for side in ("ours", "krasserm")
    )
    apart = ((logits - exact).abs().max() / exact.std()).item()
    if apart > _TOLERANCE or ours["tokens"] != theirs["tokens"]:
        raise SystemExit(
            f"At {length:,} tokens logits are {apart:.1e} of their standard deviation apart, and the first tokens are "
            f"{ours['tokens']} and {theirs['tokens']}: these are not the same models, so nothing is timed."
        )
    return {"ours": apart, "krasserm": theirs["rounding"]}


def _beside_gpt2(options: argparse.Namespace) -> Found:
    sides = ("ours", "gpt2")
    print("| context | | ours | GPT-2 | times faster | GB | GPT-2 |\n|---:|---|---:|---:|---:|---:|---:|")
    found: Found = {}
    for length in options.contexts:
        if length > _GPT2_UP_TO:
            continue
        of_length = found[str(length)] = {}
        with tempfile.TemporaryDirectory() as folder:
            _write(folder, length, options)
            for measure, key, name, batch in (
                ("training", "seconds", "training step, 512 tokens learned, s", None),
                ("prompt", "seconds", "prompt, s", None),
                ("generation", "growing", "tokens a second", 1),
            ):
                turns = of_length[measure] = _turns(sides, measure, length, folder, options)
                print(_row(f"{length:,}", name, turns, sides, key, batch=batch), flush=True)
        if length <= CONTEXTS[0]:
            with tempfile.TemporaryDirectory() as folder:
                _write(folder, length, options, num_latents=length)
                turns = of_length["training_all"] = _turns(
                    sides, "training", length, folder, options, latents=length
                )
                print(_row(f"{length:,}", "training step, all tokens learned, s", turns, sides, "seconds"))
    print()
    return found


def _row(
    context: str,
    name: str,
    turns: list[dict[str, Found]],
    sides: tuple[str, str],
    key: str,
    *,
    batch: int | None = None,
) -> str:
    """One line of a table: seconds, or with a batch tokens per second."""
    seconds = [median(turn[side][key] for turn in turns) for side in sides]
    faster = sorted(turn[sides[1]][key] / turn[sides[0]][key] for turn in turns)
    memory = [max(turn[side]["bytes"] for turn in turns) / 1e9 for side in sides]
    shown = [f"{batch / one:.1f}" if batch else f"{one:.3f}" for one in seconds]
    cells = [context, name, *shown, f"{median(faster):.2f} ({faster[0]:.2f} to {faster[-1]:.2f})"]
    return f"| {' | '.join([*cells, *(f'{one:.2f}' for one in memory)])} |"


_NARROW = {"channels": 64, "layers": 4, "heads": 4}


def _alone(options: argparse.Namespace) -> Found:
    print(
        "| tokens | prompt, s | GB | training step, s | GB | tokens a second | GB |\n"
        "|---:|---:|---:|---:|---:|---:|---:|"
    )
    found: Found = {}
    for length in options.lengths:
        of_length = found[str(length)] = {}
        with tempfile.TemporaryDirectory() as folder:
            _write(folder, length, options, channels=64, num_self_attends=4, num_heads=4)
            for measure in ("prompt", "training", "generation"):
                of_length[measure] = _run("ours", measure, length, folder, options, **_NARROW)
        cells = [f"{length:,}"]
        for measure, one in of_length.items():
            shown = f"{1 / one['full']:.1f}" if measure == "generation" else f"{one['seconds']:.3f}"
            cells += [shown, f"{one['more_bytes'] / 1e9:.3f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()
    return found


def _draw(found: Found, path: Path) -> None:
    from matplotlib.figure import Figure

    lengths = [int(length) for length in found]
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, scale, title in (
        (axes[0], "seconds", 1.0, "seconds"),
        (axes[1], "more_bytes", 1e-9, "GB of memory at the peak"),
    ):
        for measure, name in (("training", "training step"), ("prompt", "reading a prompt")):
            points = [of_length[measure][key] * scale for of_length in found.values()]
            axis.loglog(lengths, points, "o-", ms=3, label=name)
        last = found[str(lengths[-1])]["training"][key] * scale
        ends = [1e4, lengths[-1]]
        axis.loglog(ends, [last * end / lengths[-1] for end in ends], "k:", lw=1, label="linear")
        axis.set_xlabel("tokens of the context")
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(color="#dddddd", lw=0.5)
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()

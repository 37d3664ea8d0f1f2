"""Kills training runs, and looks whether they go on as if nothing had happened.

    python benchmarks/kill.py                              # 100 kills, a full disk at each file, 20 pairs of runs
    python benchmarks/kill.py --kills 20 --pairs 5 --seed 1

Three trials, each of which ends with a count; the command ends with status 1 if one fails:

kills: a run is ended by SIGKILL, SIGTERM or SIGINT, half of them at a random moment from its start to its end, a
quarter each while it writes a checkpoint and while it writes its end, and resumed until it is complete. Its weights and
its measurements (but for times) must be, bit for bit, those of a run that nobody disturbed. What it was doing
(starting, a step, a checkpoint, the final writing) is found from what it left.

full disk: the disk is full at the first file that the end of a run writes, then at the second, and so on. The run says
so in one line with status 2, leaves no half-written file, and resumes to the same bits.

pairs: two runs are started in one folder within a second. One works, and the other is told, with status 2.

Runs are processes that are forked from one that has imported everything, so that a run takes a second or two.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from perceiver_io import files
from perceiver_io.cli import main as command
from perceiver_io.files import PARTIAL
from perceiver_io.running import runner, trainer  # imported before processes are forked

__all__ = ["main"]

SETTINGS = [
    *("train", "image-classification", "--dataset", "digits", "--variant", "tiny", "--max-steps", "24"),
    *("--evaluate-every", "6", "--batch-size", "16", "--device", "cpu", "--num-threads", "1"),
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a run does when it is killed, in turn; None is anything.
TARGETS = (None, "a checkpoint", None, "final writing")
# What differs between two runs that are the same.
TIMES = ("train_seconds", "history", "versions")


def started(folder: Path, *flags: str, before: Callable[[], None] | None = None) -> int:
    """Forks a run; its words go to a file beside its folder."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        with open(f"{folder}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        if before is not None:
            before()
        status = command([*SETTINGS, "--output-dir", str(folder), *flags])
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)


def ended(process: int) -> int:
    """Waits for a run; its exit status, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def words(folder: Path) -> str:
    """The last line that a run said."""
    lines = Path(f"{folder}.log").read_text().replace("\r", "\n").strip().splitlines()
    return lines[-1] if lines else ""


def same(folder: Path, reference: Path) -> list[str]:
    """What differs between two complete runs."""
    wrong = []
    ours, theirs = (load_file(one / "model.safetensors") for one in (folder, reference))
    if set(ours) != set(theirs) or any(not torch.equal(ours[name], theirs[name]) for name in ours):
        wrong.append("weights")
    ours, theirs = (json.loads((one / "metrics.json").read_text()) for one in (folder, reference))
    wrong += [name for name in theirs if name not in TIMES and ours.get(name) != theirs[name]]
    names = [{path.name for path in one.iterdir()} for one in (folder, reference)]
    if names[0] != names[1]:
        wrong.append(f"files {sorted(names[0] ^ names[1])}")
    wrong += [f"half written: {path.name}" for path in folder.rglob(f"{PARTIAL}*")]
    return wrong


def moment(folder: Path) -> str:
    """What a run was doing when it ended."""
    if not (folder / "recipe.yaml").exists():
        return "starting"
    if (folder / "metrics.json").exists():
        return "complete"
    if (folder / "model.safetensors").exists() or (folder / f"{PARTIAL}files").exists():
        return "final writing"
    if list((folder / "checkpoints").glob(f"{PARTIAL}*")):
        return "a checkpoint"
    return "a step"


def has_ended(process: int) -> bool:
    """Whether a run has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for(wanted: str, folder: Path, process: int) -> None:
    """Waits until a run does something, or has ended."""
    while moment(folder) != wanted and not has_ended(process):
        time.sleep(0.0005)


def kills(count: int, scratch: Path, reference: Path, seconds: float, draw: random.Random) -> list[str]:
    """Kills so many runs, and resumes them; runs that end before they are killed are not counted."""
    wrong, moments, index = [], Counter[str](), 0
    bar = tqdm(total=count, desc="kills", file=sys.stderr)
    while bar.n < count:
        folder, chosen = scratch / f"killed-{index}", SIGNALS[index % len(SIGNALS)]
        target = TARGETS[index // len(SIGNALS) % len(TARGETS)]
        index += 1
        process = started(folder)
        time.sleep(draw.uniform(0, (1 if target is None else 0.7) * seconds))
        if target is not None:
            wait_for(target, folder, process)
            time.sleep(draw.uniform(0, 0.02))
        in_time = not has_ended(process)
        os.kill(process, chosen)
        status = ended(process)
        if not in_time:
            seconds *= 0.95  # the machine has become faster
            shutil.rmtree(folder)
            continue
        bar.update()
        doing = moment(folder)
        moments[f"{chosen.name} while {doing}"] += 1
        expected = {0, -chosen, 128 + chosen}
        if status not in expected:
            wrong.append(
                f"kill {bar.n} ({chosen.name}): status {status}, expected one of {sorted(expected)}: {words(folder)}"
            )
        if doing != "complete":
            status = ended(started(folder, *(["--resume"] if doing != "starting" else [])))
            if status:
                wrong.append(f"kill {bar.n} ({chosen.name} while {doing}): not resumed: {words(folder)}")
                continue
        wrong += [f"kill {bar.n} ({chosen.name} while {doing}): {what}" for what in same(folder, reference)]
        shutil.rmtree(folder)
    for what, number in sorted(moments.items()):
        print(f"  {what}: {number}")
    return wrong


def full_disk(scratch: Path, reference: Path) -> list[str]:
    """Fills the disk at each file of the final writing in turn."""
    wrong, index = [], 0
    while True:
        folder = scratch / f"full-{index}"

        def fill(index: int = index) -> None:
            write, settle = runner._write, files.settle
            calls = iter(range(1_000))

            def full(written: Path, calls: Any = calls, settle: Any = settle) -> None:
                if next(calls) == index:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                settle(written)

            def final(*args: Any, **kwargs: Any) -> None:
                files.settle = full
                write(*args, **kwargs)

            runner._write = final

        status = ended(started(folder, before=fill))
        if status == 0:
            print(f"  the end of a run writes {index} times")
            return wrong + [f"full disk: {what}" for what in same(folder, reference)]
        if status != 2 or "No space left on device" not in words(folder):
            wrong.append(f"full disk at file {index}: status {status}: {words(folder)}")
        wrong += [
            f"full disk at file {index}: half written {path.name}" for path in folder.rglob(f"{PARTIAL}*")
        ]
        if ended(started(folder, "--resume")):
            wrong.append(f"full disk at file {index}: not resumed: {words(folder)}")
        else:
            wrong += [f"full disk at file {index}: {what}" for what in same(folder, reference)]
        index += 1


def pairs(count: int, scratch: Path, reference: Path, draw: random.Random) -> list[str]:
    """Starts two runs in one folder, so many times."""
    wrong = []
    for index in tqdm(range(count), desc="pairs", file=sys.stderr):
        folder = scratch / f"pair-{index}"
        first = started(folder)
        time.sleep(draw.uniform(0, 1))
        second = started(folder)
        statuses = sorted((ended(first), ended(second)))
        if statuses != [0, 2]:
            wrong.append(f"pair {index}: statuses {statuses}: {words(folder)}")
        else:
            wrong += [f"pair {index}: {what}" for what in same(folder, reference)]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    assert trainer  # it is what takes long to import
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        reference = scratch / "reference"
        begin = time.monotonic()
        if ended(started(reference)):
            print(words(reference))
            return 1
        seconds = time.monotonic() - begin
        print(f"a run takes {seconds:.1f} s")
        wrong = []
        for what, trial in (
            (f"{options.kills} kills", lambda: kills(options.kills, scratch, reference, seconds, draw)),
            ("a full disk at each file", lambda: full_disk(scratch, reference)),
            (f"{options.pairs} pairs", lambda: pairs(options.pairs, scratch, reference, draw)),
        ):
            found = trial()
            print(f"{what}: {len(found)} went wrong", *found, sep="\n  ", flush=True)
            wrong += found
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

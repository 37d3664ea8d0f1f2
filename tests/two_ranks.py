"""Imports what takes seconds, then goes on as two processes that know each other: two_ranks.py PROGRAM [ARGUMENT …]

The program is "-m" and a module, or "-c" and code. The last line of the output has the exit status of both.
"""

import json
import os
import runpy
import sys
import traceback

import matplotlib.figure
import torchmetrics

from perceiver_io.running import runner, trainer


def run(program: list[str]) -> int:
    """Runs a program as Python itself would, and returns its exit status."""
    kind, name, *sys.argv[1:] = program
    try:
        if kind == "-m":
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            exec(compile(name, "<code>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    assert runner and trainer and torchmetrics and matplotlib.figure  # each rank would import them
    program, processes = sys.argv[1:], []
    for rank in range(2):
        process = os.fork()
        if not process:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            status = run(program)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        processes.append(process)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(f"\n{json.dumps(statuses)}")


if __name__ == "__main__":
    main()

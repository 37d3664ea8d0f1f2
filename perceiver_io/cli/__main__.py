"""`python -m perceiver_io.cli`, for launchers such as torchrun."""

import atexit
import os
import sys

import torch

from perceiver_io.cli.main import main

status = main()
if torch.distributed.is_available() and torch.distributed.is_initialized():
    if status == 0:
        torch.distributed.destroy_process_group()
    # Without taking the interpreter apart: threads of gloo may still run, and that would abort a process that is done.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)

"""Finding and removing checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import TrainerState

from perceiver_io.config_json import read_json_object
from perceiver_io.files import PARTIAL, remove
from perceiver_io.printable import reason_of

__all__ = ["checkpoint_state", "newest_checkpoint", "remove_old_checkpoints", "whole_checkpoints"]

_FILES = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def whole_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints that have all their files, oldest first."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if step and all((path / name).is_file() for name in _FILES):
            found[int(step[1])] = path
    return [found[step] for step in sorted(found)]


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint, or None."""
    checkpoints = whole_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def checkpoint_state(checkpoint: Path) -> TrainerState:
    """Reads how far training had come.

    Raises:
        ValueError: The file is damaged.
        PermissionError: It may not be read.
    """
    file = checkpoint / "trainer_state.json"
    try:
        state = TrainerState(**read_json_object(file, is_own=True))
        if not (type(state.global_step) is int and 1 <= state.global_step <= state.max_steps):
            raise ValueError(f"{file.name} says step {state.global_step!r:.40} of {state.max_steps!r:.40}")
        return state
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"The checkpoint {checkpoint} may not be read: {error.strerror}"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise damaged(checkpoint, error) from error


def remove_old_checkpoints(folder: Path, *, keep: int, best: str | None) -> None:
    """Removes all but the newest checkpoints and the best one.

    Args:
        folder: Folder of the checkpoints.
        keep: How many of the newest to keep.
        best: A checkpoint to keep in any case.
    """
    for checkpoint in whole_checkpoints(folder)[:-keep]:
        if best is None or checkpoint != Path(best):
            # By another name first: what a kill leaves of it goes when the next run starts.
            going = checkpoint.with_name(f"{PARTIAL}{checkpoint.name}")
            remove(going)
            checkpoint.rename(going)
            remove(going)


def damaged(checkpoint: Path, error: Exception) -> ValueError:
    """Returns an error for a checkpoint that cannot be read that says what to do."""
    return ValueError(
        f"The checkpoint {checkpoint} is damaged ({reason_of(error):.200}). Remove it, and --resume goes on from the "
        "one before."
    )

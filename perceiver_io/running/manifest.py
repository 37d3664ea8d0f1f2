"""Which files of a folder a run wrote, so that nothing else is ever removed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from perceiver_io.config_json import read_json_object
from perceiver_io.files import PARTIAL, remove, writing

__all__ = ["CHECKPOINTS", "LOCK", "Manifest"]

CHECKPOINTS = "checkpoints"
"""The one folder that every run writes."""
LOCK = ".perceiver-io-run.lock"
"""The file that a running process holds; see folder_lock.py."""

_FORMAT = 1
_LONGEST_NAME = 255  # file systems take no more
# What a run writes to the folder of checkpoints: they themselves, what is left of half of one, and TensorBoard's logs.
# In a checkpoint that is what the trainer, the model, and its processor or tokenizer save. Folders end with a slash.
_IN_CHECKPOINTS = re.compile(
    r"checkpoint-\d+/([^/]+\.(json|safetensors|bin|pt|pth|jinja|model)|vocab\.txt|merges\.txt|README\.md)?"
    rf"|{re.escape(PARTIAL)}checkpoint-\d+/.*"
    r"|runs/(.*/)?(events\.out\.tfevents\.[^/]+)?"
)


class Manifest:
    """The list of what a run wrote to its folder, in a file of that folder.

    A name is noted before anything appears under it: so a process that is killed leaves nothing that is not listed.

    Args:
        folder: The run folder. It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".perceiver-io-run.json"

    @property
    def exists(self) -> bool:
        """Whether there is one: a folder without is not one that a run wrote."""
        return self.file.is_file()

    def names(self) -> list[str]:
        """Returns the names of what was written; those of folders end with a slash.

        Raises:
            ValueError: The file is damaged.
        """
        if not self.exists:
            return []
        try:
            content = read_json_object(self.file)
        except (OSError, ValueError) as error:
            raise ValueError(f"The list of a run's files, {self.file}, cannot be read: {error}.") from error
        names = content.get("files")
        if not isinstance(names, list) or not all(map(_is_plain, names)) or content.get("format") != _FORMAT:
            raise ValueError(
                f"The list of a run's files, {self.file}, is damaged, or of another version: expected format "
                f"{_FORMAT} and names of files in the folder. Remove the folder yourself."
            )
        return names

    def add(self, names: Iterable[str]) -> None:
        """Notes names that are about to be written."""
        known = self.names()
        if new := sorted(set(names) - set(known)):
            with writing(self.file) as path:
                path.write_text(json.dumps({"format": _FORMAT, "files": known + new}, indent=1) + "\n")

    def strangers(self) -> list[str]:
        """Returns what is in the folder and is not the run's, sorted."""
        if not self.folder.is_dir():
            return []
        own = self.names()
        found = []
        for path in self.folder.iterdir():
            name = path.name.removeprefix(PARTIAL)
            is_folder = path.is_dir() and not path.is_symlink()
            if path.name in (LOCK, self.file.name) or (
                name != path.name and name in (self.file.name, "files")
            ):
                continue
            if f"{name}{'/' if is_folder else ''}" not in own:
                found.append(path.name)
            elif name == CHECKPOINTS:
                found += [one.relative_to(self.folder).as_posix() for one in self._in_checkpoints()[1]]
        return sorted(found)

    def remove_leftovers(self) -> None:
        """Removes what a killed process had not completed."""
        for name in ("files", self.file.name, *self.names()):
            remove(self.folder / f"{PARTIAL}{name.rstrip('/')}")
        for path in (self.folder / CHECKPOINTS).glob(f"{PARTIAL}*"):
            if _IN_CHECKPOINTS.fullmatch(f"{path.name}/"):
                remove(path)

    def remove_files(self) -> None:
        """Removes all that the run wrote, the list last: what is half removed is still known as a run.

        What others put among its checkpoints stays.

        Raises:
            OSError: Something cannot be removed.
        """
        names = self.names()
        self.remove_leftovers()
        for name in names:
            path = self.folder / name.rstrip("/")
            if name == f"{CHECKPOINTS}/":
                self._remove_checkpoints()
            elif not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
            elif name.endswith("/"):
                shutil.rmtree(path)
        self.file.unlink(missing_ok=True)

    def _in_checkpoints(self) -> tuple[list[Path], list[Path]]:
        """Returns what is the run's among its checkpoints, folders before what lies in them; and what is not."""
        root = self.folder / CHECKPOINTS
        own: list[Path] = []
        strangers: list[Path] = []
        for parent, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = Path(parent, name)
                end = "/" if path.is_dir() and not path.is_symlink() else ""
                is_own = _IN_CHECKPOINTS.fullmatch(f"{path.relative_to(root).as_posix()}{end}")
                (own if is_own else strangers).append(path)
            folders[:] = [name for name in folders if Path(parent, name) in own]
        return own, strangers

    def _remove_checkpoints(self) -> None:
        own, _ = self._in_checkpoints()
        for path in (*reversed(own), self.folder / CHECKPOINTS):
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # others have put something there
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)


def _is_plain(name: Any) -> bool:
    """Whether a name is one of a file, and stays in its folder."""
    return (
        isinstance(name, str)
        and len(name) <= _LONGEST_NAME
        and name.rstrip("/") not in ("", ".", "..")
        and not set("/\\") & set(name[:-1])
    )

"""Files and folders: what is a path, and what appears whole under its name or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

__all__ = [
    "PARTIAL",
    "absolute_path",
    "check_not_inside",
    "check_outputs",
    "is_path",
    "make_folder",
    "remove",
    "remove_empty",
    "set_mode",
    "settle",
    "write_error",
    "writing",
    "writing_into",
]

PARTIAL = ".partial-"
"""What the names of files begin with that are not complete yet."""

# The user's; it can only be read by setting it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)

# Endings of files that hold data or models. Names on the hub may have a point too, as in "org/model-v1.5".
_SUFFIXES = set(
    ".arrow .bin .csv .gz .h5 .jpeg .jpg .json .jsonl .md .npy .npz .parquet .pickle .pkl .png .pt .pth .py "
    ".safetensors .tar .text .tsv .txt .xml .yaml .yml .zip".split()
)


def is_path(source: str | os.PathLike[str]) -> bool:
    """Says whether a name is that of a file or a folder, there or not, and so is never asked for elsewhere.

    It is where something has that name here, or the folder that it would lie in exists; where it begins with a point, a
    slash or a tilde; where it has a backslash, or another number of parts than the ids of a hub; and where it ends as
    files do.

    Args:
        source: A path, or what could be an id such as "org/name".
    """
    if not isinstance(source, str):
        return True
    path = Path(source)
    return bool(source) and (
        source[0] in "./~"
        or source[-1] == "/"
        or "\\" in source
        or source.count("/") > 1
        or path.suffix.lower() in _SUFFIXES
        or ("/" in source and os.path.isdir(path.parent))
        or os.path.exists(path)  # which says no to what no file can be called, and raises nothing
    )


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path to write to, which becomes the file or folder `path` at the end of the block.

    The temporary path has the same suffix, because writers choose the format by it.

    Raises:
        ValueError: The path is something else than a file, or the folder that it lies in does not exist.
        OSError: It cannot be written. What was there before is still there, and nothing else is left behind.
    """
    path = Path(path)
    if not path.name or (path.exists() and not path.is_file()):
        raise ValueError(f"{str(path)!r} is not a file that can be written. Choose another name.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} to. Make it first.")
    partial = path.with_name(f"{PARTIAL}{path.name}")
    remove(partial)
    try:
        yield partial
        settle(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException as error:
        remove(partial)
        if isinstance(error, (OSError, SafetensorError)):
            raise write_error(path.parent, error) from error
        raise


@contextmanager
def writing_into(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder, whose files are moved one by one into `folder` at the end of the block.

    Raises:
        OSError: They cannot be written. None of them is left behind.
    """
    folder = Path(folder)
    partial = folder / f"{PARTIAL}files"
    remove(partial)
    try:
        partial.mkdir(parents=True)
        yield partial
        settle(partial)
        for file in sorted(partial.iterdir()):
            os.replace(file, folder / file.name)
        partial.rmdir()
        _sync(folder)
    except BaseException as error:
        remove(partial)
        if isinstance(error, (OSError, SafetensorError)):
            raise write_error(folder, error) from error
        raise


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder and those that it lies in, and returns the ones that were not there, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, the innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def settle(path: Path) -> None:
    """Makes a file, or a folder with all that is in it, ready to be renamed: on the disk, and as readable as any other.

    Without it a machine that loses its power may have the new name and nothing under it. Some libraries write files
    that only their owner may read, whatever the user's umask says.

    Args:
        path: The file or folder; links are left alone.
    """
    if path.is_symlink() or not path.exists():
        return
    if path.is_dir():
        for part in path.iterdir():
            settle(part)
    else:
        set_mode(path)
    _sync(path)


def set_mode(path: Path) -> None:
    """Lets those read and write a file whom the user's umask lets: safetensors lets its owner alone."""
    path.chmod(0o666 & ~_UMASK)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no file system of disks
            raise
    finally:
        os.close(descriptor)


def check_outputs(
    folder: str | os.PathLike[str],
    names: Iterable[str],
    inputs: Iterable[str | os.PathLike[str]],
    *,
    overwrite: bool,
) -> None:
    """Refuses early what would fail, or do harm, after minutes of work.

    Args:
        folder: The folder that will be written to; it need not exist.
        names: The files that will be written there.
        inputs: Files that must not be replaced.
        overwrite: Whether other files may be.

    Raises:
        ValueError: The folder is a file, two files have one name, or one would replace an input, or another file that
            it may not replace.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"The output folder {folder} is a file. Choose another one.")
    names = list(names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"Several results would be called {twice[0]}, and replace each other in {folder}. Rename the inputs, or "
            "predict one at a time."
        )
    kept = {Path(file).resolve() for file in inputs}
    if replaced := [folder / name for name in names if (folder / name).resolve() in kept]:
        raise ValueError(
            f"{replaced[0]} is an input, and would be overwritten. Choose another output folder or name."
        )
    if not overwrite and (there := [folder / name for name in names if (folder / name).exists()]):
        raise ValueError(
            f"{there[0]} exists, and is not replaced. Choose another output folder or name, or pass --overwrite."
        )


def absolute_path(path: str) -> str:
    """Returns a path that means the same from any folder: `shapes`, `./shapes` and `shapes/` give one."""
    whole = os.path.expanduser(path)
    return os.path.realpath(whole) if ".." in Path(whole).parts else os.path.abspath(whole)


def check_not_inside(folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuses to replace a folder that holds what is read.

    Args:
        folder: The folder.
        inputs: Files and folders that are read; they need not exist.

    Raises:
        ValueError: One of them is the folder, or lies in it.
    """
    for path in inputs:
        if Path(path).resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"The output folder {folder} is not overwritten: {path} lies in it, which is read. Choose another "
                "output folder."
            )


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def write_error(path: Path, error: Exception) -> OSError:
    """Returns an error for a failed write that says what to do."""
    number = getattr(error, "errno", None) or 0
    reason = os.strerror(number) if number else " ".join(str(error).split())
    if "inline_container" in reason or "PytorchStreamWriter" in reason:
        reason = f"No space left on device, probably ({reason:.200})"  # all that torch says of it
    return OSError(
        number,
        f"Writing to {path} failed: {reason}. Nothing half-written is left; make room or choose another folder",
    )

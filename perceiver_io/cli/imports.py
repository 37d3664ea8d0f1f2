"""`--import`: Python files and modules of the user's own, which register adapters, decoders and tasks."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from perceiver_io.files import is_path

__all__ = ["import_code"]


def import_code(name: str) -> None:
    """Imports a Python file or a module, once.

    Args:
        name: Path of a file, or the name of a module. A file finds what lies beside it, as a script does.

    Raises:
        ValueError: There is no such file or module, something goes wrong in it, or another module has the file's name.
    """
    try:
        if name.endswith(".py") or "/" in name or (is_path(name) and not Path(name).is_dir()):
            _import_file(Path(name).expanduser().resolve())
        else:
            module = importlib.import_module(name)
            if getattr(module, "__file__", None) is None:
                raise ImportError(
                    "that is a folder without an __init__.py, or no Python code. Name a file in it"
                )
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--import {name}: {type(error).__name__}: {reason:.300}") from error


def _import_file(file: Path) -> None:
    module = sys.modules.get(file.stem)
    if module is not None:
        if getattr(module, "__file__", None) == str(file):
            return
        raise ImportError(f"there is another module {file.stem!r} already. Rename the file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise FileNotFoundError(f"there is no Python file {file}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look for the module by its name.
    sys.modules[file.stem] = module
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise

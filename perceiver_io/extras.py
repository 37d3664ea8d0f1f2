"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module_name: str, *, extra: str) -> ModuleType:
    """Imports an optional dependency, or says which extra of this package brings it.

    Args:
        module_name: Dotted name of the module, for example ``torchvision.transforms.v2``.
        extra: Extra of this distribution that installs it, for example ``train``.

    Raises:
        ImportError: The module is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        top_level = module_name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top_level:
            raise  # the module is there, something it needs itself is not
        raise ImportError(
            f"{top_level} is not installed, and this needs it. Install it with: "
            f'pip install "perceiver-io-toolkit[{extra}]"'
        ) from error

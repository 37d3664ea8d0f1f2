"""Entry points of installed distributions, imported one at a time, whatever happens in them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

__all__ = ["load_plugin"]


def load_plugin(entry_point: EntryPoint) -> Any:
    """Imports what an entry point announces.

    Args:
        entry_point: One of an installed distribution.

    Raises:
        ValueError: The import fails, for whatever reason. The message names the distribution, the entry point and the
            cause, so that the user knows what to uninstall or repair.
    """
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:  # foreign modules may raise anything, and some just exit
        distribution = "a distribution" if entry_point.dist is None else repr(entry_point.dist.name)
        raise ValueError(
            f"The plug-in {entry_point.name!r} cannot be imported: {distribution} announces it as "
            f"{entry_point.value!r} in the group {entry_point.group!r}, and that raises {error!r}. Repair, update or "
            "uninstall that distribution."
        ) from error

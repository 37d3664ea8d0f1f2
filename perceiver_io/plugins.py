"""Entry points of installed distributions: imported one at a time, whatever happens in them, and where they come from.

A saved file says, beside the short name of what a plug-in brought, which distribution that was: "NAME VERSION". Nothing
looks at that but the message that is shown where the name is not known.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from typing import Any

__all__ = ["PROVIDED_BY", "announces", "load_plugin", "provider_of", "where_from"]

PROVIDED_BY = "provided_by"
"""The key that stands beside a `type` or a `task` in what is saved."""

# Names and versions of distributions, and nothing that a terminal or an installer could take for more than that.
_PROVIDER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])? [0-9A-Za-z][0-9A-Za-z.!+_-]{0,49}")


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


def announces(entry_point: EntryPoint, thing: Any) -> bool:
    """Returns whether an entry point stands for something that is imported already; imports nothing."""
    found: Any = sys.modules.get(entry_point.module)
    for name in filter(None, (entry_point.attr or "").split(".")):
        found = getattr(found, name, None)
    return found is thing and found is not None


def provider_of(entry_point: EntryPoint) -> str | None:
    """Returns the name and version of the distribution that announces something; None if it does not say them."""
    if entry_point.dist is None:
        return None
    told = entry_point.dist.metadata
    provider = " ".join(told[key] for key in ("Name", "Version") if key in told)
    return provider if _PROVIDER.fullmatch(provider) else None


def where_from(provider: Any) -> str:
    """Returns the sentence of a message that says where something came from that is not known here.

    Args:
        provider: What a file says of it. Anything but a name and a version is passed over.
    """
    if not isinstance(provider, str) or not _PROVIDER.fullmatch(provider):
        return ""
    name, version = provider.split(" ")
    return (
        f" Where it was saved, version {version!r} of the distribution {name!r} provided it: install that, if you "
        "trust it."
    )

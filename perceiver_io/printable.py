"""Text of strangers as it may be printed: what could steer a terminal, or stand for a line of ours, is escaped."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["listing", "printable", "reason_of", "shortened", "shown"]


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns a text with what is not printable escaped as Python writes it: `\x1b`, `\n`, `\u202e`.

    Args:
        text: The text, such as the name of a class or of a tensor.
        lines: Whether it may have several lines, and tabs.
    """
    return "".join(
        one
        if one.isprintable() or (lines and one in "\n\t")
        else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def shortened(text: str, *, most: int = 1500) -> str:
    """Returns a text without its middle if it is long: what is wrong stands at its beginning, what to do at its end."""
    if len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: 2 * most // 3]} [… {left_out:,} characters …] {text[-most // 3 :]}"


def shown(text: str, *, most: int = 1500) -> str:
    """Returns a text of strangers as a message may quote it: cut in its middle, and printable."""
    return printable(shortened(text, most=most))


def listing(names: Iterable[str]) -> str:
    """Returns names of strangers as a message may quote them: a list as Python writes it, cut in its middle."""
    return shortened(repr(list(names)), most=300)


def reason_of(error: BaseException) -> str:
    """Returns what an error says, on one line and printable; its type if it says nothing."""
    return printable(" ".join(str(error).split()) or type(error).__name__)

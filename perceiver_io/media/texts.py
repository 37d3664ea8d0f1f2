"""Text files."""

from __future__ import annotations

from perceiver_io.media.source import Source, fault_of, open_source, unreadable

__all__ = ["read_text", "text_fault", "text_suffixes"]

_SUFFIXES = {".txt", ".text", ".md", ".rst", ".html", ".xml", ".tex", ".log", ".py"}


def read_text(source: Source) -> str:
    """Reads a text, strictly as UTF-8.

    Args:
        source: The file: a path (a `str` is one, too), bytes, or a mapping of `path` and `bytes`.

    Raises:
        UnreadableError: There is no such file, it is empty, or it is not UTF-8; the message says which byte is not.
    """
    with open_source(source) as file:
        content = file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise unreadable(
            source, f"not UTF-8 at byte {error.start} (0x{content[error.start]:02x}); convert it to UTF-8"
        ) from error


def text_suffixes() -> set[str]:
    """Returns the endings of text files that can be read, in lower case."""
    return set(_SUFFIXES)


def text_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a text file, None if it can be read.

    Args:
        source: As `read_text`; None where there is none.
    """
    return fault_of(read_text, source)

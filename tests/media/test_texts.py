"""Text files: UTF-8, strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiver_io.media.texts import read_text, text_fault, text_suffixes


def test_a_text_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = "Grüße,\r\n世界 🙂"
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert path.suffix in text_suffixes()
    for source in (path, str(path), text.encode(), {"path": str(path), "bytes": None}):
        assert read_text(source) == text
        assert text_fault(source) is None


def test_bad_texts_say_which_and_where(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 at byte 2 \(0xfc\)"):
        read_text(latin)
    (tmp_path / "empty.txt").write_bytes(b"")
    assert text_fault({"path": str(tmp_path / "empty.txt"), "bytes": None}) == "empty"
    assert (
        text_fault(tmp_path / "gone.txt")
        == text_fault(None)
        == text_fault({"path": None, "bytes": None})
        == "missing"
    )
    with pytest.raises(ValueError, match="expected the path of a file"):
        read_text(3)  # type: ignore[arg-type]

"""Texts from every source; what is tested on is in no window that is trained on."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from perceiver_io.data import Splits, byte_windows, read_texts
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import files_of
from perceiver_io.data.texts import ByteWindows, standard_library

SPLITS = ("train", "validation", "test")


def numbered(number: int) -> bytes:
    """Thirty bytes: a character that tells which document it is, again and again."""
    return (chr(0x100 + number) * 15).encode()


def place(start: int, stop: int) -> bytes:
    """Characters of two bytes, each of which tells where it is."""
    return "".join(chr(0x80 + number) for number in range(start, stop)).encode()


FEW = [place(0, 500), place(500, 1500)]
MANY = [numbered(number) for number in range(40)]
CORPORA = {
    "few": lambda: FEW,
    "many": lambda: MANY,
    "nothing": lambda: [],
    "spaces": lambda: [b"", b"a", b""],
}


def load(dataset: object, *, length: int = 8, seed: int = 0, **settings: Any) -> Splits:
    name = None if dataset is None else str(dataset)
    return read_texts(
        DataSettings(dataset=name, **settings), cut=byte_windows(length), seed=seed, embedded=CORPORA
    )


def documents(windows: ByteWindows) -> list[bytes]:
    return [document.tobytes() for document in windows.documents]


def write(folder: Path, texts: Sequence[bytes], *, suffix: str = ".txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03}{suffix}").write_bytes(text)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


# Windows


@given(
    lengths=st.lists(st.integers(0, 40), max_size=4),
    length=st.integers(1, 12),
    margin=st.integers(0, 15),
)
def test_every_byte_is_in_a_window_of_its_document(lengths: list[int], length: int, margin: int) -> None:
    # A document's bytes follow each other and those of two documents never do, so a window says where it is.
    texts = [bytes(range(60 * number, 60 * number + size)) for number, size in enumerate(lengths)]
    windows = ByteWindows(texts, length, margin=margin)
    without = ByteWindows(texts, length)
    assert len(windows) == len(without) == sum(-(-size // length) for size in lengths)
    seen = set()
    for index in range(len(windows)):
        window = windows[index].tolist()
        assert window[:length] == without[index].tolist()
        number = window[0] // 60
        end = 60 * number + lengths[number]
        assert len(window[:length]) == min(length, lengths[number])
        # The margin is as much of what follows in the document as there is.
        assert window == list(range(window[0], min(window[0] + length + margin, end)))
        seen.update(window[:length])
    assert seen == {value for text in texts for value in text}


def test_windows_are_bytes_and_end_with_their_document() -> None:
    windows = ByteWindows([b"abcdefg", b"", b"hi"], 3, margin=2)
    got = [windows[index].tobytes() for index in range(len(windows))]
    assert got == [b"abcde", b"defg", b"efg", b"hi"]
    assert windows[-1].dtype == np.uint8
    with pytest.raises(IndexError):
        windows[4]


# Where texts come from


def test_the_standard_library_needs_no_download() -> None:
    texts = standard_library()
    assert len(texts) > 100 and sum(map(len, texts)) > 10**6
    assert Path(ast.__file__).read_bytes() in texts
    for text in texts:
        text.decode()


def test_a_few_documents_are_cut_by_place() -> None:
    data = load("few", test_fraction=0.2, validation_fraction=0.25)
    parts = [documents(data.named(split)) for split in SPLITS]
    assert [[len(text) for text in part] for part in parts] == [[600, 1200], [200, 400], [200, 400]]
    assert [b"".join(pieces) for pieces in zip(*parts, strict=True)] == FEW
    assert documents(load("few", test_fraction=0.2, validation_fraction=0.25, seed=9).train) == parts[0]


def test_one_file_is_one_document(tmp_path: Path) -> None:
    file = tmp_path / "book"
    file.write_bytes(FEW[1])
    data = load(file, validation_fraction=0)
    assert data.validation is None
    assert documents(data.train)[0] + documents(data.test)[0] == FEW[1]
    assert len(documents(data.test)[0]) == 400


def test_many_documents_are_split_as_scikit_learn_splits() -> None:
    rest, test = train_test_split(range(40), test_size=0.2, random_state=0)
    train, validation = train_test_split(sorted(rest), test_size=0.1, random_state=5)
    data = load("many", seed=5)
    for split, expected in zip(SPLITS, (train, validation, test), strict=True):
        assert documents(data.named(split)) == [MANY[number] for number in sorted(expected)]


def test_the_seed_changes_the_validation_documents_only() -> None:
    data, other = load("many"), load("many", seed=1)
    assert documents(data.test) == documents(other.test)
    assert documents(data.validation) != documents(other.validation)


def test_a_folder_is_read_whole_and_in_order(tmp_path: Path) -> None:
    write(tmp_path / "b", MANY[:15])
    write(tmp_path / "a" / "deep", MANY[15:39], suffix=".MD")
    (tmp_path / "c.html").write_bytes(MANY[39])
    (tmp_path / "picture.png").write_bytes(b"no text")
    (tmp_path / ".hidden.txt").write_bytes(b"hidden")
    order = [*MANY[15:39], *MANY[:15], MANY[39]]
    rest, _ = train_test_split(range(40), test_size=0.2, random_state=0)
    assert documents(load(tmp_path, validation_fraction=0).train) == [order[one] for one in sorted(rest)]


@pytest.mark.parametrize("name", ["validation", "val", "dev"])
def test_a_folder_with_splits_of_its_own(tmp_path: Path, name: str) -> None:
    for split, texts in (("train", MANY[:3]), (name, MANY[3:5]), ("test", MANY[5:9])):
        write(tmp_path / split, texts)
    data = load(tmp_path)
    assert [documents(data.named(split)) for split in SPLITS] == [MANY[:3], MANY[3:5], MANY[5:9]]


def test_validation_texts_are_cut_off_where_there_are_test_texts_alone(tmp_path: Path) -> None:
    write(tmp_path / "train", FEW)
    write(tmp_path / "test", MANY[:2])
    data = load(tmp_path, validation_fraction=0.1)
    assert [len(text) for text in documents(data.validation)] == [100, 200]
    for whole, first, last in zip(FEW, documents(data.train), documents(data.validation), strict=True):
        assert first + last == whole
    assert documents(data.test) == MANY[:2]
    data = load(tmp_path, validation_fraction=0)
    assert data.validation is None and documents(data.train) == FEW


@pytest.mark.parametrize("number", [3, 40])
def test_validation_texts_of_its_own_cost_no_training_texts(tmp_path: Path, number: int) -> None:
    write(tmp_path / "train", MANY[:number])
    write(tmp_path / "val", FEW)
    data = load(tmp_path)
    assert documents(data.validation) == FEW
    kept = b"".join(sorted([*documents(data.train), *documents(data.test)]))
    assert sorted(kept) == sorted(b"".join(MANY[:number]))


def test_tables(tmp_path: Path) -> None:
    texts = [text.decode() for text in MANY]
    rows = {"text": range(40), "story": [*texts[:-1], None]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "one")
    data = load(tmp_path / "one", input_column="story")
    found = [text for split in SPLITS for text in documents(data.named(split))]
    assert sorted(found) == sorted(MANY[:-1])
    with pytest.raises(ValueError, match=r"train split has no column 'tale', it has \['text', 'story'\]"):
        load(tmp_path / "one", input_column="tale")
    with pytest.raises(ValueError, match=r"'text' of the train split is of the type Value\(.*expected text"):
        load(tmp_path / "one")
    parts = {
        "train": datasets.Dataset.from_dict({"text": texts[:3]}),
        "test": datasets.Dataset.from_dict({"text": texts[3:5]}),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    data = load(tmp_path / "two", validation_fraction=0)
    assert (documents(data.train), documents(data.test)) == (MANY[:3], MANY[3:5])


# Nothing leaks


@pytest.mark.parametrize("length", [4, 7, 64])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("corpus", ["few", "many"])
def test_no_byte_that_is_tested_on_is_trained_on(corpus: str, seed: int, length: int) -> None:
    data = load(corpus, length=length, seed=seed)
    # All characters tell where they are from; a window that begins or ends within one still holds others.
    windows = {
        split: [data.named(split)[index].tobytes() for index in range(len(data.named(split)))]
        for split in SPLITS
    }
    characters = {
        split: {letter for window in rows for letter in window.decode(errors="ignore")}
        for split, rows in windows.items()
    }
    assert not characters["test"] & (characters["train"] | characters["validation"])
    assert not characters["validation"] & characters["train"]
    assert all(characters.values())
    assert max(map(len, windows["train"])) <= 2 * length - 1
    assert max(map(len, windows["validation"] + windows["test"])) <= length


def test_only_training_windows_have_a_margin() -> None:
    data = load("few", length=10)
    assert [data.named(split).margin for split in SPLITS] == [9, 0, 0]
    assert len(data.train[0]) == 19 and len(data.test[0]) == 10


# Bad texts


def test_texts_that_are_not_utf8_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, MANY)
    (tmp_path / "old.txt").write_bytes("Zürich".encode("latin-1"))
    (tmp_path / "half.txt").write_bytes("Zü".encode()[:-1])
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match=r"3 of 43 texts .*skip_bad_files") as error:
        load(tmp_path)
    for name in ("old.txt (byte 1)", "half.txt (byte 1)", "gone.txt (No such file"):
        assert name in str(error.value)
    with caplog.at_level(logging.WARNING):
        data = load(tmp_path, skip_bad_files=True)
    assert sorted(text for split in SPLITS for text in documents(data.named(split))) == sorted(MANY)
    assert "3 of 43 texts" in caplog.text and "old.txt" in caplog.text


def test_a_single_file_that_is_bad_is_refused_whatever_is_set(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(b"\xff" * 1000)
    for skip in (False, True):
        with pytest.raises(ValueError, match=r"1 of 1 texts .*bad.txt \(byte 0\)"):
            load(file, skip_bad_files=skip)


def test_all_files_are_bad(tmp_path: Path) -> None:
    write(tmp_path, [b"\xff" * 1000])
    with pytest.raises(ValueError, match="no text to train on"):
        load(tmp_path, skip_bad_files=True)


def test_empty_texts_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [b"", *MANY, b""])
    data = load(tmp_path)
    assert sorted(text for split in SPLITS for text in documents(data.named(split))) == sorted(MANY)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no text to train on"),
        ({"a.txt": b""}, "no text to train on"),
        ({"a.png": b"abc"}, "no text to train on"),
        ({"a.txt": b"abc"}, "too little text: nothing is left for validation"),
        ({"a.txt": b"ab"}, "too little text: nothing is left for test, validation"),
        ({"test/a.txt": b"abc" * 100}, "no text to train on"),
        ({"train/a.txt": b"abc" * 100, "test/a.txt": b""}, "an empty set.*'test': 0"),
        (
            {"train/a.txt": b"abc" * 100, "val/a.txt": b"", "test/a.txt": b"ab"},
            "an empty set.*'validation': 0",
        ),
    ],
)
def test_too_little_text(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (None, "There is no dataset. Choose an embedded one .few, many, nothing, spaces., a text file"),
        ("", "There is no dataset"),
        ("nothing", "no text to train on"),
        ("spaces", "no text to train on"),
        ("no/such/folder", "There is no folder 'no/such/folder'"),
    ],
)
def test_no_texts(dataset: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(dataset)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("root/1.txt", "root/b/2.txt", "elsewhere/3.txt"):
        (tmp_path / name).touch()
    for name, goal in {"self": ".", "a": "b", "b/up": "..", "far": "../elsewhere"}.items():
        (tmp_path / "root" / name).symlink_to(goal)
    found = [str(tmp_path / "root" / name) for name in ("1.txt", "b/2.txt", "far/3.txt")]
    assert files_of(tmp_path / "root", {".txt"}) == found

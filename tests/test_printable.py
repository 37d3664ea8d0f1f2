"""Text of strangers on a terminal: nothing steers it, nothing looks like a line of ours."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.cli.main import main
from perceiver_io.printable import printable, shortened
from perceiver_io.running.json_text import json_text
from perceiver_io.tasks import image_classification as ic

STEERING = "\x1b]0;title\x07\x1b[2J cat\nperceiver-io: error: all is lost\r\x9b31m\u202e"


@given(st.text())
def test_what_is_printable_stays_and_the_rest_is_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text
    if "\\" not in text:
        assert shown.encode("ascii", "backslashreplace").decode("unicode_escape") == text


@given(st.lists(st.text()))
def test_lines_stay_lines(lines: list[str]) -> None:
    assert printable("\n".join(map(printable, lines)), lines=True).split("\n") == (
        [printable(line) for line in lines] or [""]
    )


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_json_is_printable_and_says_the_same(content: dict[str, object]) -> None:
    text = json_text(content)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == content


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_names_of_classes_do_not_steer_the_terminal(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    config = ic.config(size=(8, 8), num_classes=2, variant="tiny")
    config = config.with_labels(id2label={0: STEERING, 1: "dog"})
    model, image = tmp_path / "model", tmp_path / "image.png"
    ic.PerceiverIOForImageClassification(config).save_pretrained(model)
    ic.PerceiverIOImageProcessor(size={"height": 8, "width": 8}).save_pretrained(model)
    Image.new("RGB", (8, 8)).save(image)
    assert main(["predict", str(model), str(image), *flags]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    if flags:
        labels = {one["label"] for one in json.loads(printed)[0]["labels"]}
        assert labels == {STEERING, "dog"}
    else:
        assert printed.count("\n") == 1 and r"\x1b]0;title\x07\x1b[2J cat\nperceiver-io" in printed


@given(st.text(), st.integers(30, 200))
def test_long_texts_keep_their_beginning_and_end(text: str, most: int) -> None:
    short = shortened(text * 10, most=most)
    if len(text * 10) <= most:
        assert short == text * 10
    else:
        assert (text * 10).startswith(short[:20]) and (text * 10).endswith(short[-10:])
        assert len(short) < most + 40


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus" * 3_000],
        ["info", "--bogus" * 3_000],
        ["train", "x" * 3_000],
        ["train", "image-classification", "--num-epochs", "x" * 100_000],
        ["train", "image-classification", "--seed", "9" * 5_000],
        ["train", "image-classification", "--model.encoder.num-latents", "9" * 5_000],
        ["predict", "\x1b[2J" * 3_000, "x"],
        ["\x1b[2J\n" * 30],
    ],
    ids=range(8),
)
def test_errors_of_the_command_are_short(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "error: " in line and len(line) < 1_700


MESSAGES = {
    "predict": ["predict", "MODEL", "image.png"],
    "evaluate": ["evaluate", "MODEL"],
    "attention": ["attention", "MODEL", "image.png", "-o", "maps.png"],
    "train": ["train", "image-classification", "--config", "MODEL/recipe.yaml", "--output-dir", "run"],
}


@pytest.mark.parametrize("command", MESSAGES)
def test_nested_aliases_end_every_command_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kilobyte of them made an error message that took all memory."""
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]" for i in range(11)]
    (tmp_path / "recipe.yaml").write_text("\n".join([*lines, "task: *a10"]))
    started = time.process_time()
    assert main([word.replace("MODEL", str(tmp_path)) for word in MESSAGES[command]]) == 2
    assert time.process_time() - started < 5
    assert "describes more than 100,000 values" in capsys.readouterr().err

"""Text of strangers on a terminal: nothing steers it, nothing looks like a line of ours."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.cli.main import main
from perceiver_io.printable import printable
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

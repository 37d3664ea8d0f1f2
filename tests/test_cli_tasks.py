"""What the command line does with a task of somebody else, which only predicts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.cli import main
from perceiver_io.registry import TASKS, register_task
from perceiver_io.running import Task


class Shout(Task):
    """Repeats its inputs."""

    name = "shout"
    architectures = ("Parrot", "Cockatoo")
    input_metavar = "WORD"

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--times", type=int, default=1, help="how often")
        parser.add_argument("--loud", action="store_true")

    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        words = [word.upper() if options.loud else word for word in inputs]
        shared = {"source": source, "folder": options.output_dir}
        return [{"said": " ".join([word] * options.times), **shared} for word in words]

    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        return f"- {prediction['said']}"


@pytest.fixture(autouse=True)
def shout() -> Iterator[None]:
    register_task("shout")(Shout)
    yield
    del TASKS._classes["shout"]


@pytest.fixture
def parrot(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Cockatoo"]}))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a", "b"], "- a\n- b\n"),
        (["a", "b", "--times", "2"], "- a a\n- b b\n"),
        (["--times", "2", "a", "b"], "- a a\n- b b\n"),
        (["--loud", "--times=3", "a"], "- A A A\n"),
        (["a sentence, with words", "- and a dash"], "- a sentence, with words\n- - and a dash\n"),
        (["--loud", "--", "--json", "-b"], "- --JSON\n- -B\n"),
        (["--task", "shout", "a"], "- a\n"),
    ],
)
def test_flags_of_the_task(
    parrot: str, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", parrot, *arguments]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("flag", ["-o", "--output-dir"])
def test_the_output_folder_is_handed_on(parrot: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["predict", flag, "x", parrot, "a"], ["predict", parrot, "a", flag, "x"]):
        assert main([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"said": "a", "source": parrot, "folder": "x"}]
    assert main(["predict", parrot, "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["folder"] is None


def test_help_shows_the_flags_of_the_models_task(parrot: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", parrot, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--times" in text and "WORD" in text and "--output-dir" in text
    assert main(["predict", "--help"]) == 0
    assert "shout" in capsys.readouterr().out


def test_a_recipe_goes_before_the_configuration(parrot: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(parrot) / "recipe.yaml").write_text("task: image-classification\n")
    assert main(["predict", parrot, "a"]) == 2
    assert "no preprocessor_config.json" in capsys.readouterr().err
    (Path(parrot) / "recipe.yaml").write_text("seed: 0\n")
    assert main(["predict", parrot, "a"]) == 2
    assert "does not say which task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{}"], "the following arguments are required: WORD"),
        (["predict", "{}", "a", "--times", "x"], "argument --times: invalid int value: 'x'"),
        (["predict", "{}", "a", "--time", "2"], "unrecognized arguments: --time 2"),
        (["predict", "--times", "2", "{}", "a"], "MODEL"),
        (["predict", "{}/config.json", "a"], "is a file"),
        (["train", "shout", "--output-dir", "x"], "perceiver-io train does not know the task 'shout'"),
        (["attention", "{}", "a", "-o", "b"], "perceiver-io attention does not know the task 'shout'"),
    ],
)
def test_bad_arguments(
    parrot: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([one.format(parrot) for one in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("perceiver-io: error: ") and message in lines[0]


def test_evaluating_what_only_predicts(parrot: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(parrot) / "recipe.yaml").write_text("task: shout\n")
    assert main(["evaluate", parrot]) == 2
    assert "perceiver-io evaluate does not know the task 'shout'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"architectures": 3}', '{"architectures": []}', "{}"])
def test_a_configuration_that_does_not_say_its_class(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(content)
    assert main(["predict", str(tmp_path), "a"]) == 2
    assert "names no architectures" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_a_damaged_configuration(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(content)
    assert main(["predict", str(tmp_path), "a"]) == 2
    assert "config" in capsys.readouterr().err

"""What the command line does with a task of somebody else, which only predicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.cli import main
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.registry import TASKS, register_task
from perceiver_io.running import LoadedModel, PredictOptions, Task


class Cockatoo(PerceiverIOPreTrainedModel):
    """A model that there is only the name of."""


@dataclass(kw_only=True)
class ShoutOptions(PredictOptions):
    times: int = field(default=1, metadata={"help": "how often", "aliases": ["-n"]})
    loud: bool = False
    after: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}, expected 1 or more.")


class Shout(Task):
    """Repeats its inputs."""

    model_class = Cockatoo
    input_metavar = "WORD"
    options_class = ShoutOptions
    writes_files = True

    def load(self, source: str | Path, **kwargs: Any) -> LoadedModel[Any]:
        return LoadedModel(model=None, processor=self.load_processor(source), source=str(source))

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: ShoutOptions
    ) -> list[dict[str, Any]]:
        words = [word.upper() if options.loud else word for word in inputs]
        shared = {"source": loaded.source, "folder": options.output_dir}
        return [{"said": " ".join([word] * options.times + options.after), **shared} for word in words]

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
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
        (["-n", "2", "a"], "- a a\n"),
        (["a", "--after", "b", "c"], "- a b c\n"),
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
    for arguments in ([flag, "x", "a"], ["a", flag, "x"]):
        assert main(["predict", parrot, *arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"said": "a", "source": parrot, "folder": "x"}]
    assert main(["predict", parrot, "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["folder"] is None


def test_an_output_folder_where_nothing_is_written(
    parrot: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Shout, "writes_files", False)
    assert main(["predict", parrot, "a", "-o", "x"]) == 2
    assert "The task shout writes no files: leave out --output-dir." in capsys.readouterr().err


def test_help_shows_the_flags_of_the_models_task(parrot: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", parrot, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--times" in text and "WORD" in text and "--output-dir" in text
    assert main(["predict", "--help"]) == 0
    assert "shout" in capsys.readouterr().out


def test_a_recipe_goes_before_the_configuration(parrot: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(parrot) / "recipe.yaml").write_text("task: image-classification\n")
    assert main(["predict", parrot, "a"]) == 2
    assert "configuration needs" in capsys.readouterr().err  # that task does load the model
    (Path(parrot) / "recipe.yaml").write_text("seed: 0\n")
    assert main(["predict", parrot, "a"]) == 2
    assert "does not say which task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{}"], "the following arguments are required: WORD"),
        (["predict", "{}", "a", "--times", "x"], "argument --times/-n: invalid int value: 'x'"),
        (["predict", "{}", "a", "--time", "2"], "unrecognized arguments: --time 2"),
        (["predict", "{}", "a", "--times", "0"], "times is 0, expected 1 or more"),
        (["predict", "{}", "a", "--after", "b", "--after", "c"], "is given 2 times"),
        (["predict", "--times", "2", "{}", "a"], "MODEL"),
        (["predict", "-o", "x", "{}", "a"], "MODEL"),
        (["predict", "{}/config.json", "a"], "is a file"),
        (["train", "shout", "--output-dir", "x"], "perceiver-io train does not know the task 'shout'"),
        (["attention", "{}", "a", "-o", "b"], "'shout' does not say what its model sees"),
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


@pytest.mark.parametrize("content", ["dataset: digits", "task: [shout]", "task: 3"])
def test_a_recipe_that_does_not_say_its_task(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    assert main(["predict", str(tmp_path), "a"]) == 2
    assert "does not say which task it is for" in capsys.readouterr().err


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

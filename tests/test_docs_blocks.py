"""Every block of the documentation runs, page by page, in a folder that has what the pages name.

Python runs as it stands, the blocks of a page in one namespace. Commands run as they are written, but for one rule: a
training is cut to a step on a few rows, without pictures, and what is continued to a few tokens (`CUT`, `small_runs`).
Published models are small ones under the same ids, and so are those that `init` makes. What does not run is in
`NOT_RUN`, with the reason; `tests/test_docs.py` checks its flags.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docs_files
import pytest
from test_docs import DOCS, EXAMPLES, PAGES, ROOT, TEXTS, blocks, name_of
from torch.utils.data import Subset

from perceiver_io.cli.main import _parser, main
from perceiver_io.data import Splits
from perceiver_io.registry import TASKS
from perceiver_io.running import TrainableTask, runner
from perceiver_io.testing import ADAPTER_CHECKS

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not beside tests/")

CUT = {
    "train": "--max-steps 1 --evaluate-every 1 --batch-size 2 --device cpu --report-to none --overwrite",
    "train optical-flow": "--image-size 24 32",
    "predict runs/midi": "--max-new-tokens 8",
    "predict runs/tunes": "--max-new-tokens 8",
    "predict runs/code 'def '": "--max-new-tokens 8",
}
"""Flags that are added to commands, by their first words."""

SMALL = "--model.encoder.latent-channels 16"  # of new models
NUM_ROWS = 6

NOT_RUN = {
    "make demo": "installs, and trains for a minute",
    "make test": "runs the tests",
    'pip install -c constraints.txt -e ".[train]"': "installs",
    "cd docs/examples": "the example, which tests/test_example_task.py runs",
    "python -m my_task": "the example, which tests/test_example_task.py runs",
    "python docs/examples/my_adapter.py": "the example, which tests/test_docs.py runs",
    "torchrun --nproc-per-node 8": "several accelerators; tests/running/test_two_processes.py has two processes",
    "accelerate launch": "several accelerators; tests/running/test_two_processes.py has two processes",
    "perceiver-io train multimodal-autoencoding --dataset videos --pretrained deepmind/multimodal-perceiver": (
        "clips of the published size; tests/tasks/test_multimodal_training.py fine-tunes a small one"
    ),
    "pip install ./examples/plugin_lidar": "installs; a stage of CI has the plug-in, and its commands",
    "perceiver-io train lidar-classification": "the plug-in, as above",
    "perceiver-io evaluate runs/street": "the plug-in, as above",
    "perceiver-io predict runs/street sweep.npy": "the plug-in, as above",
    "perceiver-io attention runs/street sweep.npy": "the plug-in, as above",
    "perceiver-io convert optical_flow_checkpoint.pystate": "a published file; tests/published has small ones",
}
"""Commands by their first words, and why they do not run here."""

NOT_RUN_PYTHON = {
    "pio.from_deepmind(": "a published file; tests/published has small ones",
    'published_config("vision-perceiver-conv")': "a published model, as large as it is",
    "get_model_state_dict(": "several processes; tests/test_small_models_in_two_processes.py saves what is sharded",
    "push_to_hub(": "needs the internet; tests/clients/test_model_card.py has what it sends",
}
"""What is in blocks of Python that are marked as `text`, and why they do not run here."""

BEFORE = {
    "README": ["train symbolic-music --dataset made-up-tunes --output-dir runs/tunes"],
    "attention-maps": ["train image-classification --dataset digits --output-dir runs/digits"],
    "index": ["train image-classification --dataset digits --output-dir runs/digits"],
}
"""What was run before a page is read: by `make demo`, or on another page."""

OTHER_SETS = {"point-cloud-segmentation": {"scans": docs_files.labelled_scans}}
"""Data sets that a page means by a name for which others have another one."""


def lines(content: str) -> list[str]:
    """The commands of a block, each on a line."""
    found = (shlex.split(line, comments=True) for line in content.replace("\\\n", " ").splitlines())
    return [shlex.join(words) for words in found if words]


def reason(command: str) -> str | None:
    """Why a command does not run; None if it does."""
    known = {shlex.join(shlex.split(start)): why for start, why in NOT_RUN.items()}
    return next((why for start, why in known.items() if command.startswith(start)), None)


def cut(arguments: list[str]) -> list[str]:
    """The arguments of `perceiver-io` with the changes of `CUT`."""
    if "--help" in arguments or "--resume" in arguments:
        return arguments
    command = shlex.join(arguments)
    added = [flags for start, flags in CUT.items() if command.startswith(start)]
    if arguments[0] == "train" and "--pretrained" not in arguments:
        added.append(SMALL)
    return arguments + " ".join(added).split()


def run(arguments: list[str]) -> int:
    """Runs a command, cut; `init` writes the small model in place of the published one."""
    if arguments[0] != "init":
        return main(cut(arguments))
    options = _parser().parse_args(arguments)
    shutil.copytree(f"deepmind/{options.model}", options.output_dir)
    return 0


class FewRows(Subset[Any]):
    """The first rows of a set, which has besides what the set has."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows, range(min(NUM_ROWS, len(rows))))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)


def with_few_rows(data: Callable[[Any, Any], Splits]) -> Callable[[Any, Any], Splits]:
    def few(task: Any, recipe: Any) -> Splits:
        sets = data(task, recipe)
        kept = {name: getattr(sets, name) for name in ("train", "validation", "test")}
        return dataclasses.replace(
            sets, **{name: FewRows(rows) for name, rows in kept.items() if rows is not None}
        )

    return few


once = functools.cache(functools.cache)
"""What makes an embedded set, so that it makes it once for all pages."""


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set of data has a few rows, and a run leaves no pictures: other tests look at these."""
    for name in TASKS.names():
        task = TASKS.get(name)
        if issubclass(task, TrainableTask):
            monkeypatch.setattr(task, "data", with_few_rows(task.data))
            monkeypatch.setattr(task, "pictures", lambda *arguments: {})
    monkeypatch.setattr(runner, "has_losses", lambda history: False)
    embedded = [
        module.EMBEDDED
        for name, module in sys.modules.items()
        if re.fullmatch(r"perceiver_io\.tasks\.\w+\.data", name)
        and isinstance(getattr(module, "EMBEDDED", None), dict)
    ]
    for sets in embedded:
        for name, make in sets.items():
            monkeypatch.setitem(sets, name, once(make))
    # A fifth of the time, at the end of each training.
    monkeypatch.setattr("accelerate.utils.memory.gc.collect", int)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages name."""
    folder = tmp_path_factory.mktemp("files")
    docs_files.write_files(folder)
    docs_files.write_models(folder)
    return folder


@pytest.fixture(params=[*PAGES, ROOT / "README.md"], ids=name_of)
def page(
    request: pytest.FixtureRequest, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A page, in a folder in which its blocks could have been typed."""
    page: Path = request.param
    text = page.read_text(encoding="utf-8")
    others = OTHER_SETS.get(page.stem, {})
    for name, write in (docs_files.SETS | others).items():
        if f"--dataset {name}" in text:
            made = files / "sets" / (f"{page.stem}-{name}" if name in others else name)
            if not made.exists():
                made.parent.mkdir(exist_ok=True)
                write(made)
            (tmp_path / name).symlink_to(made)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "tasks").symlink_to(ROOT / "tasks")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return page


def test_blocks_run(page: Path, small_runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    for line in BEFORE.get(page.stem, []):
        assert run(line.split()) == 0
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    said = set()
    for number, (language, content) in enumerate(blocks(page), start=1):
        if language == "python":
            exec(compile(content, f"{page.name}, block {number}", "exec", dont_inherit=True), namespace)
        elif language == "bash":
            for line in lines(content):
                if reason(line) is None and line not in said:
                    command, *arguments = shlex.split(line)
                    assert command == "perceiver-io", f"{line}: run it here, or say in NOT_RUN why not."
                    assert run(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
                    said.add(line)
    if "test_contract" in namespace:  # pytest would call it
        for check in ADAPTER_CHECKS.values():
            namespace["test_contract"](check)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_code_is_passed_over(path: Path) -> None:
    """What is marked as a text is one, and blocks that only include a file include one that a test runs."""
    for language, content in blocks(path):
        if language == "text" and is_python(content):
            assert any(start in content for start in NOT_RUN_PYTHON), content
        if language == "{ .python }":
            assert re.fullmatch(
                r'--8<-- "examples/(my_adapter\.py:\w+|my_decoder\.py:\w+|my_task\.py:\w+|test_my_task\.py:\w+'
                r'|name_the_digit\.py:\w+|plugin_lidar/(perceiver_io_lidar|tests)/\w+\.py)"\n',
                content,
            ), content


def is_python(content: str) -> bool:
    """Whether something is a piece of Python that does something."""
    try:
        tree = ast.parse(content)
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.Call | ast.Import | ast.ImportFrom | ast.Assign) for node in ast.walk(tree)
    )


def test_what_does_not_run_is_there() -> None:
    found = [block for page in (*PAGES, ROOT / "README.md") for block in blocks(page)]
    passed_over = {
        reason(line) for language, content in found if language == "bash" for line in lines(content)
    }
    assert passed_over - {None} == set(NOT_RUN.values())
    for start in NOT_RUN_PYTHON:
        assert any(start in content for _, content in found), start

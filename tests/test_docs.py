"""The documentation: its commands and settings exist, its links lead somewhere; `test_docs_blocks.py` runs its code."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from perceiver_io.cli.main import _parser
from perceiver_io.cli.predict_flags import parse_prediction, predict_parser
from perceiver_io.registry import TASKS
from perceiver_io.running import TrainableTask, TrainingRecipe, parse_recipe
from perceiver_io.running.recipe import section_names
from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks import masked_language_modeling as mlm
from perceiver_io.tasks.image_classification.augmentation import Augmentation
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.tasks.modalities.cloud import CloudSettings
from perceiver_io.tasks.modalities.video import VideoSettings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
EXAMPLE = EXAMPLES / "my_adapter.py"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not beside tests/")

PAGES = sorted(DOCS.glob("*.md"))
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
TEXTS = [
    *PAGES,
    *REFERENCE,
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
]
# What a page includes from a file is written "{ .python }": it runs with the file, and the formatter leaves it alone.
LANGUAGES = {"bash", "python", "{ .python }", "text", "toml", "yaml"}
RECIPE_FIELDS = {field.name for field in dataclasses.fields(ImageClassificationRecipe)}
RECIPE_CLASSES = [
    TASKS.get(name).recipe_class for name in TASKS.names() if issubclass(TASKS.get(name), TrainableTask)
]
# Flags that the texts mention of other programs.
EXAMPLE_FIELDS = {"num_maps", "lidar.jitter"}
EXAMPLE_TASKS = ("weather-stations", "lidar-classification")
FOREIGN_FLAGS = {"--upgrade-package", "--nproc-per-node"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    fenced = re.findall(
        r"^```([^\n]*)\n(.*?)^```[ ]*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    yield from ((language.strip(), content) for language, content in fenced)


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```[ ]*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands(path: Path) -> Iterator[list[str]]:
    """The arguments of each `perceiver-io` command in a page's blocks, however it is started."""
    for language, content in blocks(path):
        if language != "bash":
            continue
        for line in content.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start in ("perceiver-io", "perceiver_io.cli"):
                if start in words:
                    yield words[words.index(start) + 1 :]


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as mkdocs makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.slow
def test_example_runs() -> None:
    # One thread: on a busy machine many threads wait for each other in models as small as this one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    percentages = [int(number) for number in re.findall(r"(\d+)%", result.stdout)]
    before, after = percentages
    assert before < 60 and after > 90, result.stdout
    assert "the contract holds" in result.stdout and "the same logits" in result.stdout


def test_example_of_a_decoder_runs() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    source = DOCS / "examples" / "my_decoder.py"
    result = subprocess.run(
        [sys.executable, str(source)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "the contract holds"


@pytest.mark.parametrize(("page", "file"), [("write-an-adapter", "my_adapter"), ("write-a-task", "my_task")])
def test_page_shows_the_whole_example(page: str, file: str) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    source = (EXAMPLES / f"{file}.py").read_text(encoding="utf-8")
    sections = re.findall(r"\[start:(\w+)\]", source)
    assert sections == re.findall(rf'--8<-- "examples/{file}\.py:(\w+)"', text)
    outside = re.sub(r"# --8<-- \[start:(\w+)\].*?# --8<-- \[end:\1\]", "", source, flags=re.DOTALL)
    rest = [line for line in outside.split('"""')[2].splitlines() if line.strip()]
    unseen = [
        line for line in rest if not re.match(r"from |import |if __name__|    raise SystemExit\(main", line)
    ]
    assert not unseen, f"This part of the example is on no page: {unseen}"


def test_page_shows_the_whole_plug_in() -> None:
    plugin = ROOT / "examples" / "plugin_lidar"
    page = (DOCS / "plug-ins.md").read_text(encoding="utf-8")
    files = [path for pattern in ("*.toml", "*.yaml", "*/*.py") for path in plugin.glob(pattern)]
    shown = re.findall(r'^--8<-- "(.*)"$', page, flags=re.MULTILINE)
    assert sorted(shown) == sorted(name_of(path) for path in files if path.name != "__init__.py")


def test_the_plug_in_has_less_than_a_hundred_lines_of_code() -> None:
    """Counted without blank lines, comments and docstrings."""
    code = 0
    for path in (ROOT / "examples" / "plugin_lidar" / "perceiver_io_lidar").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        docstrings = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
            for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
        }
        code += sum(
            number not in docstrings and bool(line.strip()) and not line.lstrip().startswith("#")
            for number, line in enumerate(source.splitlines(), start=1)
        )
    assert 50 < code < 100


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_blocks_say_their_language(path: Path) -> None:
    assert {language for language, _ in blocks(path)} <= LANGUAGES


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_commands_exist(path: Path) -> None:
    for arguments in commands(path):
        options, rest = _parser().parse_known_args(arguments)
        if options.command == "predict":
            check_prediction(rest, options)
        elif (
            options.command == "evaluate"
        ):  # the model, which need not be there, says whose settings these are
            assert any(takes(recipe_class, rest) for recipe_class in RECIPE_CLASSES), arguments
        elif options.command != "train":
            assert not rest, arguments
        elif not options.help and options.task not in EXAMPLE_TASKS:  # which are not installed
            parse_recipe(TASKS.get(options.task).recipe_class, rest)


def takes(recipe_class: type[TrainingRecipe], flags: list[str]) -> bool:
    try:
        parse_recipe(recipe_class, flags)
    except ValueError:
        return False
    return True


def check_prediction(arguments: list[str], options: argparse.Namespace) -> None:
    """Checks that the flags after MODEL and its inputs are those of one task; the model need not be there."""
    assert arguments and not arguments[0].startswith("-"), arguments
    problems = []
    for name in TASKS.names() if options.task is None else [options.task]:
        task = TASKS.get(name)()
        try:
            parse_prediction(task, predict_parser(task, usage=""), arguments[1:])
        except ValueError as error:
            problems.append(str(error))
        else:
            return
    raise AssertionError((arguments, problems))


# The changelog names flags that are gone.
@pytest.mark.parametrize("path", [path for path in TEXTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_flags_exist(path: Path) -> None:
    commands_of_ours = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    known = {
        flag
        for command in commands_of_ours.values()  # type: ignore[union-attr]
        for action in command._actions
        for flag in action.option_strings
    }
    for name in TASKS.names():
        parser = predict_parser(TASKS.get(name)(), usage="")
        known |= {flag for action in parser._actions for flag in action.option_strings}
    fields = {
        field.name for recipe in RECIPE_CLASSES for field in dataclasses.fields(recipe)
    } | EXAMPLE_FIELDS
    known |= {f"--{name}" for field in fields for name in (field, field.replace("_", "-"))}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    sections = {name for recipe in RECIPE_CLASSES for name in section_names(recipe)}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", path.read_text(encoding="utf-8")))
    plain = {
        flag
        for flag in mentioned
        if flag.removeprefix("--").partition(".")[0].replace("-", "_") not in sections
    }
    assert plain - FOREIGN_FLAGS <= known


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_recipes_in_yaml_are_valid(path: Path) -> None:
    for language, content in blocks(path):
        if language == "yaml" and content.startswith("task:"):
            values = yaml.safe_load(content)
            task = TASKS.get(values.pop("task"))
            parse_recipe(task.recipe_class, values=values)


def test_every_setting_is_documented_and_exists() -> None:
    page = (DOCS / "image-classification.md").read_text(encoding="utf-8")
    section = page[page.index("\n## Recipes") : page.index("\n## The run folder")]
    rows = re.findall(r"^\| ([^|]*) \|", section, flags=re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    presets = {"none", "digits", "mild", "natural"}
    augmentation = {field.name for field in dataclasses.fields(Augmentation)}
    assert set(names) - presets == RECIPE_FIELDS | augmentation


@pytest.mark.parametrize(
    ("page", "settings"),
    [("video-classification", VideoSettings), ("point-cloud-classification", CloudSettings)],
)
def test_every_setting_of_a_modality_is_documented_and_exists(page: str, settings: type) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    table = text[text.index("\n## Settings") :].partition("Beside these")[0]
    names = {
        name
        for row in re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert names == {field.name for field in dataclasses.fields(settings)}


def test_preset_table_has_the_right_sizes() -> None:
    page = (DOCS / "image-classification.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([\d,]{6,}) \|", page, flags=re.MULTILINE))
    special = {
        "tiny": {"size": (8, 8), "image_channels": 1, "num_classes": 10},
        "small": {"size": (64, 64), "num_classes": 10},
    }
    with torch.device("meta"):
        counts = {
            variant: ic.PerceiverIOForImageClassification(
                ic.config(variant=variant, **special.get(variant, {}))
            ).num_parameters()
            for variant in ic.VARIANTS
        }
    assert {variant: int(number.replace(",", "")) for variant, number in table.items()} == counts


def test_table_of_language_models_has_the_right_sizes() -> None:
    page = (DOCS / "masked-language-modeling.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([\d,]{6,}) \|", page, flags=re.MULTILINE))
    with torch.device("meta"):
        counts = {
            variant: mlm.PerceiverIOForMaskedLM(mlm.config(variant=variant)).num_parameters()
            for variant in mlm.VARIANTS
        }
    assert {variant: int(number.replace(",", "")) for variant, number in table.items()} == counts


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        shown_only = {"only-light", "only-dark"}  # pictures, by the page's colours
        assert not anchor or anchor in shown_only or anchor in anchors(linked), target


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    folders = ("perceiver_io", "adapters", "tasks", "tests", "docs", "benchmarks", "examples")
    for name in re.findall(rf"`((?:{'|'.join(folders)})/[\w/.-]*)`", prose(path)):
        assert (ROOT / name).exists(), name


def test_readme_names_its_commands() -> None:
    lines = [line for language, content in blocks(ROOT / "README.md") for line in content.splitlines()]
    assert "make demo" in lines and "make test" in lines
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_setting_that_a_run_leaves_open_is_explained() -> None:
    text = (DOCS / "image-classification.md").read_text(encoding="utf-8")
    paragraph = text[text.index("`null` in `recipe.yaml`") :].partition("\n\n")[0]
    for chosen in ({"dataset": "digits"}, {"dataset": "photos", "pretrained": "org/model"}):
        settings = ImageClassificationRecipe(**chosen).settings()  # type: ignore[arg-type]
        for name in (name for name, value in settings.items() if value is None):
            assert f"`{name}`" in paragraph, f"The page does not say what {name}: null means."

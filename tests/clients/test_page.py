"""The tables of docs/clients.md name what there is."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

import transformers

import perceiver_io as pio
from perceiver_io.registry import TASKS
from tests.clients.test_loading import AUTO

ROOT = Path(__file__).parents[2]


def rows(title: str) -> list[list[str]]:
    text = (ROOT / "docs" / "clients.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_task_is_listed_with_its_class() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows("By task")}
    ours = [one for one in entry_points(group="perceiver_io.tasks") if one.value.startswith("perceiver_io.")]
    assert set(table) == {one.name for one in ours}
    for name, (model_class, auto_class, processor, pipelines) in table.items():
        assert TASKS.get(name).model_class.__name__ == model_class.strip("`")
        like = {"symbolic-music": "causal-language-modeling"}.get(name, name)
        assert auto_class.strip("`") == AUTO.get(like, "")
        if auto_class:
            mapping = getattr(transformers, auto_class.strip("`"))._model_mapping
            assert mapping[pio.PerceiverIOConfig].__name__ == model_class.strip("`")
        assert hasattr(transformers, processor.strip("`"))
        for pipeline in filter(None, pipelines.replace("`", "").split(", ")):
            assert pipeline in transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()


def test_each_test_that_is_named_is_there() -> None:
    for _, _, named in rows("By client"):
        path, _, name = named.strip("`").partition("::")
        tree = ast.parse((ROOT / path).read_text())
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in found, named

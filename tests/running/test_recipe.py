from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.running import TrainingRecipe, parse_recipe, read_recipe_file, recipe_parser


@dataclass(kw_only=True)
class Recipe(TrainingRecipe):
    size: list[int] | None = field(default=None, metadata={"help": "Height and width."})
    flip: bool = field(default=True, metadata={"help": "Mirror."})
    erase: bool | None = field(default=None, metadata={"help": "Erase."})


def test_flags_take_precedence_over_values() -> None:
    values = {"learning_rate": 0.5, "num_epochs": 7, "schedule": "constant"}
    recipe = parse_recipe(Recipe, ["--learning-rate", "1e-4", "--batch_size=3"], values=values)
    assert (recipe.learning_rate, recipe.num_epochs, recipe.schedule, recipe.batch_size) == (
        1e-4,
        7,
        "constant",
        3,
    )
    assert recipe.weight_decay == Recipe().weight_decay


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--size", "8", "9"], "size", [8, 9]),
        (["--no-flip"], "flip", False),
        (["--flip", "false"], "flip", False),
        (["--erase", "yes"], "erase", True),
        (["--max-steps", "9"], "max_steps", 9),
        (["--resume"], "resume", True),
    ],
)
def test_flags(flags: list[str], name: str, value: Any) -> None:
    assert getattr(parse_recipe(Recipe, flags), name) == value


def test_a_file_may_say_all_that_flags_may(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "task: toys\nlearning_rate: 1e-3  # YAML takes this for text\nsize: [8, 9]\nflip: no\nmax_steps:\n"
    )
    recipe = parse_recipe(Recipe, values=read_recipe_file(file, task="toys"))
    assert (recipe.learning_rate, recipe.size, recipe.flip, recipe.max_steps) == (1e-3, [8, 9], False, None)


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = Recipe(output_dir="x", overwrite=True, size=[3, 4], max_steps=5, learning_rate=1e-7, erase=False)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(task="toys"))
    values = read_recipe_file(file)
    assert values.pop("task") == "toys"
    assert not {"output_dir", "overwrite", "resume"} & set(values)
    assert parse_recipe(Recipe, values=values).settings() == recipe.settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, r"no setting 'learning_rat'.*Known: .*learning_rate"),
        ({"learning_rate": "fast"}, "learning-rate.*invalid float value: 'fast'"),
        ({"learning_rate": None}, "learning_rate has no value, expected float"),
        ({"num_epochs": 1.5}, "invalid int value"),
        ({"num_epochs": [1, 2]}, r"num_epochs is \[1, 2\], expected one value"),
        ({"num_epochs": {"a": 1}}, "expected one value"),
        ({"flip": "perhaps"}, "perhaps"),
        ({"optimizer": "sgd"}, "invalid choice: 'sgd'"),
        ({"num_epochs": 0}, "num_epochs is 0, expected more than 0"),
        ({"learning_rate": -1}, "learning_rate is -1.0, expected more than 0"),
        ({"learning_rate": "nan"}, "learning_rate is nan, expected a finite number"),
        ({"warmup_fraction": 1}, "warmup_fraction is 1.0, expected a fraction"),
        ({"beta2": 1}, "beta2"),
        ({"overwrite": True, "resume": True}, "exclude each other"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(Recipe, values=values)


def test_bad_values_from_python() -> None:
    with pytest.raises(ValueError, match="optimizer is 'sgd', expected one of adamw, lamb"):
        Recipe(optimizer="sgd")  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [["--learning-rat", "1"], ["--learn", "1"], ["nonsense"], ["--num-epochs"]])
def test_bad_flags_raise_and_do_not_exit(flags: list[str]) -> None:
    with pytest.raises(ValueError):
        parse_recipe(Recipe, flags)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must have lines like"),
        ("a: [1\n", "is not YAML"),
        ("1: 2\n", "must have lines like"),
        ("task: others\n", "another task than 'toys'"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe_file(file, task="toys")
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary", "."):
        with pytest.raises(ValueError, match="cannot be read"):
            read_recipe_file(tmp_path / name)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_recipe_file(tmp_path / "empty.yaml") == {}


def test_every_setting_is_explained() -> None:
    text = recipe_parser(Recipe).format_help()
    for name, one in Recipe.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')}" in text
        assert one.metadata["help"].endswith(".")


def test_changes_leave_out_what_weights_do_not_depend_on() -> None:
    earlier = Recipe().settings()
    assert Recipe(num_workers=3, log_every=7, output_dir="y", resume=True).changes_from(earlier) == {}
    assert Recipe(seed=3).changes_from(earlier) == {"seed": (0, 3)}


def test_a_list_in_a_file_is_no_way_to_set_flags() -> None:
    with pytest.raises(ValueError, match=r"num_epochs is .* expected one value"):
        parse_recipe(TrainingRecipe, values={"num_epochs": [1, "--overwrite"]})

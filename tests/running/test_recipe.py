from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_io.running import TrainingRecipe, parse_recipe, read_recipe_file, recipe_parser, section


@dataclass(kw_only=True)
class Recipe(TrainingRecipe):
    size: list[int] | None = field(default=None, metadata={"help": "Height and width."})
    flip: bool = field(default=True, metadata={"help": "Mirror."})
    erase: bool | None = field(default=None, metadata={"help": "Erase."})
    noise: dict[str, Any] = section("Noise that is added.")


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
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"seed": 2**32}, r"seed is 4294967296, expected less than 2\*\*32"),
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
        ("a: 2020-13-45\n", "recipe.yaml is not YAML: month must be in 1..12"),
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


def nested_aliases(text: str, levels: int) -> str:
    """Ten times ten times … a text, in a few lines."""
    lines = [f"a0: &a0 [{', '.join([text] * 10)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nested_aliases("x", 11), "describes more than 100,000 values"),
        (nested_aliases("x", 11).replace("a10", "task"), "describes more than 100,000 values"),
        ("t: &t " + "x" * 100_000 + "\n" + nested_aliases("*t", 3), "describes more than 100,000 values"),
        (
            "a0: &a0 {k: 1}\n"
            + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 11)),
            "describes more than 100,000 values",
        ),
        ("a: &a [*a]\n", "nested too deeply, expected at most 32 levels"),
        ("a: " + "[" * 5_000, "nested too deeply, expected at most 32 levels"),
        ("a: " + "{a: " * 5_000, "nested too deeply, expected at most 32 levels"),
        ("- " * 5_000 + "a", "nested too deeply, expected at most 32 levels"),
        ("a: 1\n" * 50_000, "more than 200,000 characters"),
        ("a: " + "9" * 5_000, "a number of more than 400 characters"),
        ("a: " + "59:" * 20_000 + "1", "a number of more than 400 characters"),
        ("a: " + "59:" * 200 + "1.5", "a number of more than 400 characters|a value that is none"),
        ("a: !!bool maybe", "a value that is none"),
        ("a: !!timestamp then", "a value that is none"),
        ("a: !!int ''", "a value that is none"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
    ids=range(16),
)
def test_files_that_describe_more_than_there_is(tmp_path: Path, content: str, message: str) -> None:
    """Shown in a message, a kilobyte of them took all memory."""
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    started = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe_file(file, task="toys")
    assert time.process_time() - started < 5 and len(str(caught.value)) < 600


def test_a_flag_may_describe_no_more_than_a_file() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parse_recipe(Recipe, ["--model.encoder.num-latents", "[" * 5_000])


def test_aliases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("one: &one {a: [1, 2]}\ntwo: {<<: *one, b: *one}\n")
    assert read_recipe_file(file) == {"one": {"a": [1, 2]}, "two": {"a": [1, 2], "b": {"a": [1, 2]}}}


def test_a_bad_value_ends_in_one_full_stop() -> None:
    with pytest.raises(ValueError, match=r"got maybe but expected .*[^.]\.$"):
        parse_recipe(Recipe, ["--compile", "maybe"])


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
    for name, one in ((one.name, one) for one in dataclasses.fields(Recipe)):
        assert f"--{name.replace('_', '-')}" in text
        assert not one.metadata.get("section") or f"--{name}.SETTING VALUE" in text
        assert one.metadata["help"].endswith(".")


def test_changes_leave_out_what_weights_do_not_depend_on() -> None:
    earlier = Recipe().settings()
    assert Recipe(num_workers=3, log_every=7, output_dir="y", resume=True).changes_from(earlier) == {}
    assert Recipe(seed=3).changes_from(earlier) == {"seed": (0, 3)}


def test_errors_of_flags_do_not_steer_the_terminal() -> None:
    with pytest.raises(ValueError, match=re.escape(r"got \u202e but expected")):
        parse_recipe(Recipe, values={"compile": "\u202e"})


def test_a_list_in_a_file_is_no_way_to_set_flags() -> None:
    with pytest.raises(ValueError, match=r"num_epochs is .* expected one value"):
        parse_recipe(TrainingRecipe, values={"num_epochs": [1, "--overwrite"]})


NESTED = {
    "encoder": {"num_latents": 32, "dropout": 1e-3, "cross_attention_qk_channels": None},
    "inputs": {"image": {"size": [8, 9], "learn_scale": True}},
    "outputs": {"label": {"query_channels": -7}},
}


def test_sections_are_the_same_from_yaml_flags_and_python(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        """
learning_rate: 2e-3
flip: no
model:
  encoder:
    num_latents: 32
    dropout: 1e-3
    cross_attention_qk_channels: null
  inputs:
    image: {size: [8, 9], learn_scale: yes}
  outputs:
    label:
      query_channels: -7
noise:
  kind: pink
  level: [1e-2, 2.5E3, 4]
"""
    )
    flags = (
        "--learning-rate 2e-3 --no-flip --model.encoder.num-latents 32 --model.encoder.dropout=1e-3 --noise.kind pink "
        "--model.encoder.cross_attention_qk_channels null --model.inputs.image.size 8 9 --noise.level 1e-2 2.5E3 4 "
        "--model.inputs.image.learn-scale true --model.outputs.label.query-channels -7"
    ).split()
    noise = {"kind": "pink", "level": [0.01, 2500.0, 4]}
    from_yaml = parse_recipe(Recipe, values=read_recipe_file(file))
    from_flags = parse_recipe(Recipe, flags)
    from_python = Recipe(learning_rate=2e-3, flip=False, model=NESTED, noise=noise)
    assert from_yaml == from_flags == from_python
    assert type(from_flags.model["encoder"]["num_latents"]) is int
    assert type(from_flags.model["encoder"]["dropout"]) is float
    assert from_flags.model["inputs"]["image"]["learn_scale"] is True


def test_lists_in_flags_may_be_written_as_in_yaml() -> None:
    assert parse_recipe(Recipe, ["--noise.level", "[1, 2]"]).noise == {"level": [1, 2]}
    assert parse_recipe(Recipe, ["--noise.level=[1, 2e1]"]).noise == {"level": [1, 20.0]}


def test_flags_are_laid_over_the_sections_of_a_file() -> None:
    values = {"model": NESTED, "noise": {"kind": "pink"}}
    flags = ["--model.encoder.dropout", "0.5", "--model.inputs.image.size", "3", "--noise.level", "2"]
    recipe = parse_recipe(Recipe, flags, values=values)
    assert recipe.model == {
        "encoder": {"num_latents": 32, "dropout": 0.5, "cross_attention_qk_channels": None},
        "inputs": {"image": {"size": 3, "learn_scale": True}},
        "outputs": {"label": {"query_channels": -7}},
    }
    assert recipe.noise == {"kind": "pink", "level": 2}
    assert NESTED["encoder"]["dropout"] == 1e-3


def test_sections_may_be_empty() -> None:
    recipe = parse_recipe(Recipe, values={"model": None, "noise": {}})
    assert recipe == Recipe() and recipe.model == {}


def test_sections_round_trip_through_a_file(tmp_path: Path) -> None:
    recipe = Recipe(model={**NESTED, "packing": {"widths": (1, 2)}}, noise={"kind": "1st", "on": False})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(task="toys"))
    again = parse_recipe(Recipe, values=read_recipe_file(tmp_path / "recipe.yaml", task="toys"))
    assert again.settings() == recipe.settings()
    assert again.changes_from(recipe.settings()) == {} == recipe.changes_from(again.settings())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.decoder.x", "3"],
            r"unknown parts \['decoder'\], expected some of encoder, packing, shared_attention, inputs, outputs",
        ),
        (["--model.encoder", "3"], "model.encoder is 3, expected settings by name"),
        (["--model.inputs.image", "3"], "model.inputs.image is 3, expected settings by name"),
        (["--model.encoder.dropout"], r"--model\.encoder\.dropout needs a value"),
        (["--model.encoder.dropout", "--seed", "3"], r"--model\.encoder\.dropout needs a value"),
        (["--model..dropout", "3"], "needs a value"),
        (["--model.encoder.size", "[3"], r"has the value '\[3', which cannot be read"),
        (["--model.encoder.size", "2020-13-45"], r"has the value '2020-13-45', which cannot be read"),
        (["--model", "small"], r"--model has settings of its own, which are given as --model\.SETTING VALUE"),
        (["--noise=pink"], r"given as --noise\.SETTING VALUE"),
        (["--modle.encoder.dropout", "3"], "unrecognized arguments: --modle.encoder.dropout"),
    ],
)
def test_bad_flags_of_sections(flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(Recipe, flags)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": 3}, "model is 3, expected settings by name"),
        ({"model": [1, 2]}, r"model is \[1, 2\], expected settings by name"),
        ({"model": {"encoder": [1]}}, r"model.encoder is \[1\], expected settings by name"),
        ({"model": {"encoder": {3: 4}}}, "model.encoder is {3: 4}, expected settings by name"),
        ({"model": {3: 4, "encoder": {}}}, "model is {3: 4.*expected settings by name"),
        ({"model": {"outputs": "label"}}, "model.outputs is 'label', expected settings by name"),
        ({"noise": "pink"}, "noise is 'pink', expected settings by name"),
    ],
)
def test_bad_sections(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(Recipe, values=values)
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_changes_of_sections_are_named_one_by_one() -> None:
    earlier = Recipe(model={"encoder": {"num_latents": 3, "dropout": 0.1}}, noise={"kind": "pink"})
    later = Recipe(model={"encoder": {"num_latents": 4, "dropout": 0.1}}, noise={"level": 2}, log_every=3)
    assert later.changes_from(earlier.settings()) == {
        "model.encoder.num_latents": (3, 4),
        "noise.level": (None, 2),
        "noise.kind": ("pink", None),
    }


def test_a_recipe_file_may_say_more_than_the_recipe() -> None:
    assert Recipe().changes_from({"task": "toys", **Recipe().settings()}) == {}


@dataclass(kw_only=True)
class Sized(TrainingRecipe):
    sizes: list[int] | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3', expected a number"),
        ({"validation_fraction": "0.1"}, "validation_fraction is '0.1', expected a number"),
        ({"batch_size": 8.5}, "batch_size is 8.5, expected a whole number"),
        ({"batch_size": True}, "batch_size is True, expected a whole number"),
        ({"max_steps": "9"}, "max_steps is '9', expected a whole number"),
        ({"seed": None}, "seed is None, expected a whole number"),
        ({"compile": "yes"}, "compile is 'yes', expected true or false"),
        ({"sizes": "88"}, "sizes is '88', expected a list, each item a whole number"),
        ({"sizes": [8, "8"]}, "expected a list, each item a whole number"),
    ],
)
def test_values_of_another_type_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sized(**values)


def test_values_that_are_numbers_are_taken() -> None:
    recipe = Sized(
        learning_rate=np.float64(0.5), max_grad_norm=1, seed=np.int64(3), sizes=(1, 2), max_steps=None
    )  # type: ignore[arg-type]
    assert (recipe.learning_rate, recipe.max_grad_norm, recipe.seed) == (0.5, 1, 3)
    assert "\nlearning_rate: 0.5\n" in recipe.to_yaml(task="toys")


def test_a_path_may_be_a_path(tmp_path: Path) -> None:
    assert Recipe(pretrained=tmp_path).settings()["pretrained"] == str(tmp_path)  # type: ignore[arg-type]

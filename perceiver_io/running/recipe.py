"""A training recipe: every setting of a run, the same from a YAML file, from flags and from Python."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from perceiver_io.data.settings import DataSettings, SplitSettings
from perceiver_io.files import absolute_path, is_path
from perceiver_io.plugins import PROVIDED_BY
from perceiver_io.running.model_settings import ModelSettings

__all__ = ["DatasetRecipe", "TrainingRecipe", "epochs_of", "section", "section_names"]

RecipeT = TypeVar("RecipeT", bound="TrainingRecipe")

# What a call asks for, as opposed to what a run is made of: not written to recipe.yaml.
_CALL_FIELDS = ("output_dir", "overwrite", "resume")
# What may change between an interrupted run and its continuation: nothing that the weights depend on.
_FREE_FIELDS = (*_CALL_FIELDS, "eval_batch_size", "num_workers", "save_total_limit", "log_every", "report_to")

# What may be None, and then follows from the data.
_LEFT_TO_DATA = ("num_epochs", "evaluate_every", "best_metric")

# What values of these types may be, and what messages call them.
_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}

_POSITIVE = (
    "num_epochs",
    "max_steps",
    "batch_size",
    "eval_batch_size",
    "learning_rate",
    "save_total_limit",
    "gradient_accumulation_steps",
    "evaluate_every",
    "num_threads",
)
_NOT_NEGATIVE = ("seed", "weight_decay", "warmup_steps", "max_grad_norm", "num_workers", "log_every")
_FRACTIONS = ("warmup_fraction", "cosine_fraction")
_MOMENTA = ("beta1", "beta2")


def section(what: str) -> Any:
    """Returns the field of a recipe that holds settings of their own: `NAME.SETTING` in flags, nested in YAML.

    Args:
        what: What help says of it.
    """
    return field(default_factory=dict, metadata={"help": what, "section": True})


def epochs_of(usual_steps: int, most_epochs: int) -> Any:
    """Returns the field `num_epochs` of a recipe that leaves it to the data.

    Args:
        usual_steps: The recipe's own.
        most_epochs: The recipe's own.
    """
    what = (
        f"How often training passes over the data; by default as often as makes {usual_steps:,} steps, from 10 (with "
        f"an accelerator 30) to {most_epochs}."
    )
    return field(default=None, metadata={"help": what})


def section_names(recipe_class: type[TrainingRecipe]) -> list[str]:
    """Returns the names of a recipe's fields that `section` made."""
    return [one.name for one in dataclasses.fields(recipe_class) if one.metadata.get("section")]


@dataclass(kw_only=True)
class TrainingRecipe(SplitSettings):
    """What all tasks share of a training run; each task adds its own fields in a subclass.

    Raises:
        ValueError: A value is out of its range.
    """

    sources: ClassVar[tuple[str, ...]] = ("pretrained",)
    """Fields that may name a file or a folder. In a recipe that is written such a path is absolute."""
    best_measure: ClassVar[str] = "loss"
    """What chooses the checkpoint where `best_metric` is left to the data."""
    usual_steps: ClassVar[int] = 1200
    """About how many steps are made where `num_epochs` is left to the data: few samples want many passes, many few."""
    most_epochs: ClassVar[int] = 300
    """How many epochs at most are made then."""

    pretrained: str | None = field(
        default=None,
        metadata={
            "help": "Model to start from: a run, a folder in any layout, or a hub id; its head may be another."
        },
    )
    model: dict[str, Any] = section(
        "Settings of the model that differ from the preset's: encoder, packing, shared_attention, inputs.NAME and "
        "outputs.NAME, each as its own Config has them, for example --model.encoder.num-latents 32."
    )

    output_dir: str | None = field(default=None, metadata={"help": "The run folder to write."})
    overwrite: bool = field(
        default=False, metadata={"help": "Replace the run folder if there is one already."}
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Go on with the interrupted run in the run folder, from its last checkpoint."},
    )
    seed: int = field(
        default=0,
        metadata={"help": "Seed of the initial weights, the order of the data, and its augmentation."},
    )
    num_epochs: int | None = field(default=30, metadata={"help": "How often training passes over the data."})
    max_steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps to train for; takes precedence over num_epochs."}
    )
    batch_size: int = field(default=64, metadata={"help": "Samples in a batch, per process."})
    eval_batch_size: int = field(
        default=256, metadata={"help": "Samples in a batch of an evaluation, per process."}
    )
    learning_rate: float = field(
        default=1e-3, metadata={"help": "Highest learning rate, reached after the warm-up."}
    )
    weight_decay: float = field(
        default=0.05, metadata={"help": "Weight decay; biases and normalisation layers are left out."}
    )
    optimizer: Literal["adamw", "lamb"] = field(
        default="adamw", metadata={"help": "adamw, or lamb: what the Perceiver papers use on large batches."}
    )
    beta1: float = field(default=0.9, metadata={"help": "Decay of the optimizer's mean of gradients."})
    beta2: float = field(
        default=0.999, metadata={"help": "Decay of the optimizer's mean of squared gradients."}
    )
    schedule: Literal["cosine", "constant", "constant-then-cosine"] = field(
        default="cosine", metadata={"help": "The learning rate's course after the warm-up."}
    )
    warmup_fraction: float = field(
        default=0.05,
        metadata={"help": "Fraction of all steps in which the learning rate rises linearly from 0."},
    )
    warmup_steps: int | None = field(
        default=None, metadata={"help": "Steps of the warm-up; takes precedence over warmup_fraction."}
    )
    cosine_fraction: float = field(
        default=0.5, metadata={"help": "Fraction of all steps that the cosine of constant-then-cosine takes."}
    )
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Norm that gradients are clipped to; 0: not clipped."}
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches whose gradients make up one optimizer step."}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Compute activations again in the backward pass, to save memory."}
    )
    precision: Literal["float32", "bf16"] = field(
        default="float32", metadata={"help": "bf16: matrix products in bfloat16, weights in float32."}
    )
    compile: bool = field(default=False, metadata={"help": "Compile the model with torch.compile."})
    device: Literal["auto", "cpu"] = field(
        default="auto", metadata={"help": "auto: an accelerator if there is one; cpu: never."}
    )
    num_workers: int = field(
        default=0, metadata={"help": "Processes that load data; 0: the training process does."}
    )
    num_threads: int | None = field(
        default=None,
        metadata={
            "help": "Processor threads for the training's tensor operations; by default PyTorch's choice. One is as "
            "fast for small models, and leaves the other processors to the data."
        },
    )
    best_metric: str | None = field(
        default="loss",
        metadata={
            "help": "Validation measure that chooses the checkpoint to keep, by the direction in which it is better; "
            "none: keep the last one."
        },
    )
    evaluate_every: int | None = field(
        default=None,
        metadata={
            "help": "Steps between evaluations, each with a checkpoint; by default an epoch, or more where epochs are "
            "many and short."
        },
    )
    save_total_limit: int = field(default=2, metadata={"help": "Checkpoints to keep, besides the best one."})
    log_every: int = field(
        default=50,
        metadata={
            "help": "Steps between logged training losses, besides the one of each evaluation; 0: once an epoch."
        },
    )
    report_to: Literal["auto", "tensorboard", "none"] = field(
        default="auto", metadata={"help": "auto: TensorBoard if it is installed."}
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        hints = get_type_hints(type(self))
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if not _fits(value, hints[one.name]):
                raise ValueError(f"{one.name} is {value!r:.80}, expected {_name(hints[one.name])}.")
            choices = _choices(hints[one.name])
            if choices and value not in choices:
                raise ValueError(
                    f"{one.name} is {value!r:.80}, expected one of {', '.join(map(str, choices))}."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{one.name} is {value}, expected a finite number.")
        super().__post_init__()
        self._check(_POSITIVE, lambda value: value > 0, "more than 0")
        self._check(_NOT_NEGATIVE, lambda value: value >= 0, "0 or more")
        self._check(("seed",), lambda value: value < 2**32, "less than 2**32")
        self._check(_FRACTIONS, lambda value: 0 <= value < 1, "a fraction: at least 0, less than 1")
        self._check(_MOMENTA, lambda value: 0 <= value < 1, "at least 0, less than 1")
        for name in section_names(type(self)):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}, expected settings by name.")
        ModelSettings(self.model)
        if self.overwrite and self.resume:
            raise ValueError(
                "overwrite and resume exclude each other: choose whether the run is replaced or continued."
            )

    @property
    def model_settings(self) -> ModelSettings:
        """The settings of the model that differ from the preset's."""
        return ModelSettings(self.model)

    @property
    def shorter(self) -> list[str]:
        """Flags that shorten the training."""
        return ["--num-epochs" if self.max_steps is None else "--max-steps"]

    def settings(self) -> dict[str, Any]:
        """Returns what the run is made of: all fields but those that only say what a call does. Paths are absolute."""
        return self._with_absolute_paths(
            {
                name: _plain(value)
                for name, value in dataclasses.asdict(self).items()
                if name not in _CALL_FIELDS
            }
        )

    def is_path(self, name: str, value: str) -> bool:
        """Says whether a value of one of the `sources` is a path: by how it looks and by what is there.

        Args:
            name: Name of the field.
            value: Its value, this recipe's or another's.
        """
        return is_path(value)

    def local_sources(self) -> list[str]:
        """Returns the paths among the `sources`, as absolute ones."""
        settings = self.settings()
        return [value for name in self.sources if (value := settings[name]) and self.is_path(name, value)]

    def completed(self: RecipeT, stored: Mapping[str, Any]) -> RecipeT:
        """Returns the recipe with what it leaves to the data as a run has it already.

        Args:
            stored: The run's settings.
        """
        left = [name for name in _LEFT_TO_DATA if getattr(self, name) is None and name in stored]
        return dataclasses.replace(self, **{name: stored[name] for name in left})

    def to_yaml(self, *, task: str, provided_by: str | None = None) -> str:
        """Returns the settings as a recipe file of a task.

        Args:
            task: Its name.
            provided_by: Which plug-in brought it, if one did.
        """
        head = {"task": task} if provided_by is None else {"task": task, PROVIDED_BY: provided_by}
        return yaml.safe_dump({**head, **self.settings()}, sort_keys=False, allow_unicode=True)

    def changes_from(self, earlier: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Returns the settings that the weights depend on and that differ, as (earlier, now) by name.

        Those of a section are named one by one: `model.encoder.num_latents`. A setting that only one of the two has is
        None in the other.
        """
        was, now = (
            _flat({name: value for name, value in settings.items() if name not in (*_FREE_FIELDS, "task")})
            for settings in (self._with_absolute_paths(earlier), self.settings())
        )
        return {
            name: (was.get(name), now.get(name))
            for name in (*now, *(name for name in was if name not in now))
            if was.get(name) != now.get(name)
        }

    def _with_absolute_paths(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        paths = {
            name: absolute_path(value)
            for name in self.sources
            if isinstance(value := settings.get(name), str) and self.is_path(name, value)
        }
        return {**settings, **paths}

    def _check(self, names: Sequence[str], is_good: Any, expected: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not is_good(value):
                raise ValueError(f"{name} is {value}, expected {expected}.")


def _plain(value: Any) -> Any:
    """Returns what YAML makes of nested values: tuples are lists, paths are texts, numbers are Python's own."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) not in _KINDS and isinstance(value, Real):  # one of NumPy's
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@dataclass(kw_only=True)
class DatasetRecipe(TrainingRecipe, DataSettings):
    """The recipe of a task that reads a dataset which the user names."""

    sources: ClassVar[tuple[str, ...]] = ("pretrained", "dataset")
    embedded: ClassVar[tuple[str, ...]] = ()
    """Names of datasets that need no folder; a folder of that name is not meant by it."""

    def is_path(self, name: str, value: str) -> bool:
        """Says whether a value is a path; the name of an embedded dataset is none."""
        return not (name == "dataset" and value in self.embedded) and super().is_path(name, value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is a number, a truth value or a list of such where the hint says so; nothing else is checked."""
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        return any(_fits(value, part) for part in get_args(hint))
    if hint in _KINDS:
        return isinstance(value, _KINDS[hint][0]) and (hint is bool or not isinstance(value, bool))
    if get_origin(hint) is list:
        return isinstance(value, (list, tuple)) and all(_fits(item, *get_args(hint)) for item in value)
    return hint is not type(None) or value is None


def _name(hint: Any) -> str:
    """Returns what `_fits` takes, in words."""
    if get_origin(hint) is list:
        return f"a list, each item {_name(*get_args(hint))}"
    parts = [part for part in get_args(hint) or (hint,) if part is not type(None)]
    return " or ".join(_name(part) if part not in _KINDS else _KINDS[part][1] for part in parts)


def _choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        nested = [choice for part in get_args(hint) for choice in _choices(part)]
        return (*nested, None) if nested else ()
    return ()

"""A model, data and a recipe that train in milliseconds, and depend on all random numbers there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.running import LoadedModel, Setup, TrainableTask, TrainingRecipe
from perceiver_io.running.evaluator import evaluate_rows
from perceiver_io.running.measures import scalars, whether_higher_is_better
from perceiver_io.running.optimization import training_arguments
from perceiver_io.running.task import Collate
from perceiver_io.running.trainer import Trainer

NUM_SAMPLES = 40


class ToyConfig(PreTrainedConfig):
    model_type = "toy"


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.LayerNorm(16), nn.Dropout(0.2), nn.Linear(16, 3)
        )
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> ImageClassifierOutput:
        logits = self.layers(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class ToyData:
    def __init__(self, length: int = NUM_SAMPLES, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(length, 6, generator=generator)
        self.labels = torch.randint(3, (length,), generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.inputs[index], "labels": self.labels[index]}


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def collate_with_noise(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    batch = collate(rows)
    batch["pixel_values"] = batch["pixel_values"] + 0.5 * torch.randn_like(batch["pixel_values"])
    return batch


class Toys(TrainableTask):
    """Which of three classes a vector is of; what the runner does with a whole run is tested with `toy_task`."""

    name = "toys"
    model_class = ToyModel  # type: ignore[assignment]  # the trainer takes any model of transformers

    def data(self, recipe: TrainingRecipe) -> Splits:
        return Splits(train=ToyData(), validation=ToyData(16, seed=1), test=ToyData(24, seed=2))

    def config(self, recipe: TrainingRecipe, data: Splits) -> PerceiverIOConfig:
        raise NotImplementedError

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        return collate_with_noise if train else collate

    def measures(self, setup: Setup) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(3, average="micro")}

    def predict(self, loaded: LoadedModel[Any], inputs: Any, options: Any) -> list[dict[str, Any]]:
        raise NotImplementedError


def recipe(output_dir: Path, **changes: Any) -> TrainingRecipe:
    """Five steps an epoch, three epochs."""
    settings = {"num_epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "report_to": "none"}
    return TrainingRecipe(output_dir=str(output_dir), **{**settings, **changes})


def setup(of: TrainingRecipe) -> Setup:
    set_seed(of.seed)
    return Setup(recipe=of, data=Toys().data(of), model=ToyModel(ToyConfig()))


def trainer(of: TrainingRecipe, *, validation: bool = True, **arguments: Any) -> Trainer:
    task, run = Toys(), setup(of)
    args = training_arguments(of, checkpoints=f"{of.output_dir}/checkpoints", has_validation=validation)
    if args.metric_for_best_model is not None:
        args.greater_is_better = whether_higher_is_better(of.best_metric, task.measures(run))
    return Trainer(
        model=run.model,
        recipe=of,
        args=args,
        train_data=run.data.train,
        validation_data=run.data.validation if validation else None,
        collate=task.collator(run, train=True),
        weight=task.weight,
        evaluate=lambda forward: scalars(evaluate_rows(task, run, run.data.validation, forward=forward)),
        **arguments,
    )


def again(of: TrainingRecipe) -> TrainingRecipe:
    """The recipe of a call that resumes."""
    return dataclasses.replace(of, resume=True)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in of.model.state_dict().items()}

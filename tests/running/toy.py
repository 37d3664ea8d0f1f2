"""A model, data and a recipe that train in milliseconds, and depend on all random numbers there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.running import TrainingRecipe
from perceiver_io.running.optimization import training_arguments
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


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def recipe(output_dir: Path, **changes: Any) -> TrainingRecipe:
    """Five steps an epoch, three epochs."""
    settings = {"num_epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "report_to": "none"}
    return TrainingRecipe(output_dir=str(output_dir), **{**settings, **changes})


def trainer(of: TrainingRecipe, *, validation: bool = True, **arguments: Any) -> Trainer:
    set_seed(of.seed)
    return Trainer(
        model=ToyModel(ToyConfig()),
        recipe=of,
        args=training_arguments(of, checkpoints=f"{of.output_dir}/checkpoints", has_validation=validation),
        train_data=ToyData(),
        validation_data=ToyData(16, seed=1) if validation else None,
        collate_train=collate_with_noise,
        collate_eval=collate,
        compute_metrics=accuracy,
        **arguments,
    )


def again(of: TrainingRecipe) -> TrainingRecipe:
    """The recipe of a call that resumes."""
    return dataclasses.replace(of, resume=True)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in of.model.state_dict().items()}

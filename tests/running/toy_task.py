"""A task that trains in a second: which of two tokens is in a short text more often, by a real Perceiver IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits, split_rows
from perceiver_io.encoder import EncoderConfig
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.running import LoadedModel, Setup, TrainableTask, TrainingRecipe
from perceiver_io.running.measures import mean_metric
from perceiver_io.running.task import Collate
from perceiver_io.vector_decoders import ClassificationDecoder

LENGTH = 5


@dataclass(kw_only=True)
class VoteRecipe(TrainingRecipe):
    num_texts: int = 41


class Voter(PerceiverIOPreTrainedModel):
    main_input_name = "tokens"

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.post_init()

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor | None = None) -> ImageClassifierOutput:
        logits = self.perceiver({"text": tokens})["label"]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


def texts(count: int) -> list[tuple[torch.Tensor, int]]:
    tokens = torch.randint(2, (count, LENGTH), generator=torch.Generator().manual_seed(0))
    return [(one, int(one.sum() > LENGTH / 2)) for one in tokens]


def collate(rows: Any) -> dict[str, torch.Tensor]:
    return {
        "tokens": torch.stack([tokens for tokens, _ in rows]),
        "labels": torch.tensor([label for _, label in rows]),
    }


class Votes(TrainableTask):
    name = "votes"
    model_class = Voter
    recipe_class = VoteRecipe

    def data(self, recipe: VoteRecipe) -> Splits:
        return split_rows(texts(recipe.num_texts), recipe, seed=recipe.seed)

    def config(self, recipe: VoteRecipe, data: Splits) -> PerceiverIOConfig:
        return PerceiverIOConfig(
            inputs={"text": TextAdapter.Config(vocab_size=2, max_length=LENGTH, num_channels=8)},
            encoder=EncoderConfig.from_dict(
                {"num_latents": 3, "latent_channels": 8, **recipe.model_settings.encoder}
            ),
            outputs={"label": ClassificationDecoder.Config(num_classes=2)},
        )

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        return collate

    def measures(self, setup: Setup) -> dict[str, Metric]:
        return {"hits": mean_metric(higher_is_better=True)}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Mapping[str, Any]) -> None:
        measures["hits"].update((output.logits.argmax(-1) == batch["labels"]).float())

    def predict(self, loaded: LoadedModel[Any], inputs: Any, options: Any) -> list[dict[str, Any]]:
        raise NotImplementedError


def recipe(output: Path | None = None, **changes: Any) -> VoteRecipe:
    """29 texts to train on (4 steps an epoch, the last of 5), 3 or 4 to validate on, 9 to test on."""
    settings: dict[str, Any] = {
        "output_dir": None if output is None else str(output),
        "num_epochs": 2,
        "batch_size": 8,
        "eval_batch_size": 4,
        "learning_rate": 1e-2,
        "device": "cpu",
        "report_to": "none",
        "log_every": 0,
    }
    return VoteRecipe(**{**settings, **changes})

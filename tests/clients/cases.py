"""A tiny model of each class of this package, with what it is trained on and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import perceiver_io as pio
from perceiver_io.adapters.features import FeaturesAdapter
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks import (
    audio_classification,
    causal_language_modeling,
    depth_estimation,
    image_autoencoding,
    image_classification,
    image_generation,
    masked_autoencoding,
    masked_language_modeling,
    multimodal_autoencoding,
    optical_flow,
    point_cloud_classification,
    point_cloud_segmentation,
    semantic_segmentation,
    text_classification,
    video_classification,
)
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.dense.multiple_outputs import PerceiverIOForMultipleOutputs
from perceiver_io.tasks.regression import PerceiverIOForRegression

TINY: dict[str, Any] = {
    "num_latents": 4,
    "latent_channels": 16,
    "num_blocks": 1,
    "num_cross_attends": 1,
    "num_self_attends_per_block": 2,
    "num_cross_attention_heads": 1,
    "num_self_attention_heads": 2,
}
CAUSAL: dict[str, Any] = {"latent_channels": 16, "num_self_attends": 2, "num_heads": 2, "dropout": 0.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One class of models.

    Attributes:
        build: Makes a model; random numbers are of the global generator.
        batch: Arguments with which it gives a loss, by the number of samples.
        output: What it gives, the field of its output that is no loss.
    """

    build: Callable[[], pio.PerceiverIOPreTrainedModel]
    batch: Callable[[int], dict[str, Any]]
    output: str = "logits"


def mixture(output: Any, **inputs: Any) -> pio.PerceiverIOConfig:
    return pio.PerceiverIOConfig(
        inputs={
            "image": ImageAdapter.Config(size=(4, 4), features="patches", patch_size=2, num_bands=2),
            "text": TextAdapter.Config(max_length=8, num_channels=6, vocab_size=20),
        },
        encoder=pio.EncoderConfig(**TINY),
        outputs={"answer": output},
    )


def mixed(count: int) -> dict[str, Any]:
    mask = torch.ones(count, 6, dtype=torch.bool)
    mask[0, 3:] = False
    inputs = {"image": torch.randn(count, 3, 4, 4), "text": torch.randint(0, 20, (count, 6))}
    return {"inputs": inputs, "masks": {"text": mask}}


def classes(count: int) -> torch.Tensor:
    return torch.arange(count) % 3


def hidden(count: int) -> dict[str, Any]:
    # The loss does not come with labels, so the Trainer has to be told so.
    return {
        "inputs": {"image": torch.rand(count, 3, 4, 4)},
        "hidden": {"image": torch.arange(4)[None] % 2 == torch.ones(count, 1)},
    }


def tokens(count: int, vocabulary: int = 262, length: int = 12) -> dict[str, Any]:
    ids = torch.randint(6, min(vocabulary, 262), (count, length))
    return {"input_ids": ids, "labels": ids}


CASES: dict[str, Case] = {
    "image-classification": Case(
        build=lambda: image_classification.PerceiverIOForImageClassification(
            image_classification.config(variant="tiny", size=(8, 8), num_classes=3, encoder=TINY)
        ),
        batch=lambda count: {"pixel_values": torch.randn(count, 3, 8, 8), "labels": classes(count)},
    ),
    "audio-classification": Case(
        build=lambda: audio_classification.PerceiverIOForAudioClassification(
            audio_classification.config(
                variant="nano",
                num_classes=3,
                settings={"features": "raw", "sampling_rate": 1000},
                encoder=TINY,
            )
        ),
        batch=lambda count: {"input_values": torch.randn(count, 500), "labels": classes(count)},
    ),
    "video-classification": Case(
        build=lambda: video_classification.PerceiverIOForVideoClassification(
            video_classification.config(
                variant="nano", num_classes=3, settings={"size": (8, 8), "num_frames": 4}, encoder=TINY
            )
        ),
        batch=lambda count: {"pixel_values": torch.randn(count, 4, 3, 8, 8), "labels": classes(count)},
    ),
    "point-cloud-classification": Case(
        build=lambda: point_cloud_classification.PerceiverIOForPointCloudClassification(
            point_cloud_classification.config(variant="nano", num_classes=3, encoder=TINY)
        ),
        batch=lambda count: {"points": torch.randn(count, 20, 3), "labels": classes(count)},
    ),
    "text-classification": Case(
        build=lambda: text_classification.PerceiverIOForSequenceClassification(
            text_classification.config(variant="nano", num_classes=3, encoder=TINY)
        ),
        batch=lambda count: {"input_ids": tokens(count)["input_ids"], "labels": classes(count)},
    ),
    "multimodal-classification": Case(
        build=lambda: PerceiverIOForClassification(mixture(pio.ClassificationDecoder.Config(num_classes=3))),
        batch=lambda count: {**mixed(count), "labels": classes(count)},
    ),
    "regression": Case(
        build=lambda: PerceiverIOForRegression(mixture(pio.RegressionDecoder.Config(num_outputs=2))),
        batch=lambda count: {**mixed(count), "labels": torch.randn(count, 2)},
    ),
    "semantic-segmentation": Case(
        build=lambda: semantic_segmentation.PerceiverIOForSemanticSegmentation(
            semantic_segmentation.config(variant="small", size=(8, 8), num_classes=3, encoder=TINY)
        ),
        batch=lambda count: {
            "pixel_values": torch.randn(count, 3, 8, 8),
            "labels": torch.arange(64 * count).view(count, 8, 8) % 3,
        },
    ),
    "depth-estimation": Case(
        build=lambda: depth_estimation.PerceiverIOForDepthEstimation(
            depth_estimation.config(variant="small", size=(8, 8), encoder=TINY)
        ),
        batch=lambda count: {
            "pixel_values": torch.randn(count, 3, 8, 8),
            "labels": torch.rand(count, 8, 8),
        },
        output="predicted_depth",
    ),
    "point-cloud-segmentation": Case(
        build=lambda: point_cloud_segmentation.PerceiverIOForPointCloudSegmentation(
            point_cloud_segmentation.config(variant="small", num_classes=3, encoder=TINY)
        ),
        batch=lambda count: {
            "points": torch.randn(count, 20, 3),
            "labels": torch.arange(20 * count).view(count, 20) % 3,
        },
    ),
    "image-autoencoding": Case(
        build=lambda: image_autoencoding.PerceiverIOForImageAutoencoding(
            image_autoencoding.config(variant="small", size=(8, 8), encoder=TINY)
        ),
        batch=lambda count: {
            "pixel_values": torch.rand(count, 3, 8, 8),
            "labels": torch.rand(count, 3, 8, 8),
        },
        output="reconstruction",
    ),
    "masked-autoencoding": Case(
        build=lambda: masked_autoencoding.PerceiverIOForMaskedAutoencoding(
            masked_autoencoding.config(
                {"image": ImageAdapter.Config(size=(4, 4), features="patches", patch_size=2, num_bands=2)},
                pio.EncoderConfig(**TINY),
            )
        ),
        batch=hidden,
        output="reconstructions",
    ),
    "masked-language-modeling": Case(
        build=lambda: masked_language_modeling.PerceiverIOForMaskedLM(
            masked_language_modeling.config(variant="tiny", max_length=16, encoder=TINY)
        ),
        batch=lambda count: tokens(count, length=16),
    ),
    "causal-language-modeling": Case(
        build=lambda: causal_language_modeling.PerceiverARForCausalLM(
            causal_language_modeling.config(variant="tiny", max_length=24, num_latents=8, encoder=CAUSAL)
        ),
        batch=tokens,
    ),
    "image-generation": Case(
        build=lambda: image_generation.PerceiverARForImageGeneration(
            image_generation.config(size=(3, 4), num_levels=5, encoder=CAUSAL)
        ),
        batch=lambda count: {
            "input_ids": (ids := torch.randint(1, 6, (count, 12))),
            "labels": ids,
        },
    ),
    "optical-flow": Case(
        build=lambda: optical_flow.PerceiverIOForOpticalFlow(
            optical_flow.config(variant="tiny", size=(8, 8), encoder=TINY)
        ),
        batch=lambda count: {"frames": torch.randn(count, 2, 3, 8, 8), "labels": torch.randn(count, 2, 8, 8)},
        output="flow",
    ),
    "multimodal-autoencoding": Case(
        build=lambda: multimodal_autoencoding.PerceiverIOForMultimodalAutoencoding(
            multimodal_autoencoding.config(
                variant="tiny", size=(2, 8, 8), num_samples=64, num_classes=3, encoder=TINY
            )
        ),
        batch=lambda count: {
            "image": torch.rand(count, 2, 3, 8, 8),
            "audio": torch.rand(count, 64),
            "label": classes(count),
        },
        output="reconstruction",
    ),
    "multiple-outputs": Case(
        build=lambda: PerceiverIOForMultipleOutputs(
            pio.PerceiverIOConfig(
                inputs={"x": FeaturesAdapter.Config(num_features=3)},
                encoder=pio.EncoderConfig(**TINY),
                outputs={
                    "a": pio.ClassificationDecoder.Config(num_classes=3),
                    "b": pio.RegressionDecoder.Config(num_outputs=2),
                },
            )
        ),
        batch=lambda count: {
            "inputs": {"x": torch.randn(count, 5, 3)},
            "labels": {"a": classes(count), "b": torch.randn(count, 2)},
        },
        output="outputs",
    ),
}


def model(name: str, *, train: bool = False) -> pio.PerceiverIOPreTrainedModel:
    """The model of a case, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CASES[name].build().train(train)


def batch(name: str, count: int = 3) -> dict[str, Any]:
    """Arguments of a case, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CASES[name].batch(count)

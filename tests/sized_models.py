"""A small model of each task, with arguments of any size: for what is exported and compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.tasks import (
    audio_classification,
    image_classification,
    masked_language_modeling,
    multimodal_autoencoding,
    multimodal_classification,
    optical_flow,
    point_cloud_classification,
    point_cloud_segmentation,
    semantic_segmentation,
    text_classification,
)
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.regression import PerceiverIOForRegression
from perceiver_io.vector_decoders import RegressionDecoder

TINY: dict[str, Any] = {
    "num_latents": 3,
    "latent_channels": 8,
    "num_blocks": 1,
    "num_cross_attends": 1,
    "num_self_attends_per_block": 1,
    "num_cross_attention_heads": 1,
    "num_self_attention_heads": 2,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and its arguments for a batch of any size and inputs of any scale.

    Attributes:
        build: Makes the model.
        arguments: Arguments by batch size and scale.
        varying: Which axes vary, as the arguments are nested.
    """

    build: Callable[[], nn.Module]
    arguments: Callable[[int, int], dict[str, Any]]
    varying: dict[str, Any]


def mask(*shape: int) -> Tensor:
    """Everything is real but the second half of the first sample, along its first axis."""
    real = torch.ones(shape, dtype=torch.bool)
    real[0, shape[1] // 2 :] = False
    return real


def axes(*which: int) -> dict[int, Any]:
    return dict.fromkeys(which, Dim.DYNAMIC)


IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "pixels": ("fourier", {"num_bands": 2}),
    "patches": ("tiny", {"num_bands": 2}),
    "learned": ("learned", {"feature_channels": 4, "position_channels": 4, "position_projection": 4}),
    "conv": ("conv", {"num_bands": 2, "feature_channels": 4}),
}


def image_case(variant: str, image: dict[str, Any]) -> Case:
    settings = image_classification.config(
        size=(8, 8), num_classes=3, variant=variant, image=image, encoder=TINY
    )

    def arguments(batch: int, scale: int) -> dict[str, Any]:
        return {
            "pixel_values": torch.randn(batch, 3, 4 * scale, 2 + 2 * scale),
            "pixel_mask": mask(batch, 4 * scale, 2 + 2 * scale),
        }

    return Case(
        build=lambda: image_classification.PerceiverIOForImageClassification(settings),
        arguments=arguments,
        varying={"pixel_values": axes(0, 2, 3), "pixel_mask": axes(0, 1, 2)},
    )


def text_case(variant: str, **text: Any) -> Case:
    settings = masked_language_modeling.config(variant=variant, max_length=16, text=text)
    return Case(
        build=lambda: masked_language_modeling.PerceiverIOForMaskedLM(settings),
        arguments=lambda batch, scale: {
            "input_ids": torch.randint(6, 262, (batch, 4 * scale)),
            "attention_mask": mask(batch, 4 * scale),
        },
        varying={"input_ids": axes(0, 1), "attention_mask": axes(0, 1)},
    )


def integers(*shape: int) -> Tensor:
    """A mask as the processors of `transformers` make it."""
    return mask(*shape).long()


def mel_case() -> Case:
    settings = {"sampling_rate": 1000, "max_seconds": 1, "num_mel_bands": 8}
    return Case(
        build=lambda: audio_classification.PerceiverIOForAudioClassification(
            audio_classification.config(num_classes=3, variant="nano", settings=settings, encoder=TINY)
        ),
        arguments=lambda batch, scale: {
            "input_values": torch.randn(batch, 8 * scale, 8),
            "attention_mask": integers(batch, 8 * scale),
        },
        varying={"input_values": axes(0, 1), "attention_mask": axes(0, 1)},
    )


def text_classes_case() -> Case:
    return Case(
        build=lambda: text_classification.PerceiverIOForSequenceClassification(
            text_classification.config(
                num_classes=3, variant="nano", settings={"max_length": 16}, encoder=TINY
            )
        ),
        arguments=lambda batch, scale: {
            "input_ids": torch.randint(6, 262, (batch, 4 * scale)),
            "attention_mask": integers(batch, 4 * scale),
        },
        varying={"input_ids": axes(0, 1), "attention_mask": axes(0, 1)},
    )


def cloud(batch: int, scale: int, *, name: str) -> dict[str, Tensor]:
    return {name: torch.randn(batch, 5 * scale, 3), f"{name}_mask": integers(batch, 5 * scale)}


def cloud_classes_case() -> Case:
    return Case(
        build=lambda: point_cloud_classification.PerceiverIOForPointCloudClassification(
            point_cloud_classification.config(
                num_classes=3, variant="nano", settings={"num_bands": 2}, encoder=TINY
            )
        ),
        arguments=lambda batch, scale: cloud(batch, scale, name="points"),
        varying={"points": axes(0, 1), "points_mask": axes(0, 1)},
    )


def cloud_parts_case() -> Case:
    """A class for each point of another cloud than the one that is read."""
    return Case(
        build=lambda: point_cloud_segmentation.PerceiverIOForPointCloudSegmentation(
            point_cloud_segmentation.config(
                num_classes=3, variant="small", settings={"num_bands": 2}, encoder=TINY
            )
        ),
        arguments=lambda batch, scale: (
            cloud(batch, scale, name="points") | {"query_points": torch.randn(batch, 3 + 4 * scale, 3)}
        ),
        varying={"points": axes(0, 1), "points_mask": axes(0, 1), "query_points": axes(0, 1)},
    )


def segmentation_case() -> Case:
    """Classes of pixels that are asked for, which each sample has its own of."""
    settings = semantic_segmentation.config(num_classes=3, size=(8, 8), variant="small", encoder=TINY)
    return Case(
        build=lambda: semantic_segmentation.PerceiverIOForSemanticSegmentation(settings),
        arguments=lambda batch, scale: {
            "pixel_values": torch.randn(batch, 3, 8 * scale, 4 + 4 * scale),
            "pixel_mask": integers(batch, 8 * scale, 4 + 4 * scale),
            "points": 2 * torch.rand(batch, 5 * scale, 2) - 1,
        },
        varying={"pixel_values": axes(0, 2, 3), "pixel_mask": axes(0, 1, 2), "points": axes(0, 1)},
    )


def mixture_case() -> Case:
    """An image and a text of each sample, parts of which are padding."""
    settings = multimodal_classification.config(
        inputs=["image", "text"],
        settings={"image": {"size": (8, 8)}, "text": {"max_length": 16}},
        input_dropout=0.3,
        num_classes=3,
        variant="nano",
        encoder=TINY,
    )
    return Case(
        build=lambda: multimodal_classification.PerceiverIOForClassification(settings),
        arguments=lambda batch, scale: {
            "inputs": {
                "image": torch.randn(batch, 3, 4 * scale, 4 + 4 * scale),
                "text": torch.randint(6, 262, (batch, 4 * scale)),
            },
            "masks": {
                "image": mask(batch, 4 * scale, 4 + 4 * scale),
                "text": mask(batch, 4 * scale),
            },
        },
        varying={
            "inputs": {"image": axes(0, 2, 3), "text": axes(0, 1)},
            "masks": {"image": axes(0, 1, 2), "text": axes(0, 1)},
        },
    )


def flow_case() -> Case:
    settings = optical_flow.config(variant="tiny", size=(8, 8))
    return Case(
        build=lambda: optical_flow.PerceiverIOForOpticalFlow(settings),
        arguments=lambda batch, scale: {
            "frames": torch.randn(batch, 2, 3, 4 * scale, 5 * scale),
            "pixel_mask": mask(batch, 4 * scale, 5 * scale),
        },
        varying={"frames": axes(0, 3, 4), "pixel_mask": axes(0, 1, 2)},
    )


def multimodal_case() -> Case:
    settings = multimodal_autoencoding.config(
        variant="tiny", size=(2, 8, 8), num_samples=64, num_classes=3, encoder=TINY
    )
    return Case(
        build=lambda: multimodal_autoencoding.PerceiverIOForMultimodalAutoencoding(settings),
        arguments=lambda batch, scale: {
            "image": torch.rand(batch, scale, 3, 8, 8),
            "audio": torch.rand(batch, 32 * scale),
            "label": torch.arange(batch) % 3,
            "masks": {"audio": mask(batch, 32 * scale)},
            "return_loss": False,
        },
        varying={
            "image": axes(0, 1),
            "audio": axes(0, 1),
            "label": axes(0),
            "masks": {"audio": axes(0, 1)},
            "return_loss": None,
        },
    )


def sound_and_text(model: Callable[[PerceiverIOConfig], nn.Module], output: Any) -> Case:
    settings = PerceiverIOConfig(
        inputs={
            "sound": AudioAdapter.Config(num_samples=16, samples_per_patch=4, num_bands=2),
            "text": TextAdapter.Config(vocab_size=9, max_length=16, num_channels=6),
        },
        encoder=EncoderConfig(**TINY),
        outputs={"y": output},
        packing=PackingConfig(mask_probabilities=(("text", 0.5),)),
    )
    return Case(
        build=lambda: model(settings),
        arguments=lambda batch, scale: {
            "inputs": {
                "sound": torch.rand(batch, 8 * scale),
                "text": torch.randint(0, 9, (batch, 4 * scale)),
            },
            "masks": {"sound": mask(batch, 8 * scale), "text": mask(batch, 4 * scale)},
        },
        varying={
            "inputs": {"sound": axes(0, 1), "text": axes(0, 1)},
            "masks": {"sound": axes(0, 1), "text": axes(0, 1)},
        },
    )


def bare_case() -> Case:
    settings = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=(4, 6), num_bands=2)},
        encoder=EncoderConfig(**TINY),
        outputs={
            "label": ClassificationDecoder.Config(num_classes=3),
            "picture": DenseDecoder.Config(
                output_channels=2, grid=(2, 3), grid_input="image", position="learned", position_channels=5
            ),
        },
        packing=PackingConfig(mask_probabilities=(("image", 0.5),)),
    )
    return Case(
        build=lambda: PerceiverIO(settings),
        arguments=lambda batch, scale: {"inputs": {"image": torch.randn(batch, 3, 4, 2 * scale)}},
        varying={"inputs": {"image": axes(0, 3)}},
    )


CASES: dict[str, Callable[[], Case]] = {
    **{f"image-{name}": lambda part=part: image_case(*part) for name, part in IMAGES.items()},
    "text-learned": lambda: text_case("tiny", num_channels=8),
    "text-conv-fourier": lambda: text_case("small", num_channels=8, embedding_channels=4, num_bands=2),
    "text-classes": text_classes_case,
    "audio-mel": mel_case,
    "cloud-classes": cloud_classes_case,
    "cloud-parts": cloud_parts_case,
    "segmentation-points": segmentation_case,
    "mixture": mixture_case,
    "flow": flow_case,
    "multimodal": multimodal_case,
    "classification": lambda: sound_and_text(
        PerceiverIOForClassification, ClassificationDecoder.Config(num_classes=3)
    ),
    "regression": lambda: sound_and_text(
        PerceiverIOForRegression, RegressionDecoder.Config(num_outputs=2, scale=(2.0, 3.0), offset=(1.0,))
    ),
    "bare": bare_case,
}

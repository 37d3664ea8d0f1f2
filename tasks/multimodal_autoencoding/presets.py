"""Configurations of models that autoencode videos with sound and labels: the published one, and a tiny one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.video import VideoAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import class_labels, given, laid_over, variant_parts
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.tasks.multimodal_autoencoding.model import AUDIO, IMAGE, LABEL
from perceiver_io.vector_decoders import ClassificationDecoder

__all__ = ["VARIANTS", "config"]

_Fields = dict[str, Any]


def config(
    *,
    variant: str = "kinetics",
    size: tuple[int, int, int] | None = None,
    num_samples: int | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    packing: Mapping[str, Any] | None = None,
    shared_attention: Mapping[str, Any] | None = None,
    image_output: Mapping[str, Any] | None = None,
    audio_output: Mapping[str, Any] | None = None,
    label_output: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that autoencodes videos with sound and labels.

    Args:
        variant: One of `VARIANTS`.
        size: Nominal number of frames, height and width in pixels; the variant's if None. The positions of both the
            input and the output follow it.
        num_samples: Nominal number of audio samples, as long as the frames; the variant's if None.
        num_classes: Number of classes; follows from `class_names` if these are given, else the variant's.
        class_names: Names of the classes, in order.
        image: Fields of `VideoAdapter.Config` that differ from the variant's.
        audio: Fields of `AudioAdapter.Config` that differ.
        encoder: Fields of `EncoderConfig` that differ.
        packing: Fields of `PackingConfig` that differ.
        shared_attention: Fields of `SharedAttentionConfig` that differ.
        image_output: Fields of `DenseDecoder.Config` that differ, for the frames.
        audio_output: Fields of `DenseDecoder.Config` that differ, for the sound.
        label_output: Fields of `ClassificationDecoder.Config` that differ.

    Raises:
        ValueError: The variant or a field is unknown, sizes do not fit the patches, or `num_classes` and
            `class_names` disagree.
    """
    parts = variant_parts(VARIANTS, variant, of="multimodal autoencoder")
    num_classes, labels = class_labels(num_classes, class_names, default=parts["label_input"]["num_classes"])
    image_input = laid_over(VideoAdapter.Config, parts["image"], given(size=size), image)
    audio_input = laid_over(AudioAdapter.Config, parts["audio"], given(num_samples=num_samples), audio)
    # Queries have the frequencies of the byte array's positions: one query for each pixel, one for each patch of sound.
    samples_per_patch = audio_input.samples_per_patch
    frames_out: _Fields = {
        "grid": image_input.size,
        "output_channels": image_input.image_channels,
        "num_bands": image_input.num_bands,
        "max_resolution": image_input.max_resolution or image_input.grid(image_input.size),
        "channel_axis": 1,
    }
    sound_out: _Fields = {
        "grid": (audio_input.num_samples // samples_per_patch,),
        "output_channels": 1,
        "num_bands": audio_input.num_bands,
        "max_resolution": (audio_input.max_resolution or audio_input.num_samples,),
        "patch_size": (samples_per_patch,),
        "channel_axis": None,
    }
    label_out: _Fields = {"num_classes": num_classes, "use_query_residual": False}
    shared: _Fields = {"outputs": (AUDIO, IMAGE, LABEL), "min_padding": 2}
    return PerceiverIOConfig(
        inputs={
            IMAGE: image_input,
            AUDIO: audio_input,
            LABEL: LabelAdapter.Config(num_classes=num_classes),
        },
        encoder=laid_over(EncoderConfig, parts["encoder"], encoder),
        outputs={
            IMAGE: laid_over(DenseDecoder.Config, frames_out, parts["queries"], image_output),
            AUDIO: laid_over(DenseDecoder.Config, sound_out, parts["queries"], audio_output),
            LABEL: laid_over(ClassificationDecoder.Config, label_out, parts["label_output"], label_output),
        },
        packing=laid_over(PackingConfig, parts["packing"], packing),
        shared_attention=laid_over(
            SharedAttentionConfig, shared, parts["shared_attention"], shared_attention
        ),
        id2label=labels,
    )


# The label is never shown to the encoder, so that the model classifies.
_MASKED_LABEL: _Fields = {
    "min_padding": 4,
    "mask_probabilities": ((AUDIO, 0.0), (IMAGE, 0.0), (LABEL, 1.0)),
}


def _kinetics() -> dict[str, _Fields]:
    """Autoencoding of Kinetics-700 at 88x compression: PSNR 24.37 of video, 26.97 of audio (Perceiver IO, table 3).

    Every channel starts alike, GELU is the approximation of the original release, and coordinates of queries are
    those that it decoded subsets of points with.
    """
    return {
        "image": {"size": (16, 224, 224), "patch_size": (1, 4, 4), "num_bands": 32},
        "audio": {"num_samples": 30720, "samples_per_patch": 16, "num_bands": 192},
        "label_input": {"num_classes": 700},
        "encoder": {
            "num_latents": 784,
            "latent_channels": 512,
            "num_blocks": 1,
            "num_self_attends_per_block": 8,
            "num_self_attention_heads": 8,
            "cross_attention_init": "fan_in",
            "activation": "gelu_tanh",
        },
        "packing": _MASKED_LABEL,
        "shared_attention": {"output_channels": 512, "activation": "gelu_tanh"},
        "queries": {"spacing": "steps"},
        "label_output": {"query_channels": 1024},
    }


def _tiny() -> dict[str, _Fields]:
    """For tests and demonstrations: four small frames, and their sound at 8,000 samples a second."""
    return {
        "image": {"size": (4, 32, 32), "patch_size": (1, 4, 4), "num_bands": 6},
        # Positions as fine as the patches, of which there is a query each, and not as the samples.
        "audio": {"num_samples": 1280, "samples_per_patch": 16, "num_bands": 16, "max_resolution": 80},
        "label_input": {"num_classes": 10},
        "encoder": {
            "num_latents": 32,
            "latent_channels": 64,
            "num_blocks": 1,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
        },
        "packing": _MASKED_LABEL,
        "shared_attention": {"output_channels": 64},
        "queries": {"spacing": "steps"},
        "label_output": {"query_channels": 32},
    }


VARIANTS: dict[str, Callable[[], dict[str, _Fields]]] = {"tiny": _tiny, "kinetics": _kinetics}

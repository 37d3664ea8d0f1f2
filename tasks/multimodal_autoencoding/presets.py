"""Configurations of models that autoencode videos with sound and labels: as published, small, and tiny."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.video import VideoAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import DecoderConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import class_labels, given, laid_over, variant_parts
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.tasks.multimodal_autoencoding.model import AUDIO, IMAGE, LABEL, LOSS_WEIGHTS
from perceiver_io.vector_decoders import ClassificationDecoder

__all__ = ["VARIANTS", "clip_size", "config"]

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
        num_classes: Number of classes; follows from `class_names` if these are given, else the variant's. With 0 the
            model has no label.
        class_names: Names of the classes, in order; none for a model without a label.
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
    names = (AUDIO, IMAGE, LABEL) if num_classes else (AUDIO, IMAGE)
    image_input = laid_over(VideoAdapter.Config, parts["image"], given(size=size), image)
    audio_input = laid_over(AudioAdapter.Config, parts["audio"], given(num_samples=num_samples), audio)
    # Queries have the frequencies of the byte array's positions: one query for each pixel, one for each patch of sound.
    samples_per_patch = audio_input.samples_per_patch
    pixels = image_input.max_resolution or image_input.grid(image_input.size)
    frames_out: _Fields = {
        "grid": image_input.size,
        "output_channels": image_input.image_channels,
        "num_bands": image_input.num_bands,
        "max_resolution": pixels,
        "channel_axis": 1,
    }
    if parts["one_query_for"] == "patch":
        frames_out |= {"grid": image_input.grid(image_input.size), "patch_size": image_input.patch_size}
    sound_out: _Fields = {
        "grid": (audio_input.num_samples // samples_per_patch,),
        "output_channels": 1,
        "num_bands": audio_input.num_bands,
        "max_resolution": (audio_input.max_resolution or audio_input.num_samples,),
        "patch_size": (samples_per_patch,),
        "channel_axis": None,
    }
    label_out: _Fields = {"num_classes": num_classes, "use_query_residual": False}
    shared: _Fields = {"outputs": names, "min_padding": 2}
    masked = {"mask_probabilities": tuple((name, float(name == LABEL)) for name in names)}
    inputs: dict[str, ComponentConfig | None] = {IMAGE: image_input, AUDIO: audio_input, LABEL: None}
    outputs: dict[str, DecoderConfig | None] = {
        IMAGE: laid_over(DenseDecoder.Config, frames_out, parts["queries"], image_output),
        AUDIO: laid_over(DenseDecoder.Config, sound_out, parts["queries"], audio_output),
        LABEL: None,
    }
    if num_classes:
        inputs[LABEL] = LabelAdapter.Config(num_classes=num_classes)
        outputs[LABEL] = laid_over(
            ClassificationDecoder.Config, label_out, parts["label_output"], label_output
        )
    return PerceiverIOConfig(
        inputs={name: part for name, part in inputs.items() if part is not None},
        encoder=laid_over(EncoderConfig, parts["encoder"], encoder),
        outputs={name: part for name, part in outputs.items() if part is not None},
        packing=laid_over(PackingConfig, masked, parts["packing"], packing),
        shared_attention=None
        if parts["shared_attention"] is None
        else laid_over(SharedAttentionConfig, shared, parts["shared_attention"], shared_attention),
        id2label=labels or None,
    )


def clip_size(variant: str) -> tuple[tuple[int, int, int], int]:
    """Returns a variant's frames, height and width, and the samples of its sound.

    Raises:
        ValueError: There is no such variant.
    """
    parts = variant_parts(VARIANTS, variant, of="multimodal autoencoder")
    return parts["image"]["size"], parts["audio"]["num_samples"]


# The label is never shown to the encoder, so that the model classifies.
_MASKED_LABEL: _Fields = {"min_padding": 4}


def _kinetics() -> dict[str, Any]:
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
        "one_query_for": "pixel",
        "shared_attention": {"output_channels": 512, "activation": "gelu_tanh"},
        "queries": {"spacing": "steps"},
        "label_output": {"query_channels": 1024},
        "loss_weights": LOSS_WEIGHTS,
        "difference": "absolute",
    }


def _kinetics_with(latent_channels: int) -> dict[str, Any]:
    """The same with other latents: the elements of the video have 50,176 x 704 values, the latents 784 x D."""
    parts = _kinetics()
    parts["encoder"] |= {"latent_channels": latent_channels}
    return parts


def _kinetics_176() -> dict[str, Any]:
    """The same at 176x compression."""
    return _kinetics_with(256)


def _kinetics_352() -> dict[str, Any]:
    """The same at 352x compression."""
    return _kinetics_with(128)


def _small() -> dict[str, Any]:
    """For clips of a third of a second, to be trained in minutes on a processor.

    A query gives a patch, and has a learned position: places whose pictures change little are learned by heart.
    """
    return {
        "image": {"size": (8, 36, 64), "patch_size": (2, 4, 4), "num_bands": 8},
        "audio": {"num_samples": 2560, "samples_per_patch": 64, "num_bands": 20, "max_resolution": 40},
        "label_input": {"num_classes": 2},
        "encoder": {
            "num_latents": 64,
            "latent_channels": 128,
            "num_cross_attends": 2,
            "num_blocks": 2,
            "num_self_attends_per_block": 2,
            "share_blocks": "none",
            "num_cross_attention_heads": 4,
            "num_self_attention_heads": 4,
            "cross_attention_qk_channels": 64,
            "cross_attention_v_channels": 128,
            "cross_attention_query_gain": 4.0,
        },
        "packing": _MASKED_LABEL,
        "one_query_for": "patch",
        "shared_attention": None,
        "queries": {
            "position": "learned",
            "position_channels": 128,
            "num_heads": 4,
            "qk_channels": 64,
            "v_channels": 64,
            "widening_factor": 2,
            "use_query_residual": True,
        },
        "label_output": {"query_channels": 64},
        "loss_weights": {IMAGE: 1.0, AUDIO: 1.0, LABEL: 0.01},
        "difference": "squared",
    }


def _tiny() -> dict[str, Any]:
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
        "one_query_for": "pixel",
        "shared_attention": {"output_channels": 64},
        "queries": {"spacing": "steps"},
        "label_output": {"query_channels": 32},
        "loss_weights": {IMAGE: 1.0, AUDIO: 1.0, LABEL: 0.01},
        "difference": "squared",
    }


VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "tiny": _tiny,
    "small": _small,
    "kinetics": _kinetics,
    "kinetics_176": _kinetics_176,
    "kinetics_352": _kinetics_352,
}
"""Presets by name: "kinetics" and those after it are the published ones."""

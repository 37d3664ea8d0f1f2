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
    if variant not in VARIANTS:
        raise ValueError(
            f"There is no variant {variant!r} of the multimodal autoencoder. Known: {', '.join(VARIANTS)}."
        )
    if class_names is not None:
        if num_classes is not None and num_classes != len(class_names):
            raise ValueError(f"num_classes is {num_classes}, but class_names has {len(class_names)} names.")
        if len(set(class_names)) != len(class_names):
            raise ValueError(f"class_names must differ from each other, got {list(class_names)!r:.200}.")
        num_classes = len(class_names)

    parts = VARIANTS[variant]()
    nominal = parts["nominal"]
    num_classes = nominal["num_classes"] if num_classes is None else num_classes
    image_input = VideoAdapter.Config.from_dict(
        {"size": size or nominal["size"], **parts["image"], **(image or {})}
    )
    audio_input = AudioAdapter.Config.from_dict(
        {"num_samples": num_samples or nominal["num_samples"], **parts["audio"], **(audio or {})}
    )
    # Queries have the frequencies of the byte array's positions: one query for each pixel, one for each patch of sound.
    samples_per_patch = audio_input.samples_per_patch
    frames_out: _Fields = {
        "grid": image_input.size,
        "output_channels": image_input.image_channels,
        "num_bands": image_input.num_bands,
        "max_resolution": image_input.max_resolution or image_input.grid(image_input.size),
        "channel_axis": 1,
        **parts["queries"],
    }
    sound_out: _Fields = {
        "grid": (audio_input.num_samples // samples_per_patch,),
        "output_channels": 1,
        "num_bands": audio_input.num_bands,
        "max_resolution": (audio_input.max_resolution or audio_input.num_samples,),
        "patch_size": (samples_per_patch,),
        "channel_axis": None,
        **parts["queries"],
    }
    label_out: _Fields = {"num_classes": num_classes, "use_query_residual": False, **parts["label_output"]}
    return PerceiverIOConfig(
        inputs={
            IMAGE: image_input,
            AUDIO: audio_input,
            LABEL: LabelAdapter.Config(num_classes=num_classes),
        },
        encoder=EncoderConfig.from_dict({**parts["encoder"], **(encoder or {})}),
        outputs={
            IMAGE: DenseDecoder.Config.from_dict({**frames_out, **(image_output or {})}),
            AUDIO: DenseDecoder.Config.from_dict({**sound_out, **(audio_output or {})}),
            LABEL: ClassificationDecoder.Config.from_dict({**label_out, **(label_output or {})}),
        },
        packing=PackingConfig.from_dict({**parts["packing"], **(packing or {})}),
        shared_attention=SharedAttentionConfig.from_dict(
            {
                "outputs": (AUDIO, IMAGE, LABEL),
                "min_padding": 2,
                **parts["shared_attention"],
                **(shared_attention or {}),
            }
        ),
        id2label=None if class_names is None else dict(enumerate(class_names)),
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
        "nominal": {"size": (16, 224, 224), "num_samples": 30720, "num_classes": 700},
        "image": {"patch_size": (1, 4, 4), "num_bands": 32},
        "audio": {"samples_per_patch": 16, "num_bands": 192},
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
        "nominal": {"size": (4, 32, 32), "num_samples": 1280, "num_classes": 10},
        "image": {"patch_size": (1, 4, 4), "num_bands": 6},
        "audio": {"samples_per_patch": 16, "num_bands": 16},
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

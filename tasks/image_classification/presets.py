"""Configurations of image classifiers: the published models, and small ones for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import DecoderConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import class_labels, laid_over, variant_parts
from perceiver_io.tasks.image_classification.model import IMAGE, LABEL
from perceiver_io.vector_decoders import ClassificationDecoder, PooledClassificationDecoder

__all__ = ["VARIANTS", "config"]


def config(
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] = (224, 224),
    image_channels: int = 3,
    variant: str = "fourier",
    image: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of an image classifier.

    Args:
        num_classes: Number of classes; follows from `class_names` if these are given, else 1,000.
        class_names: Names of the classes, in order.
        size: Nominal height and width in pixels.
        image_channels: Channels of the images.
        variant: One of `VARIANTS`.
        image: Fields of `ImageAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of the decoder's configuration that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    of_image, of_encoder, decoder_class, of_decoder = variant_parts(VARIANTS, variant, of="image classifier")
    num_classes, labels = class_labels(num_classes, class_names, default=1000)
    if image and image.get("features", of_image["features"]) != of_image["features"]:
        # These go with the variant's own features.
        for name in ("patch_size", "feature_channels", "num_convolutions", "num_residual_convolutions"):
            of_image.pop(name, None)
    sizes = {"size": size, "image_channels": image_channels}
    output: DecoderConfig = laid_over(decoder_class.Config, of_decoder, {"num_classes": num_classes}, decoder)
    return PerceiverIOConfig(
        inputs={IMAGE: laid_over(ImageAdapter.Config, of_image, sizes, image)},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={LABEL: output},
        id2label=labels,
    )


_Fields = dict[str, Any]
_Parts = tuple[_Fields, _Fields, type[ClassificationDecoder] | type[PooledClassificationDecoder], _Fields]

# As published: every channel starts alike, and GELU is the approximation of the original release.
_PUBLISHED: _Fields = {"cross_attention_init": "fan_in", "activation": "gelu_tanh"}
_IMAGENET_IO: _Fields = {
    "num_latents": 512,
    "latent_channels": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    **_PUBLISHED,
}


def _learned() -> _Parts:
    """Perceiver IO on ImageNet with learned positions: 72.7 % top-1 (Perceiver IO, table 6)."""
    adapter = {
        "features": "conv1x1",
        "feature_channels": 256,
        "position": "learned",
        "position_channels": 256,
        "position_projection": 256,
    }
    return (
        adapter,
        {**_IMAGENET_IO},
        ClassificationDecoder,
        {"use_query_residual": False, "activation": "gelu_tanh"},
    )


def _fourier() -> _Parts:
    """Perceiver IO on ImageNet with Fourier positions beside raw pixels: 79.0 % top-1 (Perceiver IO, table 6)."""
    adapter = {"features": "pixels", "position": "fourier", "num_bands": 64}
    return adapter, {**_IMAGENET_IO}, ClassificationDecoder, {"activation": "gelu_tanh"}


def _conv() -> _Parts:
    """Perceiver IO on ImageNet with convolutional features: 82.1 % top-1 (Perceiver IO, table 6)."""
    adapter = {"features": "conv", "feature_channels": 64, "position": "fourier", "num_bands": 64}
    return adapter, {**_IMAGENET_IO}, ClassificationDecoder, {"activation": "gelu_tanh"}


def _perceiver() -> _Parts:
    """The original Perceiver on ImageNet: 78.0 % top-1 (Perceiver, section 4.1).

    Of the 8 cross-attends the second to eighth share their weights, as all blocks do; the latents' mean is projected
    to classes.
    """
    adapter = {"features": "pixels", "position": "fourier", "num_bands": 64}
    encoder = {
        **_IMAGENET_IO,
        "num_cross_attends": 8,
        "share_cross_attends": "after_first",
    }
    return adapter, encoder, PooledClassificationDecoder, {"use_layer_norm": False}


def _small() -> _Parts:
    """For images of 32 to 96 pixels, of which a few hundred are enough: five convolutions, 32 latents.

    What it was chosen by is in docs/which-variant.md.
    """
    adapter = {
        "features": "conv_stem",
        "feature_channels": 128,
        "num_residual_convolutions": 2,
        "position": "fourier",
        "num_bands": 4,
    }
    encoder = {
        # 128 channels of features beside 18 of positions: in equal parts, positions would be learned by heart.
        "cross_attention_init": "fan_in",
        "num_latents": 32,
        "latent_channels": 128,
        "num_cross_attends": 2,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        "share_blocks": "none",
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 4,
        "cross_attention_qk_channels": 64,
    }
    return adapter, encoder, ClassificationDecoder, {}


def _tiny() -> _Parts:
    """For images of 8 to 32 pixels, trained in a minute or two on a laptop's processor."""
    adapter = {"features": "patches", "patch_size": 2, "position": "fourier", "num_bands": 4}
    encoder = {
        "num_latents": 8,
        "latent_channels": 128,
        "num_cross_attends": 2,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        "share_blocks": "none",
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 4,
        # Wider than the byte array of 22 to 30 channels, which would be a bottleneck.
        "cross_attention_qk_channels": 64,
    }
    return adapter, encoder, ClassificationDecoder, {}


VARIANTS: dict[str, Callable[[], _Parts]] = {
    "tiny": _tiny,
    "small": _small,
    "learned": _learned,
    "fourier": _fourier,
    "conv": _conv,
    "perceiver": _perceiver,
}
"""Presets by name: the published ones, and small ones for small images."""

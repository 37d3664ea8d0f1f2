"""The published ImageNet classifiers: what `transformers` and the original release call and compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.published.fields import (
    activation,
    check_same,
    encoder_config,
    encoder_fields,
    image_size,
    label_fields,
    query_qk_channels,
)
from perceiver_io.published.krasserm import (
    CLASSIFIER_NAMES,
    krasserm_classifier,
    krasserm_encoder,
    krasserm_labels,
    perceiver_io_loader,
)
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.tasks.image_classification.model import IMAGE, LABEL, PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.presets import config
from perceiver_io.vector_decoders import ClassificationDecoder

__all__ = ["LAYOUT"]

_Fields = Mapping[str, Any]


def _learned(fields: _Fields) -> ImageAdapter.Config:
    return ImageAdapter.Config(
        size=image_size(fields),
        features="conv1x1",
        feature_channels=256,
        position="learned",
        position_channels=256,
        position_projection=256,
    )


def _fourier(_: _Fields) -> ImageAdapter.Config:
    return ImageAdapter.Config(size=(224, 224), features="pixels", num_bands=64, max_resolution=(224, 224))


def _conv(_: _Fields) -> ImageAdapter.Config:
    return ImageAdapter.Config(
        size=(224, 224),
        features="conv",
        feature_channels=64,
        conv_padding="symmetric",
        num_bands=64,
        max_resolution=(56, 56),
    )


_CLASSES: dict[str, Callable[[_Fields], ImageAdapter.Config]] = {
    "PerceiverForImageClassificationLearned": _learned,
    "PerceiverForImageClassificationFourier": _fourier,
    "PerceiverForImageClassificationConvProcessing": _conv,
}
_CLASS_OF_FEATURES = {
    "conv1x1": "PerceiverForImageClassificationLearned",
    "pixels": "PerceiverForImageClassificationFourier",
    "conv": "PerceiverForImageClassificationConvProcessing",
}


def _read(fields: _Fields, *, image: Callable[[_Fields], ImageAdapter.Config]) -> PerceiverIOConfig:
    """Returns what a class of `transformers` computes: all of them add the query to what it attended to."""
    return PerceiverIOConfig(
        inputs={IMAGE: image(fields)},
        encoder=encoder_config(fields),
        outputs={
            LABEL: ClassificationDecoder.Config(
                num_classes=len(fields["id2label"]),
                qk_channels=query_qk_channels(fields, query_channels=fields["d_latents"]),
                use_query_residual=True,
                activation=activation(fields),
                attention_dropout=fields["attention_probs_dropout_prob"],
            )
        },
        id2label=fields["id2label"],
    )


def _to_transformers(config: PerceiverIOConfig) -> dict[str, Any]:
    image, decoder = config.inputs[IMAGE], config.outputs[LABEL]
    if not isinstance(image, ImageAdapter.Config) or image.features not in _CLASS_OF_FEATURES:
        raise ValueError("No class of transformers has the image features of this model.")
    if not isinstance(decoder, ClassificationDecoder.Config):
        raise ValueError(
            "The classes of transformers have a decoder with a learned query, this model has another."
        )
    architecture = _CLASS_OF_FEATURES[image.features]
    fields = {
        **encoder_fields(config.encoder),
        "architectures": [architecture],
        "image_size": image.size[0] if image.size[0] == image.size[1] else list(image.size),
        **label_fields(config, num_classes=decoder.num_classes),
    }
    class_config = _read(fields, image=_CLASSES[architecture])
    check_same(_resolved(config), _resolved(class_config), architecture=architecture)
    return fields


def _resolved(config: PerceiverIOConfig) -> PerceiverIOConfig:
    """Returns the configuration with defaults as numbers, and without what does not matter to what it computes."""
    image, decoder = config.inputs[IMAGE], config.outputs[LABEL]
    assert isinstance(image, ImageAdapter.Config)
    assert isinstance(decoder, ClassificationDecoder.Config)
    if image.position == "fourier":
        image = dataclasses.replace(
            image,
            max_resolution=image.max_resolution or image.grid(image.size),
            size=(224, 224),  # nominal only, now that the resolution is given
            position_channels=256,
        )
    if image.features in ("conv1x1", "conv") and image.feature_channels is None:
        image = dataclasses.replace(image, feature_channels=256 if image.features == "conv1x1" else 64)
    latent_channels = config.encoder.latent_channels
    qk_channels = decoder.qk_channels or latent_channels
    decoder = dataclasses.replace(
        decoder,
        query_channels=decoder.query_channels or latent_channels,
        qk_channels=qk_channels,
        v_channels=decoder.v_channels or qk_channels,
    )
    return PerceiverIOConfig(inputs={IMAGE: image}, encoder=config.encoder, outputs={LABEL: decoder})


def _of_krasserm(config_json: _Fields) -> PerceiverIOConfig:
    """Returns what his "perceiver-io-image-classifier" computes."""
    values = config_json["model_config"]
    classifier = krasserm_classifier(values)
    *size, channels = values["encoder"]["image_shape"]
    image = ImageAdapter.Config(
        size=tuple(size),
        image_channels=channels,
        features="pixels",
        num_bands=values["encoder"]["num_frequency_bands"],
        max_resolution=tuple(size),
    )
    width = channels + len(size) * (2 * image.num_bands + 1)
    return PerceiverIOConfig(
        inputs={IMAGE: image},
        encoder=krasserm_encoder(values, qk_channels=width),
        outputs={LABEL: classifier},
        id2label=krasserm_labels(config_json, num_classes=classifier.num_classes),
    )


LAYOUT = PublishedLayout(
    model_class=PerceiverIOForImageClassification,
    inputs=(IMAGE,),
    outputs=(LABEL,),
    models={
        f"vision-perceiver-{variant}": partial(config, variant=variant)
        for variant in ("learned", "fourier", "conv")
    },
    architectures={name: partial(_read, image=image) for name, image in _CLASSES.items()},
    to_transformers=_to_transformers,
    transformers_names={
        "adapters.image.features": "perceiver.input_preprocessor.convnet_1x1",
        "adapters.image.features.convolution": "perceiver.input_preprocessor.convnet.conv",
        "adapters.image.features.norm": "perceiver.input_preprocessor.convnet.batchnorm",
        "adapters.image.position.table.weight": (
            "perceiver.input_preprocessor.position_embeddings.position_embeddings"
        ),
        "adapters.image.position_projection": "perceiver.input_preprocessor.positions_projection",
        "decoders.label.query.weight": (
            "perceiver.decoder.decoder.output_position_encodings.position_embeddings"
        ),
        "decoders.label.cross_attend": "perceiver.decoder.decoder.decoding_cross_attention",
        "decoders.label.output": "perceiver.decoder.decoder.final_layer",
    },
    deepmind_names={
        "adapters.image.features": "image_preprocessor/~/conv2_d",
        "adapters.image.features.convolution": "image_preprocessor/~/conv2_d_downsample/~/conv",
        "adapters.image.features.norm": "image_preprocessor/~/conv2_d_downsample/~/batchnorm",
        "adapters.image.position.table": (
            "image_preprocessor/~_build_network_inputs/trainable_position_encoding"
        ),
        "adapters.image.position_projection": (
            "image_preprocessor/~_build_network_inputs/position_encoding_projector/linear"
        ),
        "encoder": "perceiver_encoder/~",
        "decoders.label.query": "classification_decoder/~/basic_decoder/~/trainable_position_encoding",
        "decoders.label.cross_attend": "classification_decoder/~/basic_decoder/cross_attention",
        "decoders.label.output": "classification_decoder/~/basic_decoder/output",
    },
    loaders={
        "perceiver-io-image-classifier": perceiver_io_loader(
            PerceiverIOForImageClassification, read=_of_krasserm, names=lambda _: CLASSIFIER_NAMES
        )
    },
)

"""The published multimodal autoencoder: what `transformers` and the original release call and compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.video import VideoAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.published import fields as published_fields
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.query_attention import QueryAttentionConfig, SharedAttentionConfig
from perceiver_io.tasks.multimodal_autoencoding.model import (
    AUDIO,
    IMAGE,
    LABEL,
    PerceiverIOForMultimodalAutoencoding,
)
from perceiver_io.tasks.multimodal_autoencoding.presets import config
from perceiver_io.vector_decoders import ClassificationDecoder

__all__ = ["LAYOUT"]

_CLASS = "PerceiverForMultimodalAutoencoding"
_NAMES = (AUDIO, IMAGE, LABEL)
_IMAGE_BANDS, _AUDIO_BANDS = 32, 192
_PATCH = 4


def _read(fields: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what the class computes; coordinates are those that it decodes subsets of points with."""
    height, width = published_fields.image_size(fields)
    num_frames, samples_per_patch = fields["num_frames"], fields["samples_per_patch"]
    num_samples = num_frames * fields["audio_samples_per_frame"]
    num_classes = len(fields["id2label"])
    resolution = (num_frames, height, width)
    label_channels = fields["_label_trainable_num_channels"]
    query_channels = 2 + max(3 * (2 * _IMAGE_BANDS + 1), 2 * _AUDIO_BANDS + 1, label_channels)
    encoder = published_fields.encoder_config(fields)
    return PerceiverIOConfig(
        inputs={
            IMAGE: VideoAdapter.Config(
                size=(num_frames, _PATCH * height, _PATCH * width),
                patch_size=(1, _PATCH, _PATCH),
                num_bands=_IMAGE_BANDS,
                max_resolution=resolution,
            ),
            AUDIO: AudioAdapter.Config(
                num_samples=num_samples, samples_per_patch=samples_per_patch, num_bands=_AUDIO_BANDS
            ),
            LABEL: LabelAdapter.Config(num_classes=num_classes),
        },
        encoder=encoder,
        outputs={
            IMAGE: DenseDecoder.Config(
                output_channels=3,
                grid=tuple(fields["output_shape"][1:]),
                num_bands=_IMAGE_BANDS,
                max_resolution=resolution,
                spacing="steps",
                channel_axis=1,
            ),
            AUDIO: DenseDecoder.Config(
                output_channels=1,
                grid=(num_samples // samples_per_patch,),
                num_bands=_AUDIO_BANDS,
                max_resolution=(num_samples,),
                spacing="steps",
                patch_size=(samples_per_patch,),
                channel_axis=None,
            ),
            LABEL: ClassificationDecoder.Config(
                num_classes=num_classes, query_channels=label_channels, use_query_residual=False
            ),
        },
        packing=PackingConfig(
            min_padding=4, mask_probabilities=tuple((name, float(name == LABEL)) for name in _NAMES)
        ),
        shared_attention=SharedAttentionConfig(
            outputs=_NAMES,
            output_channels=fields["output_num_channels"],
            min_padding=2,
            qk_channels=published_fields.query_qk_channels(fields, query_channels=query_channels),
            use_query_residual=False,
            activation=published_fields.activation(fields),
            attention_dropout=encoder.attention_dropout,
        ),
        id2label=fields["id2label"],
    )


def _to_transformers(config: PerceiverIOConfig) -> dict[str, Any]:
    image, audio = config.inputs[IMAGE], config.inputs[AUDIO]
    frames, label = config.outputs[IMAGE], config.outputs[LABEL]
    shared = config.shared_attention
    if (
        not isinstance(image, VideoAdapter.Config)
        or not isinstance(audio, AudioAdapter.Config)
        or not isinstance(frames, DenseDecoder.Config)
        or not isinstance(label, ClassificationDecoder.Config)
        or shared is None
    ):
        raise ValueError(
            "The class of transformers reads video and sound, and decodes them densely and a label by one query, with "
            "one attention for all; this model does something else."
        )
    if audio.num_samples % image.size[0]:
        raise ValueError(
            f"The class of transformers has a whole number of samples a frame, this model {audio.num_samples} samples "
            f"and {image.size[0]} frames."
        )
    _, height, width = image.max_resolution or image.grid(image.size)
    fields = {
        **published_fields.encoder_fields(config.encoder),
        "architectures": [_CLASS],
        "num_frames": image.size[0],
        "image_size": height if height == width else [height, width],
        "audio_samples_per_frame": audio.num_samples // image.size[0],
        "samples_per_patch": audio.samples_per_patch,
        "output_shape": [1, *(frames.grid or image.size)],
        "output_num_channels": shared.output_channels,
        "_label_trainable_num_channels": label.query_channels or config.encoder.latent_channels,
        **published_fields.label_fields(config, num_classes=label.num_classes),
    }
    published_fields.check_same(_resolved(config), _resolved(_read(fields)), architecture=_CLASS)
    return fields


def _resolved(config: PerceiverIOConfig) -> PerceiverIOConfig:
    """Returns the configuration with defaults as numbers, and without what does not matter to what it computes."""
    latent_channels = config.encoder.latent_channels
    inputs, outputs, shared = dict(config.inputs), dict(config.outputs), config.shared_attention
    image, audio = inputs[IMAGE], inputs[AUDIO]
    assert isinstance(image, VideoAdapter.Config)
    assert isinstance(audio, AudioAdapter.Config)
    assert shared is not None
    frames, height, width = image.max_resolution or image.grid(image.size)
    inputs[IMAGE] = dataclasses.replace(
        image, size=(1, _PATCH, _PATCH), max_resolution=(frames, height, width)
    )
    inputs[AUDIO] = dataclasses.replace(audio, max_resolution=audio.max_resolution or audio.num_samples)
    unused: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(QueryAttentionConfig)}
    for name, output in outputs.items():
        assert isinstance(output, (DenseDecoder.Config, ClassificationDecoder.Config))
        if name in shared.outputs:
            output = dataclasses.replace(output, **unused)
        if isinstance(output, DenseDecoder.Config):
            output = dataclasses.replace(output, max_resolution=output.max_resolution or output.grid)
        else:
            output = dataclasses.replace(output, query_channels=output.query_channels or latent_channels)
        outputs[name] = output
    qk_channels = shared.qk_channels or latent_channels
    return PerceiverIOConfig(
        inputs=inputs,
        encoder=config.encoder,
        outputs=outputs,
        packing=config.packing,
        shared_attention=dataclasses.replace(
            shared,
            outputs=tuple(sorted(shared.outputs)),
            qk_channels=qk_channels,
            v_channels=shared.v_channels or qk_channels,
        ),
    )


def _for_each(name: str, theirs: str) -> dict[str, str]:
    """Pairs of names that differ by the modality only, which stands for the * in both."""
    return {name.replace("*", modality): theirs.replace("*", modality) for modality in _NAMES}


LAYOUT = PublishedLayout(
    model_class=PerceiverIOForMultimodalAutoencoding,
    inputs=_NAMES,
    outputs=_NAMES,
    models={"multimodal-perceiver": config},
    architectures={_CLASS: _read},
    to_transformers=_to_transformers,
    transformers_names={
        **_for_each("packer.padding.*.weight", "perceiver.input_preprocessor.padding.*"),
        **_for_each("packer.mask_tokens.*.weight", "perceiver.input_preprocessor.mask.*"),
        **_for_each("shared_attention.padding.*.weight", "perceiver.decoder.padding.*"),
        **_for_each("decoders.*.output", "perceiver.output_postprocessor.modalities.*.classifier"),
        "shared_attention.cross_attend": "perceiver.decoder.decoder.decoding_cross_attention",
        "shared_attention.output": "perceiver.decoder.decoder.final_layer",
        "decoders.label.query.weight": (
            "perceiver.decoder.modalities.label.decoder.output_position_encodings.position_embeddings"
        ),
    },
    deepmind_names={
        **_for_each("packer.padding.*", "multimodal_preprocessor/*_padding"),
        **_for_each("packer.mask_tokens.*", "multimodal_preprocessor/*_mask_token"),
        **_for_each("shared_attention.padding.*", "multimodal_decoder/~decoder_query/*_padding"),
        "encoder": "encoder/~",
        "shared_attention.cross_attend": "multimodal_decoder/~/basic_decoder/cross_attention",
        "shared_attention.output": "multimodal_decoder/~/basic_decoder/output",
        "decoders.label.query": "classification_decoder/~/basic_decoder/~/trainable_position_encoding",
        "decoders.audio.output": "audio_postprocessor/linear",
        "decoders.image.output": "projection_postprocessor/linear",
        "decoders.label.output": "classification_postprocessor/linear",
    },
)

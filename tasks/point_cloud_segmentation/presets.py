"""Configurations of models that give a class for each point of a cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from perceiver_io.adapters.point_cloud import PointCloudAdapter
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import class_labels, laid_over, variant_parts
from perceiver_io.running.model_settings import ModelSettings
from perceiver_io.tasks.dense.presets import SMALL_ENCODER
from perceiver_io.tasks.modalities.cloud import CLOUD as CLOUDS
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.point_cloud_segmentation.model import CLASSES, CLOUD

__all__ = ["INPUTS", "VARIANTS", "cloud_map_config", "config"]

INPUTS = Inputs.of(CLOUDS)

_Fields = dict[str, Any]


def config(
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "small",
    settings: Mapping[str, Any] | None = None,
    cloud: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that gives a class for each point of a cloud.

    Args:
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: One of `VARIANTS`.
        settings: Fields of `CloudSettings`: how many points are read, of which coordinates and features.
        cloud: Fields of the adapter's configuration that differ from what follows from these.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    num_classes, labels = class_labels(num_classes, class_names, default=2)
    read = {CLOUD: CLOUDS.Settings.from_dict(dict(settings or {}))}
    changes = ModelSettings({"inputs": {CLOUD: dict(cloud or {})}})
    adapter = INPUTS.adapters(read, INPUTS.processor(read, []), changes)[CLOUD]
    made = cloud_map_config(
        adapter, num_classes=num_classes, variant=variant, encoder=encoder, decoder=decoder, id2label=labels
    )
    changes.check(made)
    return made


def cloud_map_config(
    adapter: ComponentConfig,
    *,
    num_classes: int,
    variant: str,
    encoder: Mapping[str, Any] | None,
    decoder: Mapping[str, Any] | None,
    id2label: dict[int, str] | None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model whose queries are the elements of a cloud's adapter.

    Args:
        adapter: The adapter's configuration.
        num_classes: Number of classes.
        variant: As `config`.
        encoder: As `config`.
        decoder: As `config`.
        id2label: Names of the classes.

    Raises:
        ValueError: The variant or a field is unknown.
    """
    assert isinstance(adapter, PointCloudAdapter.Config)
    of_encoder, of_decoder = variant_parts(VARIANTS, variant, of="point cloud segmentation model")
    with torch.device("meta"):
        num_channels = PointCloudAdapter(adapter).num_channels
    asked = {
        "output_channels": num_classes,
        "query_input": CLOUD,
        "query_input_channels": num_channels,
        "query_mask_input": CLOUD,
        "position": "none",
    }
    return PerceiverIOConfig(
        inputs={CLOUD: adapter},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={CLASSES: laid_over(DenseDecoder.Config, of_decoder, asked, decoder)},
        id2label=id2label,
    )


def _small() -> tuple[_Fields, _Fields]:
    """For some hundreds of clouds and points, trained in minutes on a laptop's processor."""
    decoder = {"num_heads": 4, "qk_channels": 64, "v_channels": 128, "widening_factor": 4}
    return dict(SMALL_ENCODER), decoder


VARIANTS: dict[str, Callable[[], tuple[_Fields, _Fields]]] = {"small": _small}

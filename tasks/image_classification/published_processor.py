"""The image processor of the published models, read from and written in the settings of `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.image_classification.model import IMAGE

__all__ = ["from_published_settings", "published_processor", "to_published_settings"]

_TYPES = {"PerceiverFeatureExtractor", "PerceiverImageProcessor", "PerceiverImageProcessorFast"}
# Channel means and deviations of ImageNet, and how much of the shorter side is kept, as the models were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZE, _CROP_SIZE = 224, 256


def published_processor(config: PerceiverIOConfig) -> PerceiverIOImageProcessor:
    """Returns the processor that the published ImageNet models were evaluated with, for a classifier's own image size.

    Args:
        config: The classifier's. One for greyscale images gets the values of no data set: [-1, 1].
    """
    image = config.inputs[IMAGE].to_dict()
    channels = image["image_channels"]
    return PerceiverIOImageProcessor(
        size=image["size"],
        num_channels=channels,
        crop_fraction=_SIZE / _CROP_SIZE,
        image_mean=_MEAN if channels == 3 else 0.5,
        image_std=_STD if channels == 3 else 0.5,
    )


def from_published_settings(settings: Mapping[str, Any]) -> PerceiverIOImageProcessor:
    """Builds the processor that does what a `PerceiverImageProcessor` of `transformers` does.

    Args:
        settings: The content of its preprocessor_config.json, or that of a processor of ours, which is taken as it is.

    Raises:
        ValueError: It is another processor's, or crops or resizes in a way that ours does not.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"preprocessor_config.json must be an object, got {type(settings).__name__}: the file is damaged."
        )
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        ours: PerceiverIOImageProcessor = PerceiverIOImageProcessor.from_dict(dict(settings))
        return ours
    size = _sides(settings, "size", _SIZE)
    crop = _sides(settings, "crop_size", _CROP_SIZE)
    if size[0] * crop[1] != size[1] * crop[0] or not settings.get("do_resize", True):
        raise ValueError(
            f"The {kind} has size {size}, crop_size {crop} and do_resize {settings.get('do_resize', True)}; expected "
            "that it resizes, and crops both sides alike."
        )
    crops, normalizes = settings.get("do_center_crop", True), settings.get("do_normalize", True)
    return PerceiverIOImageProcessor(
        size=size,
        do_center_crop=crops,
        crop_fraction=size[0] / crop[0] if crops else 1.0,
        resample=settings.get("resample", 3),
        rescale_factor=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
        image_mean=settings.get("image_mean") or _MEAN if normalizes else 0.0,
        image_std=settings.get("image_std") or _STD if normalizes else 1.0,
    )


def to_published_settings(processor: PerceiverIOImageProcessor) -> dict[str, Any]:
    """Returns the preprocessor_config.json of the `PerceiverImageProcessor` that does what a processor does.

    It has no crop_fraction, but a crop_size in whole pixels, so that the cut box may differ by a pixel or two.

    Raises:
        ValueError: None does: the image is not square, or has not three channels.
    """
    height, width = processor.size["height"], processor.size["width"]
    if height != width or processor.num_channels != 3:
        raise ValueError(
            f"The image processor makes images of {processor.num_channels} channels and {height} x {width} pixels; the "
            "PerceiverImageProcessor of transformers makes square ones of 3 channels."
        )
    crop = round(height / processor.crop_fraction)
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "do_center_crop": processor.do_center_crop,
        "crop_size": {"height": crop, "width": crop},
        "resample": processor.resample,
        "do_rescale": True,
        "rescale_factor": processor.rescale_factor,
        "do_normalize": True,
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
    }


def _sides(settings: Mapping[str, Any], name: str, default: int) -> tuple[int, int]:
    """Returns height and width; older files have one number for both."""
    value = settings.get(name) or default
    sides: Any = (value.get("height"), value.get("width")) if isinstance(value, Mapping) else (value, value)
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{name} is {value!r}, expected a number of pixels, or a height and a width.")
    height, width = sides
    return height, width

"""Images varied at random for training, and the collator that does it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.extras import require

__all__ = ["Augmentation", "ImageCollator", "ImageVariation", "augmentation_preset"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied; by default not at all.

    Attributes:
        crop: ``"none"`` prepares images as for evaluation; ``"pad"`` does that, then shifts them by up to
            ``crop_padding`` pixels over a black border; ``"resized"`` cuts out a part of random area and aspect
            ratio and resizes it.
        crop_padding: Largest shift in pixels of the ``"pad"`` crop.
        crop_min_area: Smallest part of the image's area that the ``"resized"`` crop cuts out.
        horizontal_flip: Mirror every second image.
        rotation: Largest angle, in degrees, either way.
        translation: Largest shift, as a part of the width and of the height.
        scaling: Largest change of size: 0.1 is from 0.9 to 1.1 times the size.
        randaugment: Apply RandAugment (Cubuk et al., 2019).
        randaugment_num_ops: Number of operations RandAugment applies to an image.
        randaugment_magnitude: Their strength, 0 to 30.
        random_erasing: Probability to erase a rectangle of the image.
        mixup: Alpha of mixup (Zhang et al., 2017), 0 for none. With ``cutmix`` each batch gets one of both.
        cutmix: Alpha of CutMix (Yun et al., 2019), 0 for none.
        label_smoothing: Probability spread over all classes, by the training loss.

    Raises:
        ValueError: A value is out of range.
    """

    crop: Literal["none", "pad", "resized"] = "none"
    crop_padding: int = 4
    crop_min_area: float = 0.08
    horizontal_flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    scaling: float = 0.0
    randaugment: bool = False
    randaugment_num_ops: int = 2
    randaugment_magnitude: int = 9
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in ("none", "pad", "resized"):
            raise ValueError(f"Got crop={self.crop!r}, expected 'none', 'pad' or 'resized'.")
        for name, lowest, highest in (
            ("crop_padding", 0, math.inf),
            ("crop_min_area", 0.001, 1),
            ("rotation", 0, 180),
            ("translation", 0, 1),
            ("scaling", 0, 0.99),
            ("randaugment_num_ops", 0, math.inf),
            ("randaugment_magnitude", 0, 30),
            ("random_erasing", 0, 1),
            ("mixup", 0, math.inf),
            ("cutmix", 0, math.inf),
            ("label_smoothing", 0, 0.99),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(
                    f"Got {name}={getattr(self, name)}, expected a number from {lowest} to {highest}."
                )

    def changed(self, settings: Mapping[str, Any]) -> Augmentation:
        """Returns the augmentation with other settings.

        Raises:
            ValueError: A setting is unknown, of a wrong type, or out of range.
        """
        known = {one.name: type(getattr(self, one.name)) for one in dataclasses.fields(self)}
        for name, value in settings.items():
            if name not in known:
                raise ValueError(f"There is no augmentation {name!a:.80}. Known: preset, {', '.join(known)}.")
            fits = isinstance(value, known[name]) or (known[name] is float and type(value) is int)
            if not fits or (type(value) is bool) != (known[name] is bool):
                raise ValueError(f"augmentation.{name} is {value!r:.80}, expected {known[name].__name__}.")
        return dataclasses.replace(self, **settings)


_PRESETS = {
    "none": Augmentation(),
    # A mirrored digit is another sign, and a digit has no colours: only the hand that wrote it varies.
    "digits": Augmentation(rotation=10.0, translation=0.1, scaling=0.1),
    # What hardly ever makes another class of a picture: no flip, for of mirrored stripes, letters and signs it would.
    # CutMix of so low an alpha mostly exchanges little: classes that a small part tells apart are still learned.
    "mild": Augmentation(rotation=10.0, translation=0.1, scaling=0.2, cutmix=0.2, label_smoothing=0.1),
    "natural": Augmentation(
        crop="resized",
        horizontal_flip=True,
        randaugment=True,
        mixup=0.2,
        cutmix=1.0,
        label_smoothing=0.1,
    ),
}


def augmentation_preset(name: str) -> Augmentation:
    """Returns a named augmentation.

    Args:
        name: ``"none"``; ``"digits"`` (small rotations, shifts and changes of size, no flips); ``"mild"`` (the same
            with larger changes of size, a little CutMix, and label smoothing); ``"natural"`` (for thousands of
            photographs: resized crops, flips, RandAugment, mixup, CutMix, label smoothing).

    Raises:
        ValueError: There is no such preset.
    """
    if not isinstance(name, str) or name not in _PRESETS:
        raise ValueError(f"Got the augmentation {name!r:.80}, expected one of {sorted(_PRESETS)}.")
    return _PRESETS[name]


class ImageCollator:
    """Makes a training batch of labelled images, varied at random and mixed.

    All random numbers are of PyTorch's global generator.

    Args:
        processor: Processor of the model.
        augmentation: What to vary.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        processor: PerceiverIOImageProcessor,
        augmentation: Augmentation,
        *,
        num_classes: int,
    ) -> None:
        self.num_classes = num_classes
        self.smoothing = augmentation.label_smoothing
        self.vary = ImageVariation(processor, augmentation)
        self.mix = _mixer(augmentation, num_classes)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Makes a batch.

        Args:
            rows: Each with ``image`` and ``label``, an int.

        Returns:
            `pixel_values` (B, C, H, W) and `labels`, (B,) int64, or (B, K) probabilities of mixed or smoothed ones.
        """
        pixel_values = self.vary([row["image"] for row in rows])
        labels = torch.tensor([int(row["label"]) for row in rows])
        if self.mix is not None:
            pixel_values, labels = self.mix(pixel_values, labels)
        if self.smoothing:
            if not labels.is_floating_point():
                labels = F.one_hot(labels, self.num_classes).float()
            # The loss is linear in the labels, so this is label smoothing, and evaluation stays free of it.
            labels = labels * (1 - self.smoothing) + self.smoothing / self.num_classes
        return {"pixel_values": pixel_values, "labels": labels}


class ImageVariation:
    """Varies images at random, each by itself.

    Args:
        processor: Processor of the model.
        augmentation: What to vary; what mixes images or labels is left out.
    """

    def __init__(self, processor: PerceiverIOImageProcessor, augmentation: Augmentation) -> None:
        self.processor, self.augmentation = processor, augmentation
        self.crop_and_resize: Callable[[Any], Any] = processor.resize
        if augmentation.crop == "resized":
            v2 = require("torchvision.transforms.v2", extra="train")
            resampling = require("PIL.Image", extra="train").Resampling(processor.resample)
            self.crop_and_resize = v2.RandomResizedCrop(
                (processor.size["height"], processor.size["width"]),
                scale=(augmentation.crop_min_area, 1.0),
                interpolation=v2.InterpolationMode[resampling.name],
            )
        if augmentation.randaugment:
            self.randaugment = require("torchvision.transforms.v2", extra="train").RandAugment(
                num_ops=augmentation.randaugment_num_ops, magnitude=augmentation.randaugment_magnitude
            )
        if augmentation.random_erasing:
            self.erase = require("torchvision.transforms.v2", extra="train").RandomErasing(
                p=augmentation.random_erasing
            )

    def __call__(self, batch: Sequence[Any]) -> torch.Tensor:
        """Returns (B, C, H, W) normalised pixels of images of any size."""
        pixels_BCHW = self.processor.normalize_pixels(self.pixels(batch))
        if self.augmentation.random_erasing:
            pixels_BCHW = torch.stack([self.erase(pixels_CHW) for pixels_CHW in pixels_BCHW])
        return pixels_BCHW

    def pixels(self, batch: Sequence[Any]) -> torch.Tensor:
        """Returns (B, C, H, W) 8-bit values, uint8 or in float32 between them, of which nothing is erased."""
        augmentation = self.augmentation
        # Torchvision draws one set of numbers a call, so its transforms run image by image. What tiny images
        # need is done by the batch, because there torchvision's time a call would exceed that of the training.
        images = [self.crop_and_resize(image) for image in self.processor.to_pil(batch)]
        if augmentation.randaugment:
            images = [self.randaugment(image) for image in images]
        pixels_BCHW = torch.stack([self.processor.to_tensor(image) for image in images])
        if augmentation.horizontal_flip:
            flipped_B = torch.rand(len(pixels_BCHW)) < 0.5
            pixels_BCHW = torch.where(flipped_B[:, None, None, None], pixels_BCHW.flip(-1), pixels_BCHW)
        if augmentation.crop == "pad":
            pixels_BCHW = _shift(pixels_BCHW, augmentation.crop_padding)
        if augmentation.rotation or augmentation.translation or augmentation.scaling:
            pixels_BCHW = _random_affine(pixels_BCHW, augmentation)
        return pixels_BCHW


def _shift(pixels_BCHW: torch.Tensor, padding: int) -> torch.Tensor:
    """Shifts each image by whole pixels, up to so many each way, and fills with black."""
    height, width = pixels_BCHW.shape[-2:]
    padded = F.pad(pixels_BCHW, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, top, left, H, W), a view
    batch = torch.arange(len(pixels_BCHW))
    top, left = torch.randint(2 * padding + 1, (2, len(pixels_BCHW)))
    return windows[batch, :, top, left]


def _random_affine(pixels_BCHW: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Rotates, scales and shifts each image by amounts of its own."""
    angle, scale, shift_x, shift_y = torch.rand(4, len(pixels_BCHW)) * 2 - 1  # each in [-1, 1)
    return affine(
        pixels_BCHW,
        angle=angle * math.radians(augmentation.rotation),
        scale=1 + scale * augmentation.scaling,
        shift_x=shift_x * augmentation.translation,
        shift_y=shift_y * augmentation.translation,
    )


def affine(
    pixels_BCHW: torch.Tensor,
    *,
    angle: torch.Tensor,
    scale: torch.Tensor,
    shift_x: torch.Tensor,
    shift_y: torch.Tensor,
) -> torch.Tensor:
    """Rotates and scales images around their centres, then shifts them; what comes in from outside is 0.

    Unlike torchvision's affine transform, it takes one number an image and shifts by parts of a pixel.

    Args:
        pixels_BCHW: Images of any dtype.
        angle: (B,), in radians, clockwise.
        scale: (B,), above 1 enlarges.
        shift_x: (B,), to the right, as a part of the width.
        shift_y: (B,), down, as a part of the height.

    Returns:
        (B, C, H, W), float32, interpolated bilinearly.
    """
    height, width = pixels_BCHW.shape[-2:]
    # Affine grids lead from output to input, in coordinates where both sides go from -1 to 1.
    cos, sin = angle.cos() / scale, angle.sin() / scale
    xx, xy, yx, yy = cos, sin * (height / width), -sin * (width / height), cos
    x, y = 2 * shift_x, 2 * shift_y
    matrix_B23 = torch.stack([xx, xy, -xx * x - xy * y, yx, yy, -yx * x - yy * y], dim=-1).view(-1, 2, 3)
    grid_BHW2 = F.affine_grid(matrix_B23, list(pixels_BCHW.shape), align_corners=False)
    return F.grid_sample(pixels_BCHW.float(), grid_BHW2, mode="bilinear", align_corners=False)


def _mixer(augmentation: Augmentation, num_classes: int) -> Callable[..., Any] | None:
    """Returns what mixes the images of a batch and their labels: mixup or CutMix, or by turns."""
    if not (augmentation.mixup or augmentation.cutmix):
        return None
    v2 = require("torchvision.transforms.v2", extra="train")
    mixers = []
    if augmentation.mixup:
        mixers.append(v2.MixUp(alpha=augmentation.mixup, num_classes=num_classes))
    if augmentation.cutmix:
        mixers.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=num_classes))
    mix: Callable[..., Any] = v2.RandomChoice(mixers)
    return mix

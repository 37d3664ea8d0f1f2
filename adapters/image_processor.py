"""Images of any kind to pixel values: the processor that is saved beside a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from transformers import BaseImageProcessor, BatchFeature

from perceiver_io.extras import require
from perceiver_io.input_tools import check_plain
from perceiver_io.media.images import open_image
from perceiver_io.media.source import is_source
from perceiver_io.ragged import pad_ragged

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Image | np.ndarray[Any, Any] | torch.Tensor
    Size = int | Sequence[int] | Mapping[str, int]

__all__ = ["PerceiverIOImageProcessor"]

_PIL_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x112  # of EXIF; what to do with each is a `PIL.Image.Transpose` number
_TURNS: dict[Any, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_MOST_PIXELS = 65_535  # along an axis, as in JPEG files

# The entry point alone registers this processor: without Pillow its base class has no attributes that could be checked.

# What transformers writes into, or finds in, a preprocessor_config.json beside the fields of the processor.
_SERVICE_KEYS = {"auto_map", "feature_extractor_type", "image_processor_type", "processor_class"}


class PerceiverIOImageProcessorKwargs(TypedDict, total=False):
    """What `PerceiverIOImageProcessor.from_pretrained` may override."""

    size: dict[str, int]
    num_channels: int
    resample: int
    do_center_crop: bool
    crop_fraction: float
    rescale_factor: float
    image_mean: list[float]
    image_std: list[float]


class PerceiverIOImageProcessor(BaseImageProcessor):
    """Turns images of any size and mode into normalised pixel values of one size.

    An image is turned upright (EXIF), converted to greyscale or RGB, cut to a centred box of the target's
    aspect ratio, resized once, rescaled and normalised. With ``crop_fraction=224 / 256`` and a square size
    this is the preprocessing of the Perceiver models published for ImageNet.

    Transparency is dropped, as `transformers` pipelines drop it; 16-bit images keep their upper 8 bits.

    Args:
        size: Height and width of the output: a pair, one number for a square, or
            ``{"height": ..., "width": ...}``.
        num_channels: 1 for greyscale, 3 for RGB.
        resample: Interpolation, a `PIL.Image.Resampling` number (3 is bicubic).
        do_center_crop: Whether to keep the aspect ratio by cutting off what sticks out. If not, the whole
            image is stretched to the size.
        crop_fraction: How much of the largest centred box to keep, in (0, 1].
        rescale_factor: What the 8-bit values are multiplied with before they are normalised.
        image_mean: Subtracted after rescaling; one number, or one per channel.
        image_std: Divided by after that; one number, or one per channel.
        **service_keys: What transformers keeps in the same file; ignored.

    Raises:
        ValueError: An argument is out of range, or unknown.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers declares it so
    valid_kwargs = PerceiverIOImageProcessorKwargs  # type: ignore[assignment]

    def __init__(
        self,
        *,
        size: Size = (224, 224),
        num_channels: int = 3,
        resample: int = 3,
        do_center_crop: bool = True,
        crop_fraction: float = 1.0,
        rescale_factor: float = 1 / 255,
        image_mean: float | Sequence[float] = 0.5,
        image_std: float | Sequence[float] = 0.5,
        **service_keys: Any,
    ) -> None:
        if unknown := sorted(set(service_keys) - _SERVICE_KEYS):
            known = sorted(PerceiverIOImageProcessorKwargs.__annotations__)
            raise ValueError(
                f"Got the unknown arguments {unknown}, expected some of {known}. Remove or rename them."
            )
        super().__init__()
        if not isinstance(num_channels, int) or num_channels not in _PIL_MODES:
            raise ValueError(
                f"Got num_channels={num_channels!r:.80}, expected 1 (greyscale) or 3 (RGB). "
                "Pass tensors of other channels to the model directly."
            )
        self.crop_fraction = _number(crop_fraction, "crop_fraction")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"Got crop_fraction={crop_fraction}, expected a number in (0, 1].")
        if not isinstance(do_center_crop, bool):
            raise ValueError(f"Got do_center_crop={do_center_crop!r:.80}, expected True or False.")
        if resample not in range(6):
            raise ValueError(
                f"Got resample={resample!r:.80}, expected a PIL.Image.Resampling number: "
                "0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming."
            )
        self.size = _size_dict(size)
        self.num_channels = num_channels
        self.resample = int(resample)
        self.do_center_crop = do_center_crop
        self.rescale_factor = _number(rescale_factor, "rescale_factor")
        self.image_mean = _per_channel(image_mean, num_channels, "image_mean")
        self.image_std = _per_channel(image_std, num_channels, "image_std")
        if min(self.image_std) <= 0:
            raise ValueError(f"Got image_std={image_std}, expected positive numbers.")

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a processor from what `to_dict` returned.

        Raises:
            ValueError: It is no dictionary, or a setting is unknown, out of range or of a wrong type.
        """
        if not isinstance(image_processor_dict, dict):
            raise ValueError(
                "An image processor's settings (preprocessor_config.json) must be an object, got "
                f"{type(image_processor_dict).__name__}."
            )
        try:
            return super().from_dict(image_processor_dict, **kwargs)
        except TypeError as error:
            raise ValueError(f"A setting of the image processor is of a wrong type: {error}.") from error

    def preprocess(
        self, images: ImageLike | Sequence[ImageLike], *, return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """Processes one image or several; calling the processor does the same.

        Args:
            images: One image or a sequence of images: PIL images of any mode, or uint8 values as NumPy arrays
                (H, W) or (H, W, C) or PyTorch tensors (H, W) or (C, H, W). With 4 dimensions these are a batch.
            return_tensors: ``"pt"`` for PyTorch, ``"np"`` or None for NumPy.

        Returns:
            ``pixel_values`` (B, C, H, W), float32.

        Raises:
            ValueError: There are no images, or something is not an image; the message says which.
        """
        pixels = self.normalize_pixels(self.to_uint8(images))
        return BatchFeature({"pixel_values": pixels.numpy()}, tensor_type=return_tensors)

    def prepare(self, value: Any) -> torch.Tensor:
        """Processes one image, or the file of one: a path, bytes, or a mapping of `path` and `bytes`.

        Returns:
            (C, H, W), float32.

        Raises:
            ValueError: It is not an image, empty, or damaged.
        """
        image = open_image(value) if is_source(value) else value
        return self.normalize_pixels(self.to_tensor(self.resize(self._to_pil(image, "The image"))))

    def collate(self, samples: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Makes a batch (B, C, H, W) of samples, and its mask (B, H, W) where one lacks an image."""
        return pad_ragged(samples, axes=(1, 2))

    def to_uint8(self, images: ImageLike | Sequence[ImageLike]) -> torch.Tensor:
        """Cuts and resizes images: the part of `preprocess` before `normalize_pixels`.

        Returns:
            (B, C, H, W), uint8.
        """
        return torch.stack([self.to_tensor(self.resize(image)) for image in self.to_pil(images)])

    def to_pil(self, images: ImageLike | Sequence[ImageLike]) -> list[Image]:
        """Converts images to upright PIL images of this processor's mode, in their own sizes."""
        images = _as_list(images)
        if not images:
            raise ValueError("Got no images, expected one or more.")
        return [self._to_pil(image, f"Image {index}") for index, image in enumerate(images)]

    def resize(self, image: Image) -> Image:
        """Cuts an image to the target's aspect ratio (if so configured) and resizes it to the target."""
        target = (self.size["width"], self.size["height"])
        if self.do_center_crop:
            box = _center_box(image.size, target, self.crop_fraction)
            if box != (0, 0, *image.size):
                image = image.crop(box)
        return image if image.size == target else image.resize(target, self.resample)

    def to_tensor(self, image: Image) -> torch.Tensor:
        """Copies the pixels of an image of this processor's mode to a (C, H, W) uint8 tensor."""
        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if self.num_channels == 1 else pixels.permute(2, 0, 1)

    def normalize_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rescales and normalises 8-bit values.

        Args:
            pixels: (..., C, H, W), of any dtype.

        Returns:
            (..., C, H, W), float32.
        """
        mean = torch.tensor(self.image_mean).view(-1, 1, 1)
        std = torch.tensor(self.image_std).view(-1, 1, 1)
        return (pixels.float() * self.rescale_factor - mean) / std

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[torch.Tensor]:
        """Returns the most probable class of each pixel, as pipelines of `transformers` ask for it.

        Args:
            outputs: With `logits` (B, K, H, W).
            target_sizes: Height and width for each image, to which its logits are interpolated; as they are if None.

        Returns:
            (H, W) int64 for each image.

        Raises:
            ValueError: There are not as many sizes as images.
        """
        return [logits_KHW.argmax(0) for logits_KHW in _brought_to(outputs.logits, target_sizes)]

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Returns the depth of each pixel, as pipelines of `transformers` ask for it.

        Args:
            outputs: With `predicted_depth` (B, H, W).
            target_sizes: Height and width for each image, to which its depths are interpolated; as they are if None.

        Returns:
            For each image `predicted_depth` (H, W).

        Raises:
            ValueError: There are not as many sizes as images.
        """
        maps = _brought_to(outputs.predicted_depth[:, None], target_sizes)
        return [{"predicted_depth": depth_1HW[0]} for depth_1HW in maps]

    def _to_pil(self, image: ImageLike, name: str) -> Image:
        pil = require("PIL.Image", extra="image")
        picture: Image = (
            image if isinstance(image, pil.Image) else pil.fromarray(_as_pixel_array(image, name))
        )
        if picture.width == 0 or picture.height == 0:
            raise ValueError(f"{name} is empty: {picture.width} x {picture.height} pixels. Leave it out.")
        picture = _upright(picture)
        mode = _PIL_MODES[self.num_channels]
        if picture.mode == mode:
            return picture
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            picture = pil.fromarray(_upper_8_bits(np.asarray(picture), name))
        elif "transparency" in picture.info:  # Pillow warns where this is dropped from a palette in one step
            picture = picture.convert("RGBA")
        # All colours take one way to greyscale, so that an image and its RGB copy give equal values.
        return picture.convert("RGB").convert(mode)


def _upright(image: Image) -> Image:
    """Turns an image as its metadata say; where these are damaged, it is left as it is."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # readers raise what they like, and metadata are no pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def _brought_to(maps_BVHW: torch.Tensor, sizes: Sequence[tuple[int, int]] | None) -> Iterable[torch.Tensor]:
    """Maps (V, H, W), each interpolated to its size."""
    if sizes is None:
        return maps_BVHW
    if len(sizes) != len(maps_BVHW):
        raise ValueError(f"Got {len(sizes)} target_sizes for {len(maps_BVHW)} images, expected one for each.")
    return (
        torch.nn.functional.interpolate(
            one_VHW[None], size=tuple(size), mode="bilinear", align_corners=False
        )[0]
        for one_VHW, size in zip(maps_BVHW, sizes, strict=True)
    )


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, bytes, Mapping)) or not isinstance(images, Iterable):
        return [images]
    return list(images)


def _as_pixel_array(image: Any, name: str) -> np.ndarray[Any, Any]:
    """Checks an array or tensor and returns it as (H, W) or (H, W, 3 or 4), uint8 or (greyscale) uint16."""
    if isinstance(image, torch.Tensor):
        check_plain(image, name=name, device=None)
        if image.dtype not in (torch.uint8, torch.uint16):  # of some NumPy has no name
            raise _unfit_type(name, str(image.dtype).removeprefix("torch."))
        array = image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
        layout = "(H, W) or (C, H, W)"
    elif isinstance(image, np.ndarray):
        array, layout = image, "(H, W) or (H, W, C)"
    else:
        hint = " Open it with PIL.Image.open." if isinstance(image, (str, os.PathLike)) else ""
        raise ValueError(
            f"{name} is not an image: got {type(image).__name__}, "
            f"expected a PIL image, a NumPy array or a PyTorch tensor.{hint}"
        )
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ValueError(f"{name} has the shape {tuple(image.shape)}, expected {layout} with C = 1, 3 or 4.")
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(image.shape)}.")
    if array.dtype != np.uint8 and not (array.dtype == np.uint16 and array.ndim == 2):
        raise _unfit_type(name, array.dtype)
    return np.ascontiguousarray(array)


def _unfit_type(name: str, dtype: object) -> ValueError:
    return ValueError(
        f"{name} has values of type {dtype}, expected uint8 from 0 to 255 (or greyscale uint16). Convert it, or pass "
        "values that are normalised already to the model directly."
    )


def _upper_8_bits(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Scales 16-bit grey values to 8 bits; Pillow's own conversion cuts them off at 255."""
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{name} has {values.dtype} values from {values.min()} to {values.max()}, "
            "expected 8 or 16 bits a channel. Scale it to 0..255 first."
        )
    return (values >> 8).astype(np.uint8)


def _center_box(size: tuple[int, int], target: tuple[int, int], fraction: float) -> tuple[int, int, int, int]:
    """Returns (left, top, right, bottom) of the centred part of an image that has the target's aspect ratio.

    Args:
        size: Width and height of the image.
        target: Width and height, of which the ratio counts.
        fraction: How much of the largest such box to keep.
    """
    # Multiplying before dividing keeps whole numbers exact: an image of the target's ratio is not cut.
    widest, highest = size[1] * target[0] / target[1], size[0] * target[1] / target[0]
    width = max(1, int(min(size[0], widest) * fraction))
    height = max(1, int(min(size[1], highest) * fraction))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _size_dict(size: Size) -> dict[str, int]:
    if isinstance(size, int):
        height, width = size, size
    elif isinstance(size, Mapping) and set(size) == {"height", "width"}:
        height, width = size["height"], size["width"]
    elif isinstance(size, Sequence) and len(size) == 2:
        height, width = size
    else:
        raise ValueError(f"Got size={size!r:.80}, expected (height, width) or one number.")
    if not all(isinstance(side, int) and 0 < side <= _MOST_PIXELS for side in (height, width)):
        raise ValueError(
            f"Got size={size!r:.80}, expected a height and a width of at least 1 pixel, and at most {_MOST_PIXELS:,}."
        )
    return {"height": height, "width": width}


def _per_channel(value: float | Sequence[float], num_channels: int, name: str) -> list[float]:
    values = list(value) if isinstance(value, (Sequence, np.ndarray)) else [value] * num_channels
    if len(values) != num_channels:
        raise ValueError(f"Got {name}={value!r:.80}, expected one number or {num_channels}, one per channel.")
    return [_number(number, name) for number in values]


def _number(value: Any, name: str) -> float:
    # 10 ** 400, which JSON can say, is no number to a computer, nor is NaN a deviation.
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError(f"Got {name}={value!r:.80}, expected finite numbers.")
    return float(value)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.input_processor import InputProcessor
from perceiver_io.registry import PROCESSORS

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def raw(**options: object) -> PerceiverIOImageProcessor:
    """A processor that gives 8-bit values."""
    return PerceiverIOImageProcessor(**{"rescale_factor": 1.0, "image_mean": 0.0, "image_std": 1.0} | options)


def pixels(processor: PerceiverIOImageProcessor, image: object) -> np.ndarray:
    return processor(image, return_tensors="np")["pixel_values"][0]


def test_values_are_rescaled_and_normalised_by_channel():
    processor = PerceiverIOImageProcessor(
        size=(30, 40), image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 1.0, 2.0]
    )
    got = processor(Image.fromarray(RGB))["pixel_values"]
    expected = (RGB / 255 - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0]
    assert got.dtype == torch.float32
    assert got.shape == (1, 3, 30, 40)
    np.testing.assert_allclose(got[0].permute(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 40), (300, 200), (256, 256), (257, 333), (224, 224)])
def test_preprocessing_of_the_published_models(shape: tuple[int, int]):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    theirs = PerceiverImageProcessorPil()
    ours = PerceiverIOImageProcessor(
        size=224, crop_fraction=224 / 256, image_mean=theirs.image_mean, image_std=theirs.image_std
    )
    expected = theirs(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours(image)["pixel_values"], expected, rtol=0, atol=2e-6)


def test_center_crop_keeps_the_aspect_ratio_of_the_target():
    got = pixels(raw(size=(10, 20)), RGB)  # of 30 x 40, the middle 20 x 40
    expected = Image.fromarray(RGB[5:25]).resize((20, 10), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), np.asarray(expected))


def test_without_center_crop_the_image_is_stretched():
    got = pixels(raw(size=(10, 10), do_center_crop=False, resample=2), RGB)
    expected = Image.fromarray(RGB).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("size", [(30, 40), (60, 80), (3, 4)])
def test_an_image_of_the_targets_aspect_ratio_is_not_cut(size: tuple[int, int]):
    np.testing.assert_array_equal(
        pixels(raw(size=size), RGB), pixels(raw(size=size, do_center_crop=False), RGB)
    )


def test_arrays_and_tensors_are_as_images():
    expected = pixels(raw(size=(8, 8)), Image.fromarray(RGB))
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    for image in (RGB, tensor, [RGB], RGB[None], tensor[None], np.dstack([RGB, GREY])):
        np.testing.assert_array_equal(pixels(raw(size=(8, 8)), image), expected)
    expected = pixels(raw(size=(8, 8), num_channels=1), Image.fromarray(GREY))
    assert expected.shape == (1, 8, 8)
    for image in (GREY, GREY[..., None], torch.from_numpy(GREY), torch.from_numpy(GREY)[None]):
        np.testing.assert_array_equal(pixels(raw(size=(8, 8), num_channels=1), image), expected)


def test_images_of_several_sizes_make_a_batch():
    images = [Image.fromarray(RGB), Image.fromarray(GREY[:7, :9]), RGB[:20, :20]]
    batch = raw(size=(8, 8))(images)["pixel_values"]
    assert batch.shape == (3, 3, 8, 8)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(batch[index], pixels(raw(size=(8, 8)), image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_every_mode_gives_what_its_rgb_copy_gives(mode: str, num_channels: int):
    image = Image.fromarray(RGB).convert("P" if mode == "PA" else mode).convert(mode)
    processor = raw(size=(30, 40), num_channels=num_channels)
    np.testing.assert_array_equal(pixels(processor, image), pixels(processor, image.convert("RGB")))
    assert len(np.unique(pixels(processor, image))) > 1


def test_palette_with_transparency(tmp_path: Path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "palette.png", transparency=bytes(range(0, 256, 16)))
    image = Image.open(tmp_path / "palette.png")
    assert image.mode == "P"
    expected = np.asarray(image.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(pixels(raw(size=(30, 40)), image).transpose(1, 2, 0), expected)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_images_keep_their_upper_8_bits(mode: str, num_channels: int):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    if mode == "I;16B":
        image = Image.frombytes(mode, (3, 2), values.astype(">u2").tobytes())
    else:
        image = Image.fromarray(values.astype(np.int32) if mode == "I" else values)
    assert image.mode == mode
    expected = [[0, 0, 1], [128, 254, 255]]
    for picture in (image, values):
        got = pixels(raw(size=(2, 3), num_channels=num_channels), picture)
        np.testing.assert_array_equal(got, np.broadcast_to(expected, (num_channels, 2, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3)
    turn = {  # from upright to as it is stored
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.T, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turn(upright))).save(tmp_path / "turned.png", exif=exif)
    got = pixels(raw(size=(2, 3), num_channels=1), Image.open(tmp_path / "turned.png"))
    np.testing.assert_array_equal(got[0], upright)


def test_save_and_load(tmp_path: Path):
    processor = PerceiverIOImageProcessor(size=(8, 6), num_channels=1, crop_fraction=0.9, image_mean=[0.3])
    processor.save_pretrained(tmp_path)
    loaded = PerceiverIOImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["size"] == {
        "height": 8,
        "width": 6,
    }
    np.testing.assert_array_equal(pixels(loaded, RGB), pixels(processor, RGB))
    assert PerceiverIOImageProcessor.from_pretrained(tmp_path, crop_fraction=0.5).crop_fraction == 0.5


def test_auto_image_processor_loads_it(tmp_path: Path):
    """In a process of its own, for the registration is for the whole process."""
    PerceiverIOImageProcessor(size=(8, 6)).save_pretrained(tmp_path)
    script = f"""
from transformers import AutoImageProcessor, PreTrainedConfig
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor as Processor

class Config(PreTrainedConfig):
    model_type = "stand-in"

AutoImageProcessor.register(Config, image_processor_classes={{"torchvision": Processor, "pil": Processor}})
processor = AutoImageProcessor.from_pretrained({str(tmp_path)!r})
assert type(processor) is Processor
assert processor.size == dict(height=8, width=6)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_works_without_torchvision():
    script = """
import sys
sys.modules["torchvision"] = None
import numpy as np
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
print(PerceiverIOImageProcessor(size=4)(np.zeros((9, 9, 3), np.uint8))["pixel_values"].shape)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "torch.Size([1, 3, 4, 4])", run.stderr


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images"),
        ("cat.png", "Image 0 is not an image: got str, .* Open it with PIL.Image.open"),
        ([RGB, None], "Image 1 is not an image: got NoneType"),
        ([RGB, [RGB]], "Image 1 is not an image: got list"),
        (RGB.astype(np.float32), "values of type float32, expected uint8"),
        (torch.rand(3, 4, 4), "values of type float32, expected uint8"),
        (torch.zeros(5, 4, 3, dtype=torch.uint8), r"shape \(5, 4, 3\), expected \(H, W\) or \(C, H, W\)"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\), expected \(H, W\) or \(H, W, C\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        (Image.new("RGB", (0, 3)), "is empty: 0 x 3"),
        (Image.new("F", (2, 2), 0.5), "float32 values from 0.5 to 0.5, expected 8 or 16 bits"),
        (Image.new("I", (2, 2), -1), "int32 values from -1 to -1"),
    ],
)
def test_bad_images(images: object, message: str):
    with pytest.raises(ValueError, match=message):
        PerceiverIOImageProcessor(size=4)(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "size=.*at least 1 pixel"),
        ({"size": (1, 2, 3)}, "size=.*expected"),
        ({"size": {"shortest_edge": 3}}, "size=.*expected"),
        ({"num_channels": 2}, "num_channels=2"),
        ({"crop_fraction": 0.0}, "crop_fraction=0.0"),
        ({"crop_fraction": 1.1}, "crop_fraction=1.1"),
        ({"resample": 9}, "resample=9"),
        ({"image_mean": [0.5, 0.5]}, "image_mean=.*one number or 3"),
        ({"image_std": 0.0}, "image_std=0.0"),
        ({"do_flip": True}, r"unknown arguments \['do_flip'\]"),
    ],
)
def test_bad_options(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        PerceiverIOImageProcessor(**options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([1], "must be an object, got list"),
        ({"num_channels": [1]}, "Got num_channels="),
        ({"crop_fraction": "x"}, "Got crop_fraction='x', expected finite numbers"),
        ({"do_flip": True}, "unknown arguments"),
    ],
)
def test_damaged_settings(tmp_path: Path, settings: object, message: str):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        PerceiverIOImageProcessor.from_pretrained(tmp_path)


def test_it_is_a_processor_of_inputs(tmp_path: Path) -> None:
    """What `prepare` and `collate` give is what calling it gives."""
    assert PROCESSORS.get("image") is PerceiverIOImageProcessor
    processor = PerceiverIOImageProcessor(size=(8, 6))
    assert isinstance(processor, InputProcessor)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    expected = processor(RGB)["pixel_values"]
    for value in (RGB, Image.fromarray(RGB), tmp_path / "a.png", str(tmp_path / "a.png"), content):
        batch, mask = processor.collate([processor.prepare(value)])
        assert mask is None and torch.equal(batch, expected)
    batch, mask = processor.collate([None, processor.prepare({"path": None, "bytes": content})])
    assert mask is not None and mask.shape == (2, 8, 6) and not mask[0].any() and mask[1].all()
    assert torch.equal(batch[1:], expected)
    with pytest.raises(ValueError, match="is missing"):
        processor.prepare(str(tmp_path / "b.png"))
    with pytest.raises(ValueError, match="The image is not an image"):
        processor.prepare(None)


NO_NUMBERS = [
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    "0.5",
    [],
    {},
    None,
    True,
    [float("nan")] * 3,
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{value!r:.12}")
@pytest.mark.parametrize("name", ["crop_fraction", "rescale_factor", "image_mean", "image_std"])
def test_settings_that_are_no_numbers(name: str, value: Any) -> None:
    """As a stranger's preprocessor_config.json may have them: NaN made NaN of every image."""
    with pytest.raises(ValueError, match=f"Got {name}=") as error:
        PerceiverIOImageProcessor(**{name: value})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "size", [2**63, (8, 10**400), {"height": 1e9, "width": 8}, {"height": "8", "width": 8}, "88"]
)
def test_sizes_that_no_image_has(size: Any) -> None:
    with pytest.raises(ValueError, match="Got size=") as error:
        PerceiverIOImageProcessor(size=size)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["num_channels", "do_center_crop", "resample"])
@pytest.mark.parametrize("value", [[], {}, "x", 10**400, float("nan")], ids=lambda value: f"{value!r:.12}")
def test_choices_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Got {name}="):
        PerceiverIOImageProcessor(**{name: value})

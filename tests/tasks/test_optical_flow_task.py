"""`perceiver-io predict` with a flow model: on a real pair with its true flow, on a video, and on bad input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.cli import main
from perceiver_io.tasks.optical_flow import (
    OpticalFlowPipeline,
    PerceiverIOForOpticalFlow,
    config,
    flow_to_colours,
    read_flo,
    read_flow_png,
    write_flo,
    write_flow_png,
)
from perceiver_io.tasks.optical_flow.task import FlowPredictOptions, OpticalFlowTask

ENDINGS = {"flo": ".flo", "png": ".png", "colours": "-colours.png", "picture": "-picture.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    encoder = {"num_latents": 8, "latent_channels": 16, "num_self_attention_heads": 2}
    settings = config(variant="tiny", size=(48, 64), frames={"num_bands": 4}, encoder=encoder)
    PerceiverIOForOpticalFlow(settings).save_pretrained(path)
    return path


def save_frames(folder: Path, *names: str, size: tuple[int, int] = (30, 20)) -> list[str]:
    rng = np.random.default_rng(len(names))
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file)
    return [str(file) for file in files]


def predict(folder: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["predict", str(folder), *arguments, "--json"]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return results


def error_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.rstrip().splitlines()[-1].removeprefix("perceiver-io: error: ")


@pytest.fixture(scope="module")
def motorcycle(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str, np.ndarray]:
    """The Middlebury pair at a quarter of its size, its true flow as a file, and its disparity in pixels.

    What lies at x in the left image lies at x - disparity in the right one.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image is not installed")
    data, root = Path(spec.origin).parent / "data", tmp_path_factory.mktemp("motorcycle")
    files = []
    for side in ("left", "right"):
        with Image.open(data / f"motorcycle_{side}.png") as image:
            assert image.size == (741, 500)
            image.resize((185, 125)).save(root / f"{side}.png")
        files.append(str(root / f"{side}.png"))
    with np.load(data / "motorcycle_disp.npz") as archive:
        disparity = archive["arr_0"][2::4, 2::4][:, :185] / 4
    flow = torch.zeros(2, 125, 185)
    flow[0] = -torch.from_numpy(disparity)
    valid = torch.from_numpy(np.isfinite(disparity))
    write_flo(root / "truth.flo", flow, valid)
    write_flow_png(root / "truth.png", flow, valid)
    return files, str(root / "truth.flo"), disparity


def test_motorcycle_from_end_to_end(
    folder: Path,
    motorcycle: tuple[list[str], str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, truth, disparity = motorcycle
    output = tmp_path / "new" / "folder"
    arguments = [*files, "--ground-truth", truth, "--batch-size", "4", "-o", str(output)]
    (result,) = predict(folder, *arguments, capsys=capsys)
    assert result["frames"] == files
    assert (result["width"], result["height"]) == (185, 125)
    assert result["files"] == {kind: str(output / f"left-flow{ending}") for kind, ending in ENDINGS.items()}
    assert sorted(file.name for file in output.iterdir()) == sorted(
        f"left-flow{ending}" for ending in ENDINGS.values()
    )
    # The files hold what the pipeline gives, and the numbers are those of the files.
    model = PerceiverIOForOpticalFlow.from_pretrained(folder)
    expected = OpticalFlowPipeline(model)(*files)
    field = read_flo(result["files"]["flo"])
    assert field.valid.all()
    torch.testing.assert_close(field.flow, expected)
    rounded = read_flow_png(result["files"]["png"])
    assert rounded.valid.all() and (rounded.flow - field.flow).abs().max() <= 1 / 128
    with Image.open(result["files"]["colours"]) as colours:
        assert np.abs(np.asarray(colours).astype(int) - flow_to_colours(field.flow)).max() <= 1
    with Image.open(result["files"]["picture"]) as picture:
        assert picture.width > 3 * 160
    magnitude = field.flow.norm(dim=0)
    assert result["mean_magnitude"] == pytest.approx(magnitude.mean().item())
    assert result["max_magnitude"] == pytest.approx(magnitude.max().item())
    # The error by hand: against minus the disparity, where that is known.
    x, y = field.flow.double().numpy()
    known = np.isfinite(disparity)
    assert 0.9 < known.mean() < 0.95
    errors = np.hypot(x + np.where(known, disparity, 0), y)[known]
    assert result["end_point_error"] == pytest.approx(errors.mean())
    assert result["outliers"] == pytest.approx(
        ((errors > 3) & (errors > 0.05 * np.abs(disparity[known]))).mean()
    )
    # The other format of the true flow is rounded to 1/64 pixel.
    again = predict(folder, *files, "--ground-truth", truth.replace(".flo", ".png"), capsys=capsys)
    assert "files" not in again[0]
    assert again[0]["end_point_error"] == pytest.approx(result["end_point_error"], abs=1 / 128)


def test_a_line_for_people(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = save_frames(tmp_path, "a.png", "b.png")
    write_flo(tmp_path / "truth.flo", torch.full((2, 20, 30), 30.0))
    flags = ["--ground-truth", str(tmp_path / "truth.flo"), "-o", str(tmp_path)]
    assert main(["predict", str(folder), *files, *flags]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{files[0]} -> {files[1]}: 30x20 pixels; motion ")
    assert "; outliers" not in line and "outliers 100.0%" in line
    assert line.endswith(f"written to {tmp_path / 'a-flow'}*")


def test_consecutive_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = save_frames(tmp_path, "x/1.png", "x/2.png", "y/1.png", "y/2.png")
    results = predict(folder, *files, "-o", str(tmp_path / "out"), capsys=capsys)
    assert [result["frames"] for result in results] == [files[:2], files[1:3], files[2:]]
    names = [Path(result["files"]["flo"]).name for result in results]
    assert names == ["1-flow.flo", "2-flow.flo", "1-2-flow.flo"]
    flows = [read_flo(result["files"]["flo"]).flow for result in results]
    pipeline = OpticalFlowPipeline(PerceiverIOForOpticalFlow.from_pretrained(folder))
    torch.testing.assert_close(flows[1], pipeline(files[1], files[2]))


def test_a_true_flow_for_each_pair(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = save_frames(tmp_path, "a.png", "b.png", "c.png")
    truths = [str(tmp_path / "ab.flo"), str(tmp_path / "bc.png")]
    write_flo(truths[0], torch.full((2, 20, 30), 30.0))
    write_flow_png(truths[1], torch.full((2, 20, 30), -40.0))
    pipeline = OpticalFlowPipeline(PerceiverIOForOpticalFlow.from_pretrained(folder))
    results = predict(folder, *files, "--ground-truth", *truths, capsys=capsys)
    for result, frames, value in zip(results, (files[:2], files[1:]), (30.0, -40.0), strict=True):
        expected = np.hypot(*(pipeline(*frames).double().numpy() - value)).mean()
        assert result["end_point_error"] == pytest.approx(expected)


def test_colours_of_one_scale(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = save_frames(tmp_path, "a.png", "b.png")
    flags = ["-o", str(tmp_path), "--max-magnitude", "1000"]
    (result,) = predict(folder, *files, *flags, capsys=capsys)
    with Image.open(result["files"]["colours"]) as colours:
        assert np.asarray(colours).min() > 250  # nearly at rest, on this scale


def save_video(path: Path, num_frames: int) -> list[np.ndarray]:
    """Writes a video without loss, and returns its frames."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(num_frames)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 30, 20, "bgr0"
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0"))
            )
        container.mux(stream.encode(None))
    return frames


def test_frames_of_a_video(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(tmp_path / "v.mkv")
    frames = save_video(tmp_path / "v.mkv", 8)
    results = predict(folder, video, "--stride", "3", "-o", str(tmp_path / "out"), capsys=capsys)
    assert [result["frames"] for result in results] == [
        [f"{video}#0", f"{video}#3"],
        [f"{video}#3", f"{video}#6"],
    ]
    assert Path(results[1]["files"]["flo"]).name == "v-000003-flow.flo"
    pipeline = OpticalFlowPipeline(PerceiverIOForOpticalFlow.from_pretrained(folder))
    found = read_flo(results[1]["files"]["flo"]).flow
    torch.testing.assert_close(found, pipeline(frames[3], frames[6]))
    assert len(predict(folder, video, "--max-pairs", "2", capsys=capsys)) == 2
    assert "fewer than two frames at a stride of 8" in error_of(
        str(folder), video, "--stride", "8", capsys=capsys
    )


def test_flow_beyond_the_range_of_a_png(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = PerceiverIOForOpticalFlow.from_pretrained(folder)
    torch.nn.init.constant_(model.perceiver.decoders["flow"].output.bias, 600.0)
    model.save_pretrained(tmp_path / "far")
    files = save_frames(tmp_path, "a.png", "b.png")
    (result,) = predict(tmp_path / "far", *files, "-o", str(tmp_path), capsys=capsys)
    assert "600 pixels move further" in caplog.text
    assert read_flo(result["files"]["flo"]).flow.min() > 512
    assert not read_flow_png(result["files"]["png"]).valid.any()


def test_inputs_are_never_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = save_frames(tmp_path, "a.png", "b.png", "a-flow.png")
    before = {file: Path(file).read_bytes() for file in files}
    message = error_of(str(folder), *files, "-o", str(tmp_path), capsys=capsys)
    assert "a-flow.png is an input, and would be overwritten" in message and "output folder" in message
    assert {file: Path(file).read_bytes() for file in files} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a-flow.png", "a.png", "b.png"]
    # Of a later pair as well, before the first is computed; and a true flow is an input too.
    message = error_of(str(folder), files[1], files[0], files[2], "-o", str(tmp_path), capsys=capsys)
    assert "would be overwritten" in message
    truth = tmp_path / "b-flow.flo"
    write_flo(truth, torch.zeros(2, 20, 30))
    arguments = [files[1], files[0], "--ground-truth", str(truth), "-o", str(tmp_path)]
    assert "b-flow.flo is an input" in error_of(str(folder), *arguments, capsys=capsys)
    assert len(list(tmp_path.iterdir())) == 4


def test_bad_input_is_found_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save_frames(tmp_path, "a.png", "b.png")
    (other,) = save_frames(tmp_path, "other.png", size=(31, 20))
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "cut.png").write_bytes(Path(a).read_bytes()[:100])
    write_flo(tmp_path / "small.flo", torch.zeros(2, 5, 5))
    (tmp_path / "bad.flo").write_bytes(b"PIEHxx")
    out = ["-o", str(tmp_path / "out")]
    for arguments, message in (
        ([a, b, other], "other.png has 31x20"),
        ([a, b, str(tmp_path / "text.png")], "text.png is not an image"),
        ([a, b, str(tmp_path / "cut.png")], "cut.png is damaged"),
        ([a, b, str(tmp_path / "missing.png")], "missing.png is missing"),
        ([a, b, "--ground-truth", str(tmp_path / "small.flo")], "the true flow of"),
        ([a, b, "--ground-truth", str(tmp_path / "bad.flo")], "less than a header"),
        (
            [a, b, b, "--ground-truth", str(tmp_path / "small.flo")],
            "3 images are 2 pairs, but ground_truth has 1 files",
        ),
        (
            [a, b, b, "--ground-truth", str(tmp_path / "small.flo"), "--ground-truth", "x"],
            "is given 2 times: give all values after one",
        ),
        ([a, b, "--batch-size", "0"], "batch_size is 0, expected 1 or more"),
        ([a, b, "--min-overlap", "48"], "got min_overlap=48"),
        ([a, b, "--max-magnitude", "0"], "max_magnitude is 0.0, expected a number above zero"),
        ([a, b, "--stride", "0"], "stride is 0, expected 1 or more"),
        ([a, b, "--max-pairs", "0"], "max_pairs is 0, expected 1 or more"),
        ([str(tmp_path / "text.png")], "text.png"),
        ([str(tmp_path / "bad.flo")], "cannot be decoded"),
        ([str(tmp_path / "missing.mp4")], "missing.mp4 is missing"),
        ([a, "--ground-truth", str(tmp_path / "small.flo")], "not for a video"),
        ([a], "fewer than two frames at a stride of 1. Pass two images"),
    ):
        assert message in error_of(str(folder), *arguments, *out, capsys=capsys), arguments
        assert not (tmp_path / "out").exists()


def test_a_model_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from perceiver_io.tasks import image_classification as ic

    settings = ic.config(variant="tiny", size=(8, 8), num_classes=2, encoder={"num_latents": 2})
    ic.PerceiverIOForImageClassification(settings).save_pretrained(tmp_path / "model")
    files = save_frames(tmp_path, "a.png", "b.png")
    message = error_of(str(tmp_path / "model"), *files, "--task", "optical-flow", capsys=capsys)
    assert "is a PerceiverIOForImageClassification, expected a PerceiverIOForOpticalFlow" in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "expected 1 or more"),
        ("min_overlap", -1, "expected 0 or more"),
        ("stride", 0, "expected 1 or more"),
        ("max_pairs", 0, "expected 1 or more"),
        ("max_magnitude", -2.0, "expected a number above zero"),
        ("max_magnitude", float("nan"), "expected a number above zero"),
        ("max_magnitude", float("inf"), "expected a number above zero"),
    ],
)
def test_options_out_of_range(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, {message}"):
        FlowPredictOptions(**{name: value})  # type: ignore[arg-type]
    FlowPredictOptions(min_overlap=0, max_magnitude=0.1, max_pairs=1)


@pytest.mark.parametrize("size", [(64, 48), (30, 20)])
def test_attention_is_drawn_over_the_first_frame(
    folder: Path, size: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = save_frames(tmp_path, "a.png", "b.png", size=size)
    task = OpticalFlowTask()
    view = task.attention_view(task.load(folder, device="cpu"), files)
    with Image.open(files[0]) as first, Image.open(files[1]) as second:
        pixels = np.stack([np.asarray(first), np.asarray(second)])
    np.testing.assert_array_equal(view.seen["frames"].pixels, pixels[0])
    model = PerceiverIOForOpticalFlow.from_pretrained(folder).eval()
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)[None].double().div(127.5).sub(1).float()
    expected = model.perceiver.attention_maps({"frames": frames})
    assert len(view.maps) == len(expected) == 1
    weights = view.maps[0].weights["frames"]
    assert weights.shape[0] == 1 and weights.shape[2:] == (8, size[1], size[0])
    torch.testing.assert_close(weights, expected[0].weights["frames"])
    assert main(["attention", str(folder), *files, "-o", str(tmp_path / "x.png"), "--latents", "0,7"]) == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 300
    capsys.readouterr()


def test_attention_takes_two_images_of_one_size(folder: Path, tmp_path: Path) -> None:
    task = OpticalFlowTask()
    loaded = task.load(folder, device="cpu")
    files = save_frames(tmp_path, "a.png", "b.png") + save_frames(tmp_path, "c.png", size=(31, 20))
    for inputs in (files[:1], files):
        with pytest.raises(ValueError, match=f"two images, got {len(inputs)} files"):
            task.attention_view(loaded, inputs)
    with pytest.raises(ValueError, match="one size, got 30x20 and 31x20"):
        task.attention_view(loaded, files[1:])


def test_help_has_the_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(folder), "--help"]) == 0
    text = capsys.readouterr().out
    for flag in (
        "--ground-truth",
        "--batch-size",
        "--min-overlap",
        "--max-magnitude",
        "--stride",
        "--max-pairs",
    ):
        assert flag in text
    assert OpticalFlowTask.input_metavar in text

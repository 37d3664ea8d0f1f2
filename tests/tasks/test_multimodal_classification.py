"""Multimodal classification: what a sample lacks, which inputs there are, data of one's own, predictions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from two_processes import in_two_processes

from perceiver_io.cli.main import main
from perceiver_io.data import Splits
from perceiver_io.media.sound import Sound, write_wav
from perceiver_io.running import RunFolder
from perceiver_io.running.building import build
from perceiver_io.running.runner import attention, evaluate, predict, train
from perceiver_io.tasks import multimodal_classification as mm
from perceiver_io.tasks.modalities.image import IMAGE, ImageSettings
from perceiver_io.tasks.multimodal_classification.data import seen_and_heard
from perceiver_io.tasks.multimodal_classification.presets import INPUTS
from perceiver_io.tasks.multimodal_classification.task import MultimodalClassificationTask

TASK = MultimodalClassificationTask()
TINY = {
    "max_steps": 2,
    "batch_size": 4,
    "device": "cpu",
    "report_to": "none",
    "evaluate_every": 1,
    "model": {"encoder": {"num_latents": 4, "latent_channels": 16}},
}
# A value of each input, by the number of a class.
VALUES = {
    "image": lambda index: np.full((8, 8), 20 * index, dtype=np.uint8),
    "audio": lambda index: Sound(np.sin(np.arange(700) * (0.1 + index))[None].astype(np.float32), 4000),
    "video": lambda index: np.full((3 + index, 8, 8, 3), 40 * index, dtype=np.uint8),
    "text": lambda index: f"sample {index}, " * (1 + index),
    "cloud": lambda index: np.random.default_rng(index).normal(size=(5 + 3 * index, 3)).astype(np.float32),
}


def write_pair(folder: Path, index: int, *, picture: bool = True, sound: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if picture:
        Image.fromarray(VALUES["image"](index)).save(folder / f"{index}.png")
    if sound:
        write_wav(folder / f"{index}.wav", 0.3 * VALUES["audio"](index).samples[0], sample_rate=4000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 12 samples a class one has no picture, one no sound."""
    root = tmp_path_factory.mktemp("pairs")
    for name in ("cat", "dog"):
        for index in range(12):
            write_pair(root / name, index, picture=index != 3, sound=index != 5)
    return root


def recipe(folder: Path | str, tmp_path: Path, **changes: Any) -> Any:
    values = {**TINY, "dataset": str(folder), "output_dir": str(tmp_path / "run")} | changes
    return TASK.recipe_class(**values)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    train(TASK, recipe(folder, root))
    return root / "run"


def test_the_embedded_set_is_the_same_each_time() -> None:
    one, other = seen_and_heard(), seen_and_heard()
    assert len(one.rows) == 1797
    for a, b in zip(one.rows[:50], other.rows[:50], strict=True):
        assert np.array_equal(a["image"], b["image"]) and np.array_equal(
            a["audio"].samples, b["audio"].samples
        )


def test_a_sample_that_lacks_an_input_is_as_one_that_never_had_it(folder: Path, tmp_path: Path) -> None:
    settings = recipe(folder, tmp_path)
    setup = build(TASK, settings, TASK.data(settings))
    setup.model.eval()
    rows = [
        {"image": VALUES["image"](1), "audio": VALUES["audio"](1)},
        {"image": VALUES["image"](2)},
        {"image": None, "audio": VALUES["audio"](3)},
    ]
    batch = TASK.collate(rows, setup.processor)
    assert not batch["masks"]["image"][2].any() and not batch["masks"]["audio"][1].any()
    with torch.inference_mode():
        together = setup.model(**batch).logits
        alone = [TASK.collate([row], setup.processor) for row in rows]
        assert "audio" not in alone[1]["inputs"]
        torch.testing.assert_close(
            together, torch.cat([setup.model(**one).logits for one in alone]), atol=1e-5, rtol=0
        )


def test_trains_on_batches_that_lack_an_input_altogether(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(12):
            write_pair(tmp_path / "some" / name, index, sound=index < 2)
    results = train(TASK, recipe(tmp_path / "some", tmp_path, max_steps=6, batch_size=2))
    assert np.isfinite(results["test_loss"])


@pytest.mark.slow
def test_two_processes_of_which_one_may_have_no_sounds(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(12):
            write_pair(tmp_path / "some" / name, index, sound=index < 3)
    arguments = ["train", "multimodal-classification", "--dataset", str(tmp_path / "some")]
    arguments += ["--output-dir", str(tmp_path / "run"), "--device", "cpu", "--report-to", "none"]
    arguments += [
        "--max-steps",
        "4",
        "--evaluate-every",
        "4",
        "--batch-size",
        "1",
        "--num-threads",
        "1",
        "--model.encoder.num-latents",
        "4",
    ]
    in_two_processes(["-m", "perceiver_io.cli"], arguments)
    assert RunFolder(tmp_path / "run").is_complete


@pytest.mark.parametrize(
    "names", [*((name,) for name in INPUTS.modalities), *itertools.combinations(INPUTS.modalities, 2)]
)
def test_saves_and_loads_any_inputs(names: tuple[str, ...], tmp_path: Path) -> None:
    rows = [{**{name: VALUES[name](index) for name in names}, "label": index} for index in (0, 1)]
    settings = TASK.recipe_class(inputs=list(names), dataset="none", **TINY)
    data = _splits(rows)
    setup = build(TASK, settings, data)
    setup.model.save_pretrained(tmp_path)
    setup.processor.save_pretrained(tmp_path)
    loaded = TASK.load(tmp_path, device="cpu")
    assert loaded.processor.names == list(names)
    with torch.inference_mode():
        mine = setup.model.eval()(**TASK.collate(rows, setup.processor)).logits
        theirs = loaded.model(**TASK.collate(rows, loaded.processor)).logits
    assert torch.equal(mine, theirs)


def _splits(rows: list[dict[str, Any]]) -> Splits:
    return Splits(train=rows, validation=rows, test=rows, class_names=("a", "b"))


def test_one_input_of_the_embedded_set_is_read_alone() -> None:
    data = TASK.data(TASK.recipe_class(dataset="seen-and-heard", inputs=["image"]))
    assert set(data.train[0]) == {"image", "label"}


def test_evaluates_with_some_of_the_inputs(run: Path) -> None:
    both = evaluate(TASK, run)
    settings = {name: value for name, value in RunFolder(run).recipe().items() if name != "task"}
    alone = evaluate(TASK, run, recipe=TASK.recipe_class(**{**settings, "inputs": ["image"]}))
    assert both["test_loss"] != alone["test_loss"]


def test_predicts_what_is_there(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, sound = folder / "cat" / "7.png", folder / "cat" / "7.wav"
    found = predict(TASK, run, [f"image={picture},audio={sound}", f"audio={sound}", f"image={picture}"])
    probabilities = [one["labels"][0]["probability"] for one in found]
    assert len(set(probabilities)) == 3
    for bad, message in (
        (str(picture), "which file is which input"),
        (f"image={picture},image={picture}", "once"),
        (f"audio={picture}", "7.png"),
        (f"image={folder / 'none.png'}", "none.png"),
    ):
        assert main(["predict", str(run), bad]) == 2
        assert message in capsys.readouterr().err


def test_an_input_that_the_model_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    train(TASK, recipe(folder, tmp_path, inputs=["image"], skip_bad_files=True))
    with pytest.raises(ValueError, match=r"inputs \['audio'\], which the model does not"):
        predict(TASK, tmp_path / "run", [f"audio={folder / 'cat' / '7.wav'}"])
    (found,) = predict(TASK, tmp_path / "run", [f"image={folder / 'cat' / '7.png'}"])
    assert len(found["labels"]) == 2


def test_draws_what_is_there(run: Path, folder: Path, tmp_path: Path) -> None:
    picture, sound = folder / "cat" / "7.png", folder / "cat" / "7.wav"
    attention(TASK, run, [f"image={picture},audio={sound}"], tmp_path / "both.png")
    attention(TASK, run, [f"audio={sound}"], tmp_path / "one.png")
    heights = []
    for name in ("both.png", "one.png"):
        with Image.open(tmp_path / name) as drawn:
            heights.append(drawn.height)
    assert heights[0] > heights[1]


def test_tables_have_a_column_for_each_input(folder: Path, tmp_path: Path) -> None:
    def files(suffix: str) -> list[Any]:
        found = [folder / name / f"{index}{suffix}" for name in ("cat", "dog") for index in range(6, 12)]
        return [{"bytes": file.read_bytes(), "path": None} for file in found]

    table = datasets.Dataset.from_dict(
        {"image": files(".png"), "audio": files(".wav"), "label": ["cat"] * 6 + ["dog"] * 6}
    )
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    settings = recipe(tmp_path / "table", tmp_path, validation_fraction=0.2, test_fraction=0.2)
    data = TASK.data(settings)
    setup = build(TASK, settings, data)
    batch = TASK.collate([data.train[0], data.train[1]], setup.processor)
    assert batch["inputs"]["image"].shape == (2, 1, 8, 8) and batch["inputs"]["audio"].shape[0] == 2
    with pytest.raises(ValueError, match="no column 'video'"):
        TASK.data(recipe(tmp_path / "table", tmp_path, inputs=["image", "video"]))


def test_files_that_are_called_alike_twice(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(6):
            write_pair(tmp_path / "some" / name, index)
    Image.new("L", (8, 8)).save(tmp_path / "some" / "cat" / "1.bmp")
    with pytest.raises(ValueError, match="several images that are called '1'"):
        TASK.data(recipe(tmp_path / "some", tmp_path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": []}, "expected one or more"),
        ({"inputs": ["image", "image"]}, "each once"),
        ({"inputs": ["smell"]}, "no inputs.*smell.*Known: image, audio, video, text, cloud"),
        ({"input_dropout": 1.0}, "input_dropout"),
        ({"image": {"size": [30, 30]}}, "section image: .*multiples"),
        ({"image": {"num_channels": 2}}, "section image: .*num_channels"),
        ({"image": {"rotation": 200}}, "section image: .*rotation"),
        ({"audio": {"speed": 2}}, "section audio: .*speed"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASK.recipe_class(**values)


def test_pictures_have_the_size_of_the_first_one() -> None:
    for shape, size, channels, patch in (
        ((8, 8), (8, 8), 1, 1),
        ((100, 200, 3), (32, 64), 3, 4),
        ((33, 33), (32, 32), 1, 4),
    ):
        picture = np.zeros(shape, dtype=np.uint8)
        processor = IMAGE.processor(ImageSettings(), [picture])
        adapter = IMAGE.adapter(ImageSettings(), processor)
        assert (processor.size["height"], processor.size["width"], processor.num_channels) == (
            *size,
            channels,
        )
        assert adapter.patch_size == patch  # type: ignore[attr-defined]
        assert IMAGE.varied(picture, processor, ImageSettings()).shape == (channels, *size)


def test_presets() -> None:
    config = mm.config(inputs=["audio", "image"], class_names=["a", "b"], variant="tiny", input_dropout=0.3)
    assert config.packing.input_dropout == (("audio", 0.3), ("image", 0.3))
    model = mm.PerceiverIOForClassification(config).eval()
    assert model({"image": torch.randn(2, 3, 64, 64)}).logits.shape == (2, 2)
    alone = mm.config(inputs=["audio"], variant="tiny", input_dropout=0.3)
    assert alone.packing is None or not alone.packing.input_dropout

"""The multimodal autoencoder: its losses by hand, subsets of points, missing inputs, one encoding for everything."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import perceiver_io as pio
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.tasks import multimodal_autoencoding as mm
from perceiver_io.tasks.dense.output_losses import output_loss, query_values

FRAMES, SIDE, SAMPLES, CLASSES = 4, 16, 320, 10
QUERIES = {"audio": SAMPLES // 16, "image": FRAMES * SIDE * SIDE, "label": 1}
Model = mm.PerceiverIOForMultimodalAutoencoding


def tiny_config(**changes: Any) -> pio.PerceiverIOConfig:
    return mm.config(**{"variant": "tiny", "size": (FRAMES, SIDE, SIDE), "num_samples": SAMPLES, **changes})


def batch(size: int = 2) -> dict[str, Tensor]:
    return {
        "image": torch.rand(size, FRAMES, 3, SIDE, SIDE),
        "audio": torch.rand(size, SAMPLES) * 2 - 1,
        "label": torch.arange(size) % CLASSES,
    }


@pytest.fixture
def model() -> Model:
    return Model(tiny_config()).eval()


def test_published_preset_has_the_published_size() -> None:
    with torch.device("meta"):
        published = Model(mm.config())
    assert published.num_parameters() == 19_858_855
    assert published.perceiver.packer.num_channels == 704
    shapes = {name: tuple(tensor.shape) for name, tensor in published.perceiver.state_dict().items()}
    assert shapes["encoder.latents.weight"] == (784, 512)
    assert shapes["shared_attention.padding.label.weight"] == (1, 2)  # 1,024 of 1,026 channels are the query
    assert shapes["shared_attention.output.weight"] == (512, 1026)
    assert [shapes[f"decoders.{name}.output.weight"][0] for name in ("image", "audio", "label")] == [
        3,
        16,
        700,
    ]


@pytest.mark.parametrize("variant", mm.VARIANTS)
def test_presets_are_written_and_read_as_json(variant: str) -> None:
    config = mm.config(variant=variant)
    assert pio.PerceiverIOConfig.from_dict(config.to_dict()) == config


def test_documented_sizes_are_right() -> None:
    page = Path(__file__).parents[2] / "docs" / "multimodal-autoencoding.md"
    if not page.is_file():
        pytest.skip("docs/ is not beside tests/")
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    with torch.device("meta"):
        counts = {variant: Model(mm.config(variant=variant)).num_parameters() for variant in mm.VARIANTS}
    assert {variant: int(number.replace(",", "")) for variant, number in rows} == counts


def test_preset_follows_what_is_asked_for() -> None:
    config = mm.config(
        size=(8, 64, 96), num_samples=15360, class_names=["cat", "dog"], encoder={"num_latents": 7}
    )
    image, audio, label = (config.outputs[name] for name in ("image", "audio", "label"))
    assert isinstance(image, DenseDecoder.Config) and isinstance(audio, DenseDecoder.Config)
    assert (image.grid, image.max_resolution) == ((8, 64, 96), (8, 16, 24))
    assert (audio.grid, audio.max_resolution) == ((960,), (15360,))
    assert config.inputs["label"].num_classes == label.num_classes == 2  # type: ignore[attr-defined]
    assert config.encoder.num_latents == 7 and config.id2label == {0: "cat", 1: "dog"}


def test_bad_presets() -> None:
    with pytest.raises(ValueError, match=r"no variant 'huge'.*tiny, small, kinetics"):
        mm.config(variant="huge")
    with pytest.raises(ValueError, match="num_classes is 3, but class_names has 2"):
        mm.config(num_classes=3, class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="must differ"):
        mm.config(class_names=["cat", "cat"])
    with pytest.raises(ValueError, match="unknown keys"):
        mm.config(image={"patches": 3})
    with pytest.raises(ValueError, match="16x30x30 frames, rows and columns cannot be cut"):
        mm.config(size=(16, 30, 30))


def test_loss_is_the_weighted_sum(model: Model) -> None:
    inputs = batch()
    out = model(**inputs)
    expected = {
        "image": (out.reconstruction["image"] - inputs["image"]).abs().mean(),
        "audio": (out.reconstruction["audio"] - inputs["audio"]).abs().mean(),
        "label": -out.reconstruction["label"].log_softmax(-1)[[0, 1], inputs["label"]].mean(),
    }
    assert out.losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(out.losses[name], loss)
    total = 0.03 * expected["image"] + expected["audio"] + 0.0001 * expected["label"]
    torch.testing.assert_close(out.loss, total)
    model.loss_weights["label"] = 2.0
    torch.testing.assert_close(model(**inputs).loss, total + 1.9999 * expected["label"])


def test_loss_at_points_is_that_of_the_targets_there(model: Model) -> None:
    inputs = batch()
    whole = model(**inputs).reconstruction
    flat = torch.tensor([5, 700, 5, 1023])
    frame, row, column = torch.unravel_index(flat, (FRAMES, SIDE, SIDE))
    along_axes = torch.stack([frame, row, column], dim=1)
    patches = torch.tensor([3, 0, 19])
    expected_image = (whole["image"] - inputs["image"]).abs()[:, frame, :, row, column].mean()
    expected_audio = (whole["audio"] - inputs["audio"]).abs().reshape(2, 20, 16)[:, patches].mean()
    for image_points in (flat, along_axes):
        out = model(**inputs, points={"image": image_points, "audio": patches, "label": None})
        torch.testing.assert_close(out.losses["image"], expected_image)
        torch.testing.assert_close(out.losses["audio"], expected_audio)
        assert out.reconstruction["image"].shape == (2, 4, 3)
        assert out.reconstruction["audio"].shape == (2, 3, 16)
    assert model(**inputs, points={"audio": patches}).losses.keys() == {"audio"}


def test_the_loss_at_points_of_each_sample(model: Model) -> None:
    inputs = batch()
    whole = model(**inputs).reconstruction
    flat = torch.tensor([[5, 700, 1023, 5], [0, 6, 512, 99]])
    frame, row, column = torch.unravel_index(flat, (FRAMES, SIDE, SIDE))
    samples = torch.arange(2)[:, None]
    patches = torch.tensor([[3, 0, 19], [7, 7, 1]])
    expected_image = (whole["image"] - inputs["image"]).abs()[samples, frame, :, row, column].mean()
    expected_audio = (whole["audio"] - inputs["audio"]).abs().reshape(2, 20, 16)[samples, patches].mean()
    for image_points in (flat, torch.stack([frame, row, column], dim=-1)):
        out = model(**inputs, points={"image": image_points, "audio": patches, "label": None})
        torch.testing.assert_close(out.losses["image"], expected_image)
        torch.testing.assert_close(out.losses["audio"], expected_audio)
        assert out.reconstruction["image"].shape == (2, 4, 3)
        assert out.reconstruction["audio"].shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("grid", "patch", "place", "channels"),
    [
        ((4, 6), None, 0, 3),
        ((4, 6), (2, 3), 0, 2),
        ((2, 3, 4), (1, 2, 2), 1, 3),
        ((2, 3, 4), None, -1, 3),
        ((5,), (4,), None, 1),
    ],
)
def test_query_values_undo_what_the_decoder_does(
    grid: tuple[int, ...], patch: tuple[int, ...] | None, place: int | None, channels: int
) -> None:
    config = DenseDecoder.Config(
        output_channels=channels, grid=grid, patch_size=patch, channel_axis=place, num_bands=2
    )
    decoder = DenseDecoder(config, pio.DecoderParts(latent_channels=8))
    encoded = pio.Encoded(latents=torch.randn(2, 3, 8), byte_arrays={})
    indices = torch.arange(math.prod(grid))
    from perceiver_io.points import Points

    at_all = decoder(encoded, pio.DecoderRequest(points=Points.parse(indices, grid, name="x")))
    values = query_values("x", decoder(encoded), config)
    assert values.shape[1:-1] == grid
    torch.testing.assert_close(values.flatten(1, -2), at_all)


def test_masked_parts_change_nothing_and_do_not_count(model: Model) -> None:
    inputs = batch()
    masks = {
        "image": torch.ones(2, FRAMES, SIDE, SIDE, dtype=torch.bool),
        "audio": torch.ones(2, SAMPLES, dtype=torch.bool),
        "label": torch.tensor([True, False]),
    }
    masks["image"][:, 2:] = False
    masks["audio"][:, 160:] = False
    other = {name: x.clone() for name, x in inputs.items()}
    other["image"][:, 2:] = 0.5
    other["audio"][:, 160:] = 0.5
    other["label"][1] = 7
    out, same = model(**inputs, masks=masks), model(**other, masks=masks)
    for name, loss in out.losses.items():
        torch.testing.assert_close(same.losses[name], loss)
    whole = out.reconstruction
    expected = (whole["image"] - inputs["image"])[:, :2].abs().mean()
    torch.testing.assert_close(out.losses["image"], expected)
    torch.testing.assert_close(out.losses["audio"], (whole["audio"] - inputs["audio"])[:, :160].abs().mean())
    torch.testing.assert_close(out.losses["label"], -whole["label"].log_softmax(-1)[0, 0])
    # At points too: one real pixel, one that is not.
    points = {"image": torch.tensor([0, FRAMES * SIDE * SIDE - 1])}
    real = (whole["image"] - inputs["image"])[:, 0, :, 0, 0].abs().mean()
    torch.testing.assert_close(model(**inputs, masks=masks, points=points).losses["image"], real)


def test_nothing_real_gives_a_loss_of_zero(model: Model) -> None:
    masks = {"label": torch.tensor([False, False])}
    assert model(**batch(), masks=masks).losses["label"] == 0


def test_label_is_never_shown_to_the_encoder(model: Model) -> None:
    """Whatever the label is, and whether it is there, the model sees its mask token."""
    inputs = batch()
    expected = model(**inputs).reconstruction
    zeros, other = torch.zeros(2, CLASSES), torch.tensor([9, 9])
    for label in (zeros, other, None):
        found = model(**{**inputs, "label": label}).reconstruction
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("present", [("image",), ("audio",), ("image", "audio"), ("audio", "label")])
def test_inputs_may_be_missing(model: Model, present: tuple[str, ...]) -> None:
    inputs = {name: x for name, x in batch().items() if name in present}
    out = model(**inputs)
    assert out.losses.keys() == set(present)
    assert {name: tuple(x.shape) for name, x in out.reconstruction.items()} == {
        "image": (2, FRAMES, 3, SIDE, SIDE),
        "audio": (2, SAMPLES),
        "label": (2, CLASSES),
    }


def test_targets_may_be_others(model: Model) -> None:
    """The sound is put in, frames are asked for."""
    inputs = batch()
    out = model(audio=inputs["audio"], targets={"image": inputs["image"]}, outputs=["image"])
    expected = (out.reconstruction["image"] - inputs["image"]).abs().mean()
    torch.testing.assert_close(out.loss, 0.03 * expected)


def test_no_loss_without_targets_or_if_not_asked_for(model: Model) -> None:
    inputs = batch()
    assert model(image=inputs["image"], outputs=["audio"]).loss is None
    out = model(**inputs, return_loss=False)
    assert out.loss is None and out.losses is None


def test_reconstruction_is_one_encoding_in_chunks(model: Model) -> None:
    inputs = batch()
    whole = model(**inputs).reconstruction
    encodings: list[int] = []
    decoded: list[int] = []
    handle = model.perceiver.encoder.register_forward_hook(lambda *_: encodings.append(1))
    found = model.reconstruct(**inputs, chunk_size=300, on_decoded=decoded.append)
    handle.remove()
    assert encodings == [1]
    assert sum(decoded) == QUERIES["image"] + QUERIES["audio"] and max(decoded) == 300
    for name, output in whole.items():
        torch.testing.assert_close(found[name], output)
    count = len(decoded)
    model.reconstruct(**inputs, memory_budget=50_000)
    assert len(decoded) == count  # the callback is gone


def test_reconstruction_at_other_resolutions_and_coordinates(model: Model) -> None:
    inputs = batch()
    finer = model.reconstruct(**inputs, grids={"image": (8, 32, 48), "audio": (40,)})
    assert finer["image"].shape == (2, 8, 3, 32, 48) and finer["audio"].shape == (2, 640)
    # Coordinates are steps of 2 / n, so that every second one of the finer grid is one of the nominal grid.
    whole = model.reconstruct(**inputs)
    torch.testing.assert_close(finer["image"][:, ::2, :, ::2, ::3], whole["image"], rtol=1e-4, atol=1e-5)
    coordinates = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.5, -0.5]])
    at = model.reconstruct(**inputs, points={"image": coordinates})["image"]
    torch.testing.assert_close(at, whole["image"][:, [0, 2], :, [0, 12], [0, 4]].transpose(0, 1))


def test_reconstruction_is_as_in_evaluation(model: Model) -> None:
    noisy = Model(tiny_config(encoder={"dropout": 0.5}, packing={"mask_probabilities": (("image", 0.5),)}))
    noisy.train()
    inputs = batch()
    first, second = noisy.reconstruct(**inputs), noisy.reconstruct(**inputs)
    assert noisy.training and not first["image"].requires_grad
    torch.testing.assert_close(first["image"], second["image"], rtol=0, atol=0)


def test_inputs_of_another_resolution(model: Model) -> None:
    inputs = batch()
    image = torch.rand(2, 6, 3, 24, 20)
    assert model.reconstruct(image=image)["image"].shape == (2, FRAMES, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match="another resolution"):
        model(image=image)
    with pytest.raises(ValueError, match=r"points count in \(4, 16, 16\)"):
        model(image=image, points={"image": torch.tensor([0])})
    assert model(image=image, audio=inputs["audio"], outputs=["audio"]).loss is not None


def test_training_on_random_points_lowers_the_loss() -> None:
    model = Model(tiny_config()).train()
    model.loss_weights = {"image": 1.0, "audio": 1.0, "label": 0.1}
    inputs = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with torch.no_grad():
        before = model(**inputs)
    for _ in range(40):
        points = {
            "image": torch.randint(QUERIES["image"], (64,)),
            "audio": torch.randint(QUERIES["audio"], (8,)),
            "label": None,
        }
        loss = model(**inputs, points=points).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = model(**inputs)
    assert after.losses["image"] < 0.5 * before.losses["image"]
    assert after.losses["audio"] < 0.9 * before.losses["audio"]
    assert after.losses["label"] < 0.5 * before.losses["label"]


def test_every_parameter_learns(model: Model) -> None:
    model.train()
    inputs = batch()
    points = {"image": torch.arange(50), "audio": torch.arange(3), "label": None}
    model(**inputs, points=points).loss.backward()
    # The published packing holds tokens that a probability of 0 never shows.
    unused = {"perceiver.packer.mask_tokens.audio.weight", "perceiver.packer.mask_tokens.image.weight"}
    # The label is always masked: nothing of the label itself is seen.
    unused |= {"perceiver.packer.padding.label.weight"}
    # The same number on all keys changes no softmax.
    unused |= {name for name, _ in model.named_parameters() if name.endswith("attention.key.bias")}
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without <= unused


def with_depth() -> pio.PerceiverIOConfig:
    """A fourth modality: a depth map, in and out, with an attention of its own."""
    base = tiny_config()
    return pio.PerceiverIOConfig(
        inputs={**base.inputs, "depth": ImageAdapter.Config(size=(8, 8), image_channels=1, num_bands=4)},
        encoder=base.encoder,
        outputs={**base.outputs, "depth": DenseDecoder.Config(output_channels=1, grid=(8, 8), num_bands=4)},
        packing=base.packing,
        shared_attention=base.shared_attention,
    )


def test_another_modality(tmp_path: Path) -> None:
    model = Model(with_depth()).eval()
    inputs, depth = batch(), torch.rand(2, 1, 8, 8)
    out = model(**inputs, others={"depth": depth})
    torch.testing.assert_close(out.losses["depth"], (out.reconstruction["depth"] - depth).abs().mean())
    assert model.loss_weights["depth"] == 1.0
    model.save_pretrained(tmp_path)
    again = pio.from_pretrained(tmp_path).eval()
    assert isinstance(again, Model)
    torch.testing.assert_close(again(**inputs, others={"depth": depth}).loss, out.loss, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"\['image'\] are given twice"):
        model(**inputs, others={"image": inputs["image"]})
    with pytest.raises(ValueError, match="no inputs"):
        model(**inputs, others={"heat": depth})


def test_models_that_are_no_autoencoders() -> None:
    base = tiny_config()
    with pytest.raises(ValueError, match="output with the name of an input"):
        Model(
            pio.PerceiverIOConfig(
                inputs={"picture": ImageAdapter.Config(size=(8, 8))},
                encoder=base.encoder,
                outputs={"label": base.outputs["label"]},
            )
        )
    named = tiny_config(class_names=list("abcdefghij"))
    named.id2label = {0: "a", 1: "b"}
    with pytest.raises(ValueError, match="names 2 classes in id2label"):
        Model(named)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": torch.zeros(2, 321)}, "multiple"),
        ({"image": torch.zeros(2, FRAMES, 3, SIDE, 18)}, "multiple"),
        ({"image": torch.zeros(2, FRAMES, SIDE, SIDE, 3)}, "Channels come after the frames"),
        ({"label": torch.tensor([0, 10])}, "0 to 9"),
        ({"points": {"image": torch.tensor([4096])}}, "indices from 0"),
        ({"points": {"audio": torch.tensor([-1])}}, "indices from 0"),
        ({"points": {"image": torch.zeros(3, 3)}}, "return_loss=False"),
        ({"points": {"label": torch.tensor([0])}}, "no points"),
        ({"points": {"smell": torch.tensor([0])}}, "no outputs"),
        ({"outputs": ["smell"]}, "no outputs"),
        ({"targets": {"smell": torch.zeros(2)}}, "targets for"),
        ({"targets": {"audio": torch.zeros(2, 3)}}, r"must be \(2, 320\)"),
        ({"targets": {"label": torch.tensor([0, -1])}}, "classes 0 to 9"),
        ({"targets": {"label": torch.zeros(2, 3)}}, "class probabilities"),
        ({"masks": {"audio": torch.ones(2, 3, dtype=torch.bool)}}, "mask"),
    ],
)
def test_bad_input(model: Model, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**{**batch(), **changes})
    with pytest.raises(ValueError, match="At least one"):
        model()


def test_masks_of_targets_are_checked() -> None:
    config = tiny_config().outputs
    prediction = torch.zeros(2, SAMPLES)
    with pytest.raises(ValueError, match=r"mask of the output 'audio' must be \(2, 320\)"):
        output_loss("audio", prediction, prediction, config["audio"], mask=torch.ones(2, 5, dtype=torch.bool))
    frames = torch.zeros(2, FRAMES, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match=r"must be \(2, 4, 16, 16\)"):
        output_loss("image", frames, frames, config["image"], mask=torch.ones_like(frames, dtype=torch.bool))
    with pytest.raises(ValueError, match="3 channels"):
        query_values("image", frames[:, :, :2], config["image"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have 5 axes"):
        query_values("image", frames[0], config["image"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        mask = torch.ones(3, dtype=torch.bool)
        output_loss("label", torch.zeros(2, 10), torch.zeros(2, dtype=torch.long), config["label"], mask=mask)


def test_half_precision_targets_follow_the_prediction(model: Model) -> None:
    assert isinstance(model, nn.Module)
    inputs = batch()
    half = model.to(torch.bfloat16)
    moved = {name: x.to(torch.bfloat16) if x.is_floating_point() else x for name, x in inputs.items()}
    out = half(**moved)
    assert out.loss.dtype == torch.bfloat16 and out.loss.isfinite()

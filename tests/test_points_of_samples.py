"""Points that differ between samples: each sample as if it were alone with its own."""

import dataclasses
from typing import Any

import pytest
import torch

from perceiver_io import (
    ByteArray,
    ClassificationDecoder,
    DecoderRequest,
    Encoded,
    EncoderConfig,
    PackingConfig,
    PerceiverIO,
    PerceiverIOConfig,
    SharedAttentionConfig,
)
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.points import Points

GRID, SIZE = (4, 6), 24
OUTPUTS: dict[str, dict[str, Any]] = {
    "fourier": {"grid": GRID},
    "fourier_steps": {"grid": GRID, "spacing": "steps", "num_heads": 2},
    "learned": {"grid": GRID, "position": "learned", "position_channels": 6},
    "elements": {"query_input": "image", "query_input_channels": 4, "position": "none"},
    "beside_fourier": {"query_input": "image", "query_input_channels": 3, "max_resolution": GRID},
    "beside_learned": {
        "query_input": "image",
        "query_input_channels": 3,
        "position": "learned",
        "position_channels": 5,
        "grid": GRID,
    },
    "masked": {"grid": GRID, "grid_input": "image", "query_mask_input": "image"},
    "patches": {"grid": GRID, "patch_size": (2, 3), "scale": 0.5},
    "shared": {"grid": GRID},
    "shared_elements": {"query_input": "image", "query_input_channels": 3, "max_resolution": GRID},
}


def model() -> PerceiverIO:
    config = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=GRID, num_bands=2)},
        encoder=EncoderConfig(num_latents=5, latent_channels=8, num_self_attends_per_block=1),
        outputs={
            name: DenseDecoder.Config(**{"output_channels": 2, "num_bands": 3} | fields)
            for name, fields in OUTPUTS.items()
        }
        | {"label": ClassificationDecoder.Config(num_classes=3)},
        shared_attention=SharedAttentionConfig(
            outputs=("shared", "shared_elements", "label"), output_channels=4, min_padding=400
        ),
    )
    perceiver = PerceiverIO(config).double().eval()
    with torch.no_grad():  # initial positions are small; biases are zero
        for parameter in perceiver.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    return perceiver


def encoded(perceiver: PerceiverIO) -> Encoded:
    mask = torch.rand(3, *GRID) < 0.8
    with torch.no_grad():
        return perceiver.encode({"image": torch.randn(3, 3, *GRID).double()}, {"image": mask})


def sample(batch: Encoded, index: int) -> Encoded:
    image, one = batch.byte_arrays["image"], slice(index, index + 1)
    part = dataclasses.replace(image, values=image.values[one], mask=image.mask[one])
    return Encoded(latents=batch.latents[one], byte_arrays={"image": part})


def every_form(count: int = 40) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Points of each of three samples, and the same points for one sample alone, by form."""
    flat = torch.randint(SIZE, (3, count))
    along = torch.stack(torch.unravel_index(flat, GRID), dim=-1)
    between = (torch.rand(3, count, 2) * 2 - 1).double()
    return {"row-major": (flat, flat), "along axes": (along, along), "between": (between, between)}


@pytest.mark.parametrize("form", every_form())
@pytest.mark.parametrize("name", OUTPUTS)
@torch.no_grad()
def test_each_sample_is_as_if_alone(name: str, form: str) -> None:
    perceiver = model()
    batch = encoded(perceiver)
    own, alone = every_form()[form]
    together = perceiver.decode(batch, points={name: own})[name]
    values = 12 if name == "patches" else 2
    assert together.shape == (3, 40, values)
    for index in range(3):
        expected = perceiver.decode(sample(batch, index), points={name: alone[index]})[name]
        torch.testing.assert_close(together[index], expected[0])
    for size in ({"chunk_size": 7}, {"memory_budget": 20_000}):
        told: list[int] = []
        chunks = perceiver.decode(batch, points={name: own}, on_decoded=told.append, **size)[name]
        assert sum(told) == 40 and len(told) > 1
        torch.testing.assert_close(chunks, together)


@pytest.mark.parametrize("name", OUTPUTS)
@torch.no_grad()
def test_the_same_points_for_all_are_the_shared_ones(name: str) -> None:
    perceiver = model()
    batch = encoded(perceiver)
    shared = torch.stack(torch.unravel_index(torch.randperm(SIZE), GRID), dim=-1)
    torch.testing.assert_close(
        perceiver.decode(batch, points={name: shared.expand(3, -1, -1)})[name],
        perceiver.decode(batch, points={name: shared})[name],
    )


def test_points_that_all_share_are_encoded_once() -> None:
    """Their positions are not made for each sample: they are one row with a batch axis of stride 0."""
    decoder = model().decoders["fourier"]
    batch = Encoded(latents=torch.randn(3, 5, 8).double(), byte_arrays={})
    points = Points.parse(torch.tensor([3, 5]), GRID, name="y", batch_size=3)
    assert not points.per_sample
    assert decoder.queries(batch, points).stride(0) == 0


@pytest.mark.parametrize("form", ["along axes", "between"])
@pytest.mark.parametrize(
    "name", ["beside_fourier", "beside_learned", "elements", "learned", "masked", "shared"]
)
def test_gradients_are_those_of_samples_alone(name: str, form: str) -> None:
    perceiver = model()
    own, _ = every_form(count=9)[form]
    image = torch.randn(3, 3, *GRID).double()
    leaves = list(perceiver.parameters())

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return list(found)

    together = gradients(perceiver({"image": image}, points={name: own})[name].sin().sum())
    alone = [
        perceiver({"image": image[index : index + 1]}, points={name: own[index]})[name].sin().sum()
        for index in range(3)
    ]
    torch.testing.assert_close(together, gradients(torch.stack(alone).sum()))


def test_coordinates_of_samples_get_gradients() -> None:
    module = model().decoders["beside_learned"]
    image = ByteArray(values=torch.randn(2, SIZE, 13).double(), grid=GRID, num_content_channels=3)
    batch = Encoded(latents=torch.randn(2, 5, 8).double(), byte_arrays={"image": image})
    coordinates = (torch.rand(2, 4, 2).double() * 1.8 - 0.9).requires_grad_()

    def decode(coordinates: torch.Tensor) -> torch.Tensor:
        return module(batch, DecoderRequest(points=Points(grid=GRID, coordinates=coordinates)))

    torch.autograd.gradcheck(decode, (coordinates,), fast_mode=True)


def test_points_of_samples_trace_whole() -> None:
    perceiver = model()
    points = {"elements": torch.randint(SIZE, (3, 5)), "learned": torch.rand(3, 5, 2).double(), "label": None}
    image = {"image": torch.randn(3, 3, *GRID).double()}
    torch._dynamo.reset()
    compiled = torch.compile(perceiver, fullgraph=True, backend="eager")
    with torch.no_grad():
        out = compiled(image, points=points)
        torch.testing.assert_close(out.outputs, perceiver(image, points=points).outputs)
    torch._dynamo.reset()


def test_what_shapes_of_integers_mean() -> None:
    def parsed(points: torch.Tensor, grid: tuple[int, ...] = GRID) -> Points:
        return Points.parse(points, grid, name="y", batch_size=3)

    tuples = torch.tensor([[0, 1], [3, 5], [2, 2]])
    assert parsed(tuples).indices.tolist() == tuples.tolist()  # (O, A), although there are three samples
    assert not parsed(tuples).per_sample
    flat = torch.tensor([[0, 1, 6], [23, 5, 2], [7, 7, 7]])
    assert parsed(flat).per_sample and parsed(flat).num_points == 3
    assert parsed(flat).indices.tolist() == [
        [[0, 0], [0, 1], [1, 0]],
        [[3, 5], [0, 5], [0, 2]],
        [[1, 1], [1, 1], [1, 1]],
    ]
    assert parsed(tuples.expand(3, 3, 2)).per_sample
    # On a grid of one axis (X, 1) is (O, 1), and one point of each sample is (B, 1, 1).
    assert parsed(torch.tensor([[0], [1], [2]]), (5,)).num_points == 3
    assert parsed(torch.tensor([[[0]], [[1]], [[2]]]), (5,)).num_points == 1


def test_parts_are_slices_of_each_sample() -> None:
    along = torch.stack(torch.unravel_index(torch.randint(SIZE, (3, 9)), GRID), dim=-1)
    between = torch.rand(3, 9, 2)
    for given in (along, between):
        points = Points.parse(given, GRID, name="y", batch_size=3)
        assert points.num_points == 9
        part = points.part(2, 5)
        assert part.num_points == 3 and part.per_sample
        found = part.indices if part.coordinates is None else part.coordinates
        assert torch.equal(found, given[:, 2:5])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            torch.zeros(2, 5, dtype=torch.int64),
            r"\(O,\) or \(3, O\), .*\(O, 2\) or \(3, O, 2\).*int64 \(2, 5\)",
        ),
        (torch.zeros(4, 3, dtype=torch.int64), r"got torch.int64 \(4, 3\)"),
        (torch.zeros(2, 5, 2, dtype=torch.int64), r"got torch.int64 \(2, 5, 2\)"),
        (torch.zeros(3, 5, 3, dtype=torch.int64), r"got torch.int64 \(3, 5, 3\)"),
        (torch.zeros(3, 5), r"got torch.float32 \(3, 5\)"),
        (torch.zeros(2, 5, 2), r"got torch.float32 \(2, 5, 2\)"),
        (torch.zeros(1, 5, 2), r"got torch.float32 \(1, 5, 2\)"),
        (torch.zeros(3, 1, 5, 2), r"got torch.float32 \(3, 1, 5, 2\)"),
        (torch.zeros(3, 5, dtype=torch.bool), r"got torch.bool \(3, 5\)"),
        (torch.zeros(3, 0, dtype=torch.int64), "at least one, got none"),
        (torch.zeros(3, 0, 2), "at least one, got none"),
        (torch.full((3, 5), 24), "indices from 0 to 23, got 24 to 24"),
        (torch.full((3, 5, 2), 4), r"indices from 0 to \[3, 5\], got 4 to 4"),
        (torch.full((3, 5, 2), 1.5), r"coordinates in \[-1, 1\], got 1.5 to 1.5"),
    ],
)
def test_what_are_no_points_of_samples_is_refused(points: torch.Tensor, message: str) -> None:
    perceiver = model()
    with pytest.raises(ValueError, match=message):
        perceiver.decode(encoded(perceiver), points={"fourier": points})


def test_points_of_samples_need_to_know_how_many_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"row-major indices \(O,\), .* \(O, 2\), .* got torch.int64 \(3, 5\)"
    ):
        Points.parse(torch.zeros(3, 5, dtype=torch.int64), GRID, name="y")


def test_masked_autoencoding_asks_for_what_was_hidden() -> None:
    """As a task would: hidden elements of each sample are points of an output with the input's grid."""
    config = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=GRID, num_bands=2)},
        encoder=EncoderConfig(num_latents=5, latent_channels=8, num_self_attends_per_block=1),
        outputs={"image": DenseDecoder.Config(output_channels=3, grid=GRID, num_bands=2)},
        packing=PackingConfig(mask_probabilities=(("image", 0.5),)),
    )
    perceiver = PerceiverIO(config).train()
    image = torch.randn(3, 3, *GRID)
    batch = perceiver.encode({"image": image})
    hidden = batch.hidden["image"]
    whole = perceiver.decode(batch)["image"].flatten(2).mT
    expected = (whole - image.flatten(2).mT)[hidden].abs().sum()
    count = int(hidden.sum(dim=1).max())
    chosen = hidden.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    at_hidden = perceiver.decode(batch, points={"image": chosen})["image"]
    target = image.flatten(2).mT.gather(1, chosen[..., None].expand(-1, -1, 3))
    real = hidden.gather(1, chosen)
    torch.testing.assert_close((at_hidden - target)[real].abs().sum(), expected)

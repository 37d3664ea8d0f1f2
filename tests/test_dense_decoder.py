"""The dense decoder: queries made by hand, and the same values however they are asked for."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch.nn.functional import grid_sample

from perceiver_io import (
    ByteArray,
    DecoderParts,
    DecoderRequest,
    Encoded,
    EncoderConfig,
    PerceiverIO,
    PerceiverIOConfig,
    dense_decoder,
)
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.points import Points
from perceiver_io.position import fourier_features

GRID = (4, 6)
PARTS = DecoderParts(latent_channels=8)


def encoded(*, grid: Sequence[int] | None = GRID, mask: torch.Tensor | None = None) -> Encoded:
    num_elements = int(np.prod(grid)) if grid is not None else 24
    image = ByteArray(
        values=torch.randn(2, num_elements, 7),
        mask=mask,
        grid=None if grid is None else tuple(grid),
        num_content_channels=3,
    )
    return Encoded(latents=torch.randn(2, 5, 8), byte_arrays={"image": image})


def decoder(**fields: Any) -> DenseDecoder:
    defaults: dict[str, Any] = {"output_channels": 2, "num_bands": 3}
    if "query_input" not in fields:
        defaults["grid"] = GRID
    elif fields.get("position", "fourier") == "fourier":
        defaults["max_resolution"] = GRID
    built = DenseDecoder(DenseDecoder.Config(**defaults | fields), PARTS).eval()
    with torch.no_grad():  # initial positions are small; biases are zero
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    return built


def coordinates(grid: Sequence[int], spacing: str = "ends") -> torch.Tensor:
    rows = []
    for index in np.ndindex(*grid):
        last = [size if spacing == "steps" else max(size - 1, 1) for size in grid]
        rows.append([-1 + 2 * i / end for i, end in zip(index, last, strict=True)])
    return torch.tensor(rows)


def by_query(whole: torch.Tensor) -> torch.Tensor:
    """(B, F, *grid) -> (B, O, F)."""
    return whole.flatten(2).mT


KINDS: dict[str, dict[str, Any]] = {
    "fourier": {},
    "learned": {"position": "learned", "position_channels": 6},
    "input": {"query_input": "image", "query_input_channels": 4, "position": "none"},
    "input beside fourier": {"query_input": "image", "query_input_channels": 3},
    "input beside learned": {
        "query_input": "image",
        "query_input_channels": 3,
        "position": "learned",
        "position_channels": 5,
        "grid": GRID,
    },
    "several heads": {"num_heads": 2, "qk_channels": 4, "v_channels": 6, "use_query_residual": True},
}
kinds = pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
spacings = pytest.mark.parametrize("spacing", ["ends", "steps"])


@spacings
@kinds
def test_queries_are_an_inputs_channels_then_positions(fields: dict[str, Any], spacing: str) -> None:
    module, batch = decoder(**fields, spacing=spacing), encoded()
    parts = []
    if count := fields.get("query_input_channels", 0):
        parts.append(batch.byte_arrays["image"].values[..., :count])
    if fields.get("position") == "learned":
        parts.append(module.position.table.weight.expand(2, -1, -1))
    elif fields.get("position") != "none":
        features = fourier_features(coordinates(GRID, spacing), num_bands=3, max_resolution=GRID)
        parts.append(features.expand(2, -1, -1))
    queries = torch.cat(parts, dim=-1)
    assert module.num_query_channels == queries.shape[-1]
    values = module.output(module.cross_attend(queries, batch.latents))
    torch.testing.assert_close(module(batch), rearrange(values, "b (h w) f -> b f h w", h=4))


@spacings
@kinds
def test_points_are_entries_of_the_whole(fields: dict[str, Any], spacing: str) -> None:
    module, batch = decoder(**fields, spacing=spacing), encoded()
    whole = by_query(module(batch))
    chosen = torch.tensor([5, 0, 23, 5, 12, 18])
    tuples = torch.tensor([list(np.unravel_index(int(index), GRID)) for index in chosen])
    for points in (chosen, tuples, coordinates(GRID, spacing)[chosen]):
        parsed = Points.parse(points, GRID, name="image")
        torch.testing.assert_close(
            module(batch, DecoderRequest(points=parsed)), whole[:, chosen], atol=1e-5, rtol=1e-4
        )


@kinds
def test_chunks_change_nothing(fields: dict[str, Any]) -> None:
    module, batch = decoder(**fields), encoded()
    whole = module(batch)
    for chunk_size in (1, 5, 24, 1000):
        torch.testing.assert_close(module(batch, DecoderRequest(chunk_size=chunk_size)), whole)
    for memory_budget in (1, 10_000, 10**9):
        torch.testing.assert_close(module(batch, DecoderRequest(memory_budget=memory_budget)), whole)
    points = Points.parse(torch.tensor([3, 22, 7]), GRID, name="image")
    torch.testing.assert_close(
        module(batch, DecoderRequest(points=points, chunk_size=2)), by_query(whole)[:, [3, 22, 7]]
    )
    other = module(batch, DecoderRequest(grid=(5, 3)))
    torch.testing.assert_close(module(batch, DecoderRequest(grid=(5, 3), chunk_size=4)), other)


def chunk_sizes(module: DenseDecoder, batch: Encoded, **arguments: Any) -> list[int]:
    """How many queries were in each call of the attention."""
    sizes: list[int] = []
    handle = module.cross_attend.query_norm.register_forward_hook(
        lambda _module, inputs, _output: sizes.append(inputs[0].shape[1])
    )
    module(batch, DecoderRequest(**arguments))
    handle.remove()
    return sizes


def test_chunks_have_the_size_that_was_asked_for() -> None:
    module, batch = decoder(), encoded()
    assert chunk_sizes(module, batch, chunk_size=7) == [7, 7, 7, 3]
    assert chunk_sizes(module, batch, chunk_size=24) == [24]
    assert chunk_sizes(module, batch, memory_budget=1) == [1] * 24
    assert chunk_sizes(module, batch, chunk_size=12, memory_budget=1) == [12, 12]
    told: list[int] = []
    module(batch, DecoderRequest(chunk_size=10, on_decoded=told.append))
    assert told == [10, 10, 4]


def test_without_a_budget_chunks_are_bounded_unless_gradients_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, batch = decoder(), encoded()
    monkeypatch.setattr(dense_decoder, "DEFAULT_MEMORY_BUDGET", 1)
    with torch.no_grad():
        assert chunk_sizes(module, batch) == [1] * 24
    assert chunk_sizes(module.train(), batch) == [24]
    latents = batch.latents.clone().requires_grad_()
    assert chunk_sizes(module.eval(), Encoded(latents=latents, byte_arrays={})) == [24]


def peak_bytes(module: DenseDecoder, batch: Encoded, **arguments: Any) -> int:
    """The most that was allocated at once."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        module(batch, DecoderRequest(**arguments))
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_bands": 32},
        {"num_bands": 32, "use_query_residual": True, "widening_factor": 4},
        {"num_bands": 4, "qk_channels": 512},
        {"num_bands": 4, "num_heads": 4, "qk_channels": 64, "v_channels": 128},
        {"num_bands": 4, "output_channels": 300},
    ],
)
def test_a_chunk_takes_no_more_memory_than_its_budget(fields: dict[str, Any]) -> None:
    config = DenseDecoder.Config(**{"output_channels": 2, "grid": (64, 64)} | fields)
    module = DenseDecoder(config, DecoderParts(latent_channels=64)).eval()
    batch = Encoded(latents=torch.randn(1, 256, 64), byte_arrays={})
    budget = 2**20
    with torch.no_grad():
        size = chunk_sizes(module, batch, memory_budget=budget)[0]
        assert 10 < size < 2**12  # neither query by query nor all at once
        # Against an eighth of the chunk, so that what all chunks have in common does not count.
        points = Points.of_range((64, 64), 0, size)
        chunk = peak_bytes(module, batch, points=points, chunk_size=size)
        eighth = peak_bytes(module, batch, points=points, chunk_size=size // 8)
    assert (chunk - eighth) * 8 / 7 < 1.1 * budget
    assert chunk > 0.2 * budget  # nor needlessly small


@pytest.mark.parametrize("kind", ["fourier", "input", "input beside fourier"])
@spacings
def test_another_grid_is_points_at_its_coordinates(kind: str, spacing: str) -> None:
    module, batch = decoder(**KINDS[kind], spacing=spacing), encoded()
    whole = module(batch, DecoderRequest(grid=(7, 5)))
    assert whole.shape == (2, 2, 7, 5)
    points = Points.parse(coordinates((7, 5), spacing), GRID, name="image")
    torch.testing.assert_close(
        module(batch, DecoderRequest(points=points)), by_query(whole), atol=1e-5, rtol=1e-4
    )


def test_queries_between_elements_are_interpolated_as_grid_sample_does() -> None:
    module, batch = decoder(**KINDS["input"]), encoded()
    places = torch.rand(9, 2) * 2 - 1
    image = batch.byte_arrays["image"].values[..., :4].mT.reshape(2, 4, *GRID)
    queries = grid_sample(image, places.flip(-1).expand(2, 1, 9, 2), align_corners=True).squeeze(2).mT
    points = Points.parse(places, GRID, name="image")
    torch.testing.assert_close(module.queries(batch, points), queries)


def test_queries_that_are_denser_than_an_inputs_elements_are_its_finer_grid() -> None:
    fields = {"query_input": "image", "query_input_channels": 4, "spacing": "steps"}
    finer, batch = decoder(**fields, upsampling=(2, 3)), encoded()
    plain = DenseDecoder(dataclasses.replace(finer.config, upsampling=None), PARTS).eval()
    plain.load_state_dict(finer.state_dict())
    assert finer.query_grid(batch) == (8, 18)
    expected = plain(batch, DecoderRequest(grid=(8, 18)))
    torch.testing.assert_close(finer(batch), expected)
    # Every second row and third column lies on an element: there it is what the elements themselves give.
    torch.testing.assert_close(expected[:, :, ::2, ::3], plain(batch), atol=1e-5, rtol=1e-4)
    wider = encoded(grid=(5, 7))
    assert finer(wider).shape == (2, 2, 10, 21)


def test_learned_positions_of_another_grid_are_interpolated_as_a_whole() -> None:
    module, batch = decoder(**KINDS["learned"]), encoded()
    queries = module.position((8, 3), like=batch.latents).expand(2, -1, -1)
    values = module.output(module.cross_attend(queries, batch.latents))
    torch.testing.assert_close(by_query(module(batch, DecoderRequest(grid=(8, 3)))), values)


@pytest.mark.parametrize(
    ("grid", "patch", "layout"),
    [
        ((3,), (4,), "b i (p f) -> b (i p) f"),
        ((3, 2), (2, 5), "b (i j) (p q f) -> b (i p) (j q) f"),
        ((2, 3, 2), (1, 2, 3), "b (i j k) (p q r f) -> b (i p) (j q) (k r) f"),
    ],
)
def test_patches_are_laid_out_in_space(grid: tuple[int, ...], patch: tuple[int, ...], layout: str) -> None:
    module, batch = decoder(grid=grid, patch_size=patch, channel_axis=-1), encoded()
    count = int(np.prod(grid))
    values = module(batch, DecoderRequest(points=Points.of_range(grid, 0, count)))
    assert values.shape == (2, count, 2 * int(np.prod(patch)))
    sizes = dict(zip("ijk", grid, strict=False)) | dict(zip("pqr", patch, strict=False))
    torch.testing.assert_close(module(batch), rearrange(values, layout, f=2, **sizes))


@pytest.mark.parametrize(
    ("channel_axis", "layout"),
    [
        (0, "b t h w f -> b f t h w"),
        (1, "b t h w f -> b t f h w"),
        (3, "b t h w f -> b t h w f"),
        (-1, "b t h w f -> b t h w f"),
        (-2, "b t h w f -> b t h f w"),
        (-4, "b t h w f -> b f t h w"),
    ],
)
def test_channels_lie_where_they_are_wanted(channel_axis: int, layout: str) -> None:
    module, batch = decoder(grid=(2, 3, 4), channel_axis=channel_axis), encoded()
    values = module(batch, DecoderRequest(points=Points.of_range((2, 3, 4), 0, 24))).unflatten(1, (2, 3, 4))
    whole = module(batch)
    torch.testing.assert_close(whole, rearrange(values, layout))
    assert whole.is_contiguous()


def test_a_single_channel_needs_no_axis() -> None:
    module, batch = decoder(output_channels=1, channel_axis=None, grid=(6,), patch_size=(2,)), encoded()
    values = module(batch, DecoderRequest(points=Points.of_range((6,), 0, 6)))
    assert values.shape == (2, 6, 2)
    torch.testing.assert_close(module(batch), values.flatten(1))


def test_scale_multiplies_the_output() -> None:
    module, batch = decoder(), encoded()
    scaled = DenseDecoder(DenseDecoder.Config(**module.config.to_dict() | {"scale": 0.2}), PARTS)
    scaled.load_state_dict(module.state_dict())
    torch.testing.assert_close(scaled.eval()(batch), 0.2 * module(batch))
    points = Points.parse(torch.tensor([3]), GRID, name="image")
    torch.testing.assert_close(
        scaled(batch, DecoderRequest(points=points)), 0.2 * module(batch, DecoderRequest(points=points))
    )


def test_the_grid_follows_an_input() -> None:
    module = decoder(grid_input="image")
    assert module(encoded(grid=(3, 5))).shape == (2, 2, 3, 5)
    assert module(Encoded(latents=torch.randn(2, 5, 8), byte_arrays={})).shape == (2, 2, *GRID)  # nominal
    module = decoder(grid=None, max_resolution=GRID, grid_input="image")
    assert module(encoded(grid=(3, 5))).shape == (2, 2, 3, 5)
    with pytest.raises(ValueError, match=r"need the input 'image', which the batch lacks; it has \[\]"):
        module(Encoded(latents=torch.randn(2, 5, 8), byte_arrays={}))


def test_queries_of_masked_elements_attend_to_nothing() -> None:
    """The original release sets what they attended to to zero, before the output projection of the attention."""
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[0, 5:9] = mask[1, 0] = False
    module, batch = decoder(grid_input="image", query_mask_input="image"), encoded(mask=mask)
    unmasked = decoder(grid_input="image")
    unmasked.load_state_dict(module.state_dict())
    ours = by_query(module(batch))
    torch.testing.assert_close(ours[mask], by_query(unmasked(batch))[mask])
    attended = module.cross_attend.attention.output.bias.expand(1, 1, -1)
    x = attended + module.cross_attend.feed_forward(module.cross_attend.feed_forward_norm(attended))
    torch.testing.assert_close(ours[~mask], module.output(x)[0].expand(5, -1))
    chosen = torch.tensor([23, 6, 0])
    points = Points.parse(chosen, GRID, name="image")
    torch.testing.assert_close(module(batch, DecoderRequest(points=points)), ours[:, chosen])
    torch.testing.assert_close(by_query(module(batch, DecoderRequest(chunk_size=5))), ours)
    # An element of another grid, or anything between elements, has no mask of its own.
    torch.testing.assert_close(
        module(batch, DecoderRequest(grid=(3, 4))), unmasked(batch, DecoderRequest(grid=(3, 4)))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@kinds
def test_runs_in_other_types(fields: dict[str, Any], dtype: torch.dtype) -> None:
    module, batch = decoder(**fields), encoded()
    expected = module(batch)
    image = batch.byte_arrays["image"]
    converted = Encoded(
        latents=batch.latents.to(dtype),
        byte_arrays={
            "image": ByteArray(values=image.values.to(dtype), grid=image.grid, num_content_channels=3)
        },
    )
    points = Points.parse(coordinates(GRID), GRID, name="image")
    module.to(dtype)
    tolerance = 1e-4 if dtype == torch.float64 else 0.15
    for ours in (by_query(module(converted)), module(converted, DecoderRequest(points=points))):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), by_query(expected), atol=tolerance, rtol=tolerance)


def test_gradients_do_not_depend_on_chunks() -> None:
    module, batch = decoder(**KINDS["input beside learned"]).double(), encoded()
    values = batch.byte_arrays["image"].values.double().requires_grad_()
    latents = batch.latents.double().requires_grad_()
    image = ByteArray(values=values, grid=GRID, num_content_channels=3)
    batch = Encoded(latents=latents, byte_arrays={"image": image})
    leaves = [values, latents, *module.parameters()]
    expected = torch.autograd.grad(module(batch).sin().sum(), leaves)
    torch.testing.assert_close(
        torch.autograd.grad(module(batch, DecoderRequest(chunk_size=7)).sin().sum(), leaves), expected
    )


def test_a_query_may_be_the_byte_array_itself() -> None:
    """With the adapter's own positions beside its content, as in optical flow."""
    adapter = ImageAdapter.Config(size=GRID, num_bands=3, max_resolution=(5, 7))
    config = PerceiverIOConfig(
        inputs={"image": adapter},
        encoder=EncoderConfig(num_latents=4, latent_channels=8, num_self_attends_per_block=1),
        outputs={
            "flow": DenseDecoder.Config(
                output_channels=2,
                query_input="image",
                query_input_channels=3,
                num_bands=3,
                max_resolution=(5, 7),
            )
        },
    )
    model = PerceiverIO(config).eval()
    for size in (GRID, (3, 8)):
        batch = model.encode({"image": torch.randn(2, 3, *size)})
        points = Points.of_range(size, 0, size[0] * size[1])
        queries = model.decoders["flow"].queries(batch, points)
        torch.testing.assert_close(queries, batch.byte_arrays["image"].values)
        assert model.decode(batch)["flow"].shape == (2, 2, *size)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_channels": 0, "grid": GRID}, "output_channels must be at least 1, got 0"),
        ({"num_bands": 0, "grid": GRID}, "num_bands must be at least 1, got 0"),
        ({"position_channels": 0, "grid": GRID}, "position_channels must be at least 1, got 0"),
        ({"grid": (4, 0)}, r"grid must hold sizes of at least 1, got \(4, 0\)"),
        ({"grid": ()}, r"grid must hold sizes of at least 1, got \(\)"),
        ({"grid": GRID, "patch_size": (0, 1)}, r"patch_size must hold sizes .* got \(0, 1\)"),
        ({"grid": GRID, "max_resolution": (-4, 6)}, r"max_resolution must hold sizes .* got \(-4, 6\)"),
        ({}, r"needs a grid, or an input to take it from \(grid_input, query_input\)"),
        (
            {"grid_input": "a", "query_input": "b", "query_input_channels": 1, "position": "none"},
            "Queries made of 'b' have its grid, not that of 'a'",
        ),
        ({"query_input": "a", "max_resolution": GRID}, "go together, got 'a' and 0"),
        ({"grid": GRID, "query_input_channels": 3}, "go together, got None and 3"),
        ({"query_input": "a", "query_input_channels": -1, "position": "none"}, "go together, got 'a' and -1"),
        ({"grid": GRID, "position": "none"}, "need positions, or an input that they are made of"),
        ({"grid_input": "a", "position": "learned"}, "Learned positions need a nominal grid"),
        ({"grid_input": "a"}, "Fourier positions need max_resolution, or a nominal grid"),
        ({"grid": GRID, "channel_axis": None}, "the axis of a single channel, but there are 2"),
        ({"grid": GRID, "channel_axis": 3}, "channel_axis must be from -3 to 2 .* 2 axes, got 3"),
        ({"grid": GRID, "channel_axis": -4}, "channel_axis must be from -3 to 2 .* 2 axes, got -4"),
        ({"grid": GRID, "tied_to": "a", "patch_size": (1, 1)}, "tied to an embedding has no patches"),
        ({"grid": GRID, "patch_size": (2,)}, r"mixes numbers of axes: \{'grid': 2, 'patch_size': 1\}"),
        ({"grid": GRID, "max_resolution": (2, 2, 2)}, "mixes numbers of axes: .*'max_resolution': 3"),
        ({"grid": GRID, "upsampling": (2, 2)}, "upsampling is of an input's grid: it goes with query_input"),
        (
            {"grid": GRID, "grid_input": "a", "upsampling": (0, 2)},
            r"upsampling must hold sizes .* got \(0, 2\)",
        ),
        ({"grid": GRID, "grid_input": "a", "upsampling": (2,)}, "mixes numbers of axes: .*'upsampling': 1"),
        ({"grid": GRID, "position": "sine"}, "position must be one of 'fourier', 'learned', 'none'"),
        ({"grid": GRID, "spacing": "middle"}, "spacing must be one of 'ends', 'steps'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseDecoder.Config(**{"output_channels": 2} | fields)


def test_settings_survive_json() -> None:
    config = DenseDecoder.Config(
        output_channels=3, grid=(2, 4, 4), patch_size=(1, 2, 2), channel_axis=1, spacing="steps", scale=2
    )
    assert DenseDecoder.Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("fields", "grid", "message"),
    [
        ({"grid_input": "image"}, None, "The input 'image' has no grid that the output could follow"),
        (KINDS["input beside fourier"], None, "The input 'image' has no grid that the output could follow"),
        ({"grid_input": "image"}, (24,), r"output's grid has 2 axes, that of the input 'image' is \(24,\)"),
        (
            {"grid_input": "image", "position": "learned"},
            (2, 3, 4),
            r"output's grid has 2 axes, that of the input 'image' is \(2, 3, 4\)",
        ),
    ],
)
def test_inputs_whose_grid_does_not_fit_are_refused(
    fields: dict[str, Any], grid: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        decoder(**fields)(encoded(grid=grid))


def test_a_set_is_asked_at_its_own_elements() -> None:
    mask = torch.rand(2, 24) < 0.7
    of_set, of_row = encoded(grid=None, mask=mask), encoded(grid=(24,))
    of_row = Encoded(
        latents=of_set.latents,
        byte_arrays={"image": dataclasses.replace(of_set.byte_arrays["image"], grid=(24,))},
    )
    module = decoder(**KINDS["input"], channel_axis=-1, query_mask_input="image")
    whole = module(of_set)
    assert whole.shape == (2, 24, 2)
    assert torch.equal(whole, module(of_row))
    some = Points.parse(torch.tensor([[3, 1], [5, 23]]), module.query_grid(of_set), name="y", batch_size=2)
    expected = torch.stack([whole[0, [3, 1]], whole[1, [5, 23]]])
    torch.testing.assert_close(module(of_set, DecoderRequest(points=some)), expected)
    between = Points.parse(torch.tensor([[0.1]]), (24,), name="y")
    with pytest.raises(ValueError, match="'image' has no grid: nothing lies between its elements"):
        module(of_set, DecoderRequest(points=between))
    with pytest.raises(ValueError, match="'image' has no grid: nothing lies between its elements"):
        module(of_set, DecoderRequest(grid=(12,)))


def test_an_offset_follows_the_scale() -> None:
    module = decoder(**KINDS["input"], scale=2.0, offset=-3.0)
    plain = decoder(**KINDS["input"])
    plain.load_state_dict(module.state_dict())
    of = encoded()
    torch.testing.assert_close(module(of), plain(of) * 2 - 3)
    with pytest.raises(ValueError, match="offset must be float, got inf"):
        DenseDecoder.Config(output_channels=1, grid=(2,), offset=float("inf"))


@pytest.mark.parametrize("kind", ["fourier", "learned", "input"])
@pytest.mark.parametrize("grid", [(4,), (2, 3, 4)])
def test_grids_of_other_axes_are_refused(kind: str, grid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"The output's grid has 2 axes, got \({grid[0]},"):
        decoder(**KINDS[kind])(encoded(), DecoderRequest(grid=grid))


def test_longer_outputs_than_truncated_positions_are_refused() -> None:
    module = decoder(
        grid=(6,), position="learned", position_channels=4, position_resize="truncate", grid_input="image"
    )
    assert module(encoded(grid=(4,))).shape == (2, 2, 4)
    with pytest.raises(ValueError, match="positions for 6 elements, got 7"):
        module(encoded(grid=(7,)))

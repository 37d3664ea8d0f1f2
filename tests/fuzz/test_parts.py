"""Parts that stand alone, with odd inputs: the resampler, positions, points, ragged batches, masks of elements.

Each is compared with a plain formula in NumPy or a loop, or with a property that it promises.

Shape legend: as in the parts.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from fuzz.odd_tensors import (
    NO_TENSORS,
    assert_close,
    assert_refused,
    copied,
    forms,
    generator,
    masks,
    one_in,
    refused_if,
)
from fuzz.trials import Refused, cases, tried
from perceiver_io.byte_array import ByteArray, ByteArrayPacker, PackingConfig
from perceiver_io.drawn_points import draw_points
from perceiver_io.input_tools import element_mask, patch_grid, spread_mask
from perceiver_io.points import Points
from perceiver_io.position import (
    FourierPositionEncoding,
    fourier_features,
    grid_coordinates,
    interpolate,
    sinusoids,
)
from perceiver_io.ragged import pad_ragged
from perceiver_io.resampler import PerceiverResampler

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


# The resampler

RESAMPLERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "alone": {"latents_among_keys": False, "latent_channels": 8, "input_projection": "none"},
    "gated": {"feed_forward": "geglu", "norm": "rms", "norm_position": "after", "qk_norm": True},
    "grouped": {"num_kv_heads": 1, "head_channels": 3, "output_channels": 5, "feed_forward_bias": True},
    "projected": {"input_projection": "swiglu", "latent_channels": 4, "norm_position": "none"},
    "placed": {"num_positions": 5, "num_frames": 3},
    "media": {"num_media": 3, "num_frames": 2, "num_positions": 4},
    "pooled": {"num_pooled_latents": 2},
    "given": {"num_latents": 0},
}


@functools.cache
def resampler(name: str) -> PerceiverResampler:
    torch.manual_seed(0)
    options = {"channels": 6, "num_latents": 3, "depth": 2, "num_heads": 2, **RESAMPLERS[name]}
    return PerceiverResampler(**options).eval()


@cases(few=40)
@given(data=st.data())
def test_resampler(data: st.DataObject) -> None:
    draw = data.draw
    name = draw(some(*RESAMPLERS))
    made, options = resampler(name), RESAMPLERS[name]
    batch = draw(st.integers(1, 3))
    axes = [draw(st.integers(1, options[key])) for key in ("num_media", "num_frames") if key in options]
    number = draw(st.integers(1, options.get("num_positions", 6)))
    shape = [batch, *axes, number, 6]
    wrong: bool | None = False
    if draw(one_in(8)):
        place = draw(st.integers(0, len(shape) - 1))
        shape = draw(
            some(
                [*shape[:place], 0, *shape[place + 1 :]],
                [*shape[:place], *shape[place + 1 :]],
                [*shape[:place], 1, *shape[place:]],
                [*shape[:-1], 7],
                [],
            )
        )
        wrong = True
    x: Any = torch.randn(shape, generator=generator(draw))
    if x.numel() and draw(one_in(6)):
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(some(math.nan, math.inf, 1e20, 1e15, 0.0))
    x = forms(draw, x)
    mask, is_right = masks(draw, shape[:-1])
    if wrong is False and is_right:
        real = x if mask is None else x[mask]
        if mask is not None and not mask.flatten(1).any(dim=1).all():
            wrong = True
        elif real.numel() and not real.detach().abs().max() <= 1e16:
            wrong = True
    wrong = True if not is_right else wrong
    if draw(one_in(10)):
        kinds = {key: make for key, make in NO_TENSORS.items() if key != "meta"}
        x, wrong = kinds[draw(some(*kinds))](x), True
    latents = None
    if name == "given" or draw(one_in(4)):
        lead = [batch, *axes[: 1 if "num_media" in options else 0]]
        latents = forms(draw, torch.randn(*lead, 2, made.latent_channels, generator=generator(draw)))
        if draw(one_in(6)):
            latents, wrong = (
                draw(
                    some(
                        latents[..., :-1],
                        latents[0],
                        latents.long(),
                        latents * math.nan,
                        *[
                            make(latents)
                            for key, make in NO_TENSORS.items()
                            if key not in ("meta", "nothing")
                        ],
                    )
                ),
                True,
            )
    answer = refused_if(wrong, made, x, mask, latents=latents)
    if isinstance(answer, Refused):
        return
    assert answer.isfinite().all() and answer.shape[-1] == made.output_channels
    x, mask, latents = copied(x), copied(mask), copied(latents)
    with torch.no_grad():
        again = made(x, mask, latents=latents)
        assert_close(answer, again.detach(), "the same values in other memory")
        for index in range(batch):
            part = slice(index, index + 1)
            alone = made(
                x[part],
                None if mask is None else mask[part],
                latents=None if latents is None else latents[part],
            )
            assert_close(alone[0], again[index], f"sample {index} alone")
        if mask is not None:
            other = made(
                torch.where(mask[..., None], x, draw(some(math.nan, math.inf, -1e20))), mask, latents=latents
            )
            assert torch.equal(other, again), "what is masked"
        elif x.ndim == 3:
            assert_close(
                made(x, torch.ones(x.shape[:2], dtype=torch.bool), latents=latents), again, "all real"
            )
        if made.positions is None and x.ndim == 3:
            order = torch.randperm(x.shape[1], generator=generator(draw))
            turned = made(x[:, order], None if mask is None else mask[:, order], latents=latents)
            assert_close(turned, again, "features in another order", tolerance=1e-4)


@cases(few=30)
@given(data=st.data())
def test_resamplers_that_are_built(data: st.DataObject) -> None:
    """Any options make one that gives what it says, or are refused."""
    draw = data.draw
    number = st.one_of(st.integers(-1, 6), some(None, 1.5, True, "2", math.nan))
    options: dict[str, Any] = {"channels": 4, "num_latents": 2, "depth": 1, "num_heads": 2}
    for key in (
        *options,
        "latent_channels",
        "output_channels",
        "num_kv_heads",
        "head_channels",
        "projection_channels",
        "num_positions",
        "num_frames",
        "num_media",
        "num_pooled_latents",
        "widening_factor",
        "norm_eps",
        "dropout",
        "attention_dropout",
    ):
        if draw(one_in(5)):
            options[key] = draw(number)
    kinds = {
        "feed_forward": ("gelu", "geglu", "swiglu", "relu", "squared_relu", "x", None),
        "norm": ("layer", "rms", "x", None),
        "norm_position": ("before", "after", "none", "x"),
        "input_projection": ("linear", "swiglu", "none", None, "x"),
        "latents_among_keys": (True, False),
        "qk_norm": (True, False),
    }
    for key, choices in kinds.items():
        if draw(one_in(3)):
            options[key] = draw(some(*choices))
    made = tried(lambda: PerceiverResampler(**options))
    if isinstance(made, Refused):
        return
    shape = [2, *[1] * ((made.media is not None) + (made.frames is not None)), 1, made.channels]
    answer = tried(made.eval(), torch.randn(shape))
    if isinstance(answer, Refused):
        assert made.latents is None and made.pooled_latents is None
        return
    assert answer.isfinite().all() and answer.shape[-1] == made.output_channels


# Positions


@cases(few=30)
@given(data=st.data())
def test_interpolation(data: st.DataObject) -> None:
    """Linear between elements, as SciPy has it."""
    draw = data.draw
    grid = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    batch, number, channels = draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    values = torch.randn(batch, math.prod(grid), channels, generator=generator(draw), dtype=torch.float64)
    own = draw(st.booleans())
    places = (
        torch.rand(batch if own else 1, number, len(grid), generator=generator(draw), dtype=torch.float64) * 2
        - 1
    )
    if draw(st.booleans()):
        places = places.round()
    spacing = draw(some("ends", "steps"))
    places = forms(draw, places)
    found = interpolate(values, grid, places if own else places[0], spacing=spacing).detach()
    for sample in range(batch):
        at = copied(places)[sample if own else 0].numpy()
        size = np.array(grid)
        where = (at + 1) / 2 * (size if spacing == "steps" else size - 1)
        where = np.minimum(where, size - 1)
        for channel in range(channels):
            field = values[sample, :, channel].reshape(grid).numpy()
            expected = map_coordinates(field, where.T, order=1, mode="nearest")
            np.testing.assert_allclose(found[sample, :, channel].numpy(), expected, atol=1e-9)


@cases(few=30)
@given(data=st.data())
def test_fourier_positions(data: st.DataObject) -> None:
    """The formula of the paper, for grids of any size, their elements and their coordinates."""
    draw = data.draw
    grid = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    resolution = tuple(draw(st.integers(1, 9)) for _ in grid)
    bands, with_coordinates = draw(st.integers(1, 4)), draw(st.booleans())
    encoding = FourierPositionEncoding(
        num_bands=bands, max_resolution=resolution, include_coordinates=with_coordinates
    )
    like = torch.zeros(1, dtype=draw(some(torch.float32, torch.float64)))
    whole = encoding(grid, like=like)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in grid], indexing="ij"), -1).reshape(
        -1, len(grid)
    )
    frequencies = [np.linspace(1.0, most / 2, bands) for most in resolution]
    phases = np.concatenate([np.pi * places[:, [axis]] * one for axis, one in enumerate(frequencies)], axis=1)
    parts = [places] * with_coordinates + [np.sin(phases), np.cos(phases)]
    expected = np.concatenate(parts, axis=1)
    assert whole.shape == (math.prod(grid), encoding.num_channels) and whole.dtype == like.dtype
    np.testing.assert_allclose(whole.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(grid_coordinates(grid).numpy(), places, atol=1e-6)
    coordinates = forms(draw, torch.from_numpy(places), keep=True)
    assert_close(encoding.at_coordinates(coordinates, like=like).detach(), whole, "coordinates")
    indices = torch.stack(torch.unravel_index(torch.arange(math.prod(grid)), grid), dim=-1)
    assert_close(encoding.at_indices(grid, forms(draw, indices, keep=True), like=like), whole, "indices")
    alone = fourier_features(
        coordinates, num_bands=bands, max_resolution=resolution, include_coordinates=with_coordinates
    )
    np.testing.assert_allclose(alone.detach().numpy(), expected, atol=1e-9)
    if draw(one_in(4)):
        wrong = draw(some((), (*grid, 1), (1,) * (len(grid) + 2)))
        assert_refused(encoding, wrong, like=like)


@cases(few=10)
@given(positions=st.lists(st.integers(0, 10**6), min_size=1, max_size=5), half=st.integers(1, 5))
def test_sinusoids(positions: list[int], half: int) -> None:
    found = sinusoids(torch.tensor(positions), 2 * half, like=torch.zeros((), dtype=torch.float64))
    for position, row in zip(positions, found.tolist(), strict=True):
        for k in range(half):
            frequency = 10_000.0 ** (-k / max(half - 1, 1))
            assert math.isclose(row[k], math.sin(position * frequency), abs_tol=1e-9)
            assert math.isclose(row[half + k], math.cos(position * frequency), abs_tol=1e-9)


# Points


@cases(few=30)
@given(data=st.data())
def test_ranges_and_parts_of_points(data: st.DataObject) -> None:
    draw = data.draw
    grid = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    total = math.prod(grid)
    start = draw(st.integers(0, total - 1))
    stop = draw(st.integers(start + 1, total))
    points = Points.of_range(grid, start, stop)
    expected = np.stack(np.unravel_index(np.arange(start, stop), grid), axis=-1)
    assert points.indices is not None and points.num_points == stop - start and not points.per_sample
    np.testing.assert_array_equal(points.indices.numpy(), expected)
    parsed = Points.parse(forms(draw, torch.arange(start, stop), keep=True), grid, name="x")
    assert parsed.indices is not None and torch.equal(parsed.indices, points.indices)
    cut = draw(st.integers(0, stop - start))
    assert torch.equal(
        torch.cat([points.part(0, cut).indices, points.part(cut, stop).indices]), points.indices
    )  # type: ignore[list-item]


@cases(few=30)
@given(data=st.data())
def test_points_that_are_drawn(data: st.DataObject) -> None:
    draw = data.draw
    batch, number = draw(st.integers(0, 3)), draw(st.integers(0, 6))
    known: Any = torch.rand(batch, number, generator=generator(draw)) < 0.5
    wanted = draw(some(1, 2, 3, 10, 0, -1, 1.5, "2", None, True))
    wrong = not known.numel() or isinstance(wanted, (bool, str, float)) or wanted is None or wanted < 1
    if draw(one_in(5)):
        odd = {key: make(known) for key, make in NO_TENSORS.items() if key not in ("meta",) and known.numel()}
        odd |= {"ints": known.long(), "one axis": known.flatten(), "three axes": known[None]}
        known, wrong = odd[draw(some(*odd))], True
    else:
        known = forms(draw, known)
    torch.manual_seed(0)
    answer = refused_if(wrong, draw_points, known, wanted)
    if isinstance(answer, Refused):
        return
    points, drawn = answer
    assert points.shape == drawn.shape and points.shape[1] >= 1
    for sample in range(batch):
        chosen = points[sample][drawn[sample]].tolist()
        real = known[sample].nonzero().flatten().tolist()
        assert len(chosen) == min(wanted, len(real)) == len(set(chosen)) and set(chosen) <= set(real)


# Batches and masks


@cases(few=40)
@given(data=st.data())
def test_ragged_batches(data: st.DataObject) -> None:
    """Samples lie where they should, and nothing else does."""
    draw = data.draw
    rank = draw(st.integers(0, 3))
    axes = sorted(draw(st.sets(st.integers(0, rank - 1)))) if rank else []
    fixed = [draw(st.integers(1, 3)) for _ in range(rank)]
    dtype = draw(some(torch.float32, torch.int64, torch.bool, torch.float16))
    samples: list[Any] = []
    for _ in range(draw(st.integers(0, 4))):
        shape = [draw(st.integers(1, 4)) if axis in axes else size for axis, size in enumerate(fixed)]
        samples.append(forms(draw, (torch.randn(shape, generator=generator(draw)) * 3).to(dtype)))
        if draw(one_in(5)):
            samples[-1] = None
    wrong = all(sample is None for sample in samples)
    if samples and draw(one_in(5)):
        place = draw(st.integers(0, len(samples) - 1))
        odd = [
            5,
            "x",
            [1.0],
            np.zeros(2),
            torch.zeros(0),
            torch.zeros([2] * (rank + 1)),
            torch.zeros(fixed).to_sparse(),
        ]
        samples[place] = draw(some(*odd))
        wrong = None if len(samples) == 1 or place == 0 else True  # type: ignore[assignment]
        if isinstance(samples[place], (int, str, list, np.ndarray)):
            wrong = True
    multiples = [draw(st.integers(1, 3)) for _ in axes] if draw(st.booleans()) else None
    answer = refused_if(wrong, pad_ragged, samples, axes=axes, multiples=multiples)
    if isinstance(answer, Refused) or wrong is None:
        return
    batch, mask = answer
    assert len(batch) == len(samples)
    for index, sample in enumerate(samples):
        if sample is None:
            assert not mask[index].any() and not batch[index].any()
            continue
        inside = tuple(slice(size) for size in sample.shape)
        assert torch.equal(batch[index][inside], copied(sample))
        assert batch[index].count_nonzero() == sample.count_nonzero()
        if mask is not None:
            assert int(mask[index].sum()) == math.prod(sample.shape[axis] for axis in axes)
            assert mask[index][tuple(slice(sample.shape[axis]) for axis in axes)].all()
    assert mask is not None or all(sample is not None for sample in samples)
    for axis, step in zip(axes, multiples or [], strict=False):
        assert batch.shape[1 + axis] % step == 0


@cases(few=40)
@given(data=st.data())
def test_masks_of_elements(data: st.DataObject) -> None:
    """An element is real where any of its window is, by a loop."""
    draw = data.draw
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    grid = [draw(st.integers(1, size)) for size in sizes]
    mask = torch.rand(draw(st.integers(1, 2)), *sizes, generator=generator(draw)) < draw(some(0.2, 0.8))
    mask = forms(draw, mask)
    found = element_mask(mask, grid).reshape(len(mask), *grid)
    for index in np.ndindex(*grid):
        window = tuple(
            slice(place * size // count, -(-(place + 1) * size // count))
            for place, size, count in zip(index, sizes, grid, strict=True)
        )
        expected = mask[(slice(None), *window)].flatten(1).any(dim=1)
        assert torch.equal(found[(slice(None), *index)], expected)
    patches = tried(patch_grid, sizes, grid, what="The image", unit="pixels")
    if not isinstance(patches, Refused):
        assert [one * step for one, step in zip(patches, grid, strict=True)] == sizes
    hidden = torch.rand(len(mask), math.prod(grid), generator=generator(draw)) < 0.5
    left = refused_if(
        any(size % count for size, count in zip(sizes, grid, strict=True)), spread_mask, hidden, grid, mask
    )
    if isinstance(left, Refused):
        return
    assert torch.equal(element_mask(left, grid) & hidden, torch.zeros_like(hidden)) or not mask.any()
    assert torch.equal(left & ~mask, torch.zeros_like(mask))


@cases(few=40)
@given(data=st.data())
def test_byte_arrays_that_are_packed(data: st.DataObject) -> None:
    """Each input lies where its segment says, beside its padding; what is no byte array is refused."""
    draw = data.draw
    names = draw(st.lists(some("a", "b", "c"), min_size=1, max_size=3, unique=True))
    channels = {name: draw(st.integers(1, 4)) for name in names}
    batch = draw(st.integers(1, 3))
    packer = ByteArrayPacker(channels, config=PackingConfig(min_padding=draw(st.integers(0, 2)))).eval()
    parts: dict[str, ByteArray] = {}
    for name in names:
        if parts and draw(one_in(4)):
            continue
        length = draw(st.integers(1, 4))
        values: Any = torch.randn(batch, length, channels[name], generator=generator(draw))
        mask, is_right = masks(draw, [batch, length], odd=draw(one_in(4)))
        wrong = not is_right
        grid, content = draw(some(None, (length,), (1, length))), draw(st.integers(0, channels[name]))
        if draw(one_in(8)):
            grid, content, values = draw(
                some(
                    ((length + 1,), content, values),
                    (grid, -1, values),
                    (grid, channels[name] + 1, values),
                    (grid, content, values[0]),
                    (grid, content, values.long()),
                    (grid, content, values.tolist()),
                    (grid, content, None),
                )
            )
            wrong = True
        answer = refused_if(
            wrong, ByteArray, values=values, mask=mask, grid=grid, num_content_channels=content
        )
        if isinstance(answer, Refused):
            return
        parts[name] = answer
    packed, segments = packer(parts)
    assert list(segments) == sorted(parts) and packed.values.shape[-1] == packer.num_channels
    for name, segment in segments.items():
        place = slice(segment.start, segment.start + segment.length)
        assert torch.equal(packed.values[:, place, : channels[name]], parts[name].values)
        mask = parts[name].mask
        if packed.mask is not None:
            expected = torch.ones(batch, segment.length, dtype=torch.bool) if mask is None else mask
            assert torch.equal(packed.mask[:, place], expected)
        else:
            assert mask is None
    assert sum(segment.length for segment in segments.values()) == packed.values.shape[1]

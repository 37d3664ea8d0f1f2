"""Encoding and decoding with odd inputs, masks, points, grids and chunks: right answers, or a refusal.

What is decoded is compared with the whole output: points with its elements, grids with their points, chunks with all at
once, samples with themselves alone.

Shape legend: B batch, O points, A axes of an output's grid, V values of a point.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fuzz.decoding_models import MODELS, model
from fuzz.odd_tensors import NO_TENSORS, assert_close, copied, forms, generator, masks, one_in, refused_if
from fuzz.trials import Refused, cases, tried
from perceiver_io import DenseDecoder, PerceiverIO
from perceiver_io.decoder import Encoded

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

NO_MAPPINGS = (
    5,
    "image",
    "label",
    ["image"],
    {5: 1},
    {5: None, "z": None},
    torch.ones(2),
    torch.ones(1),
    (),
    0,
    False,
)
NO_COUNTS = (0, -1, 1.5, "3", True, math.nan, (2,), torch.ones(2), b"1", -(2**70))


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@st.composite
def batches(draw: Any, name: str, *, odd: bool) -> tuple[Any, Any, bool | None]:
    """Inputs and masks of a model, and whether they have to be refused; None where they may be."""
    made = MODELS[name]["inputs"]
    batch, wrong = draw(st.integers(1, 3)), False
    inputs: dict[str, Any] = {}
    given_masks: dict[str, Any] = {}
    real, extra_real = torch.zeros(batch, dtype=torch.bool), True
    for key in made:
        if inputs and draw(one_in(5)):  # one may be missing
            continue
        rows = batch + (odd and draw(one_in(60)))
        x, mask_shape = _raw(draw, key, rows)
        mask, is_right = masks(draw, mask_shape, odd=odd and draw(one_in(8)))
        wrong = wrong or not is_right
        if is_right:
            some_real = torch.ones(rows, dtype=torch.bool) if mask is None else mask.flatten(1).any(dim=1)
            real[: len(some_real)] |= some_real[:batch]
            extra_real = extra_real and bool(some_real[batch:].all())
        x = forms(draw, x) if key != "table" else x
        if odd and draw(one_in(30)):
            x, wrong = NO_TENSORS[draw(st.sampled_from(list(NO_TENSORS)))](x), True
        inputs[key] = x
        if mask is not None:
            given_masks[key] = mask
        elif odd and draw(one_in(30)):  # what is said by leaving it out
            given_masks[key] = None
    wrong = wrong or len({len(x) for x in inputs.values() if isinstance(x, Tensor) and x.ndim}) > 1
    result: list[Any] = [inputs, given_masks or None]
    if odd and draw(one_in(20)):
        place = draw(st.integers(0, 1))
        result[place] = draw(st.sampled_from(NO_MAPPINGS))
        wrong = True
    if not wrong and any(mask is None for mask in given_masks.values()):
        wrong_or_not: bool | None = None
    else:
        wrong_or_not = True if wrong else (False if real.all() and extra_real else None)
    return result[0], result[1], wrong_or_not


def _raw(draw: Any, key: str, batch: int) -> tuple[Tensor, list[int]]:
    """An input of some size, and the shape of its mask."""
    if key == "image":
        size = [2 * draw(st.integers(1, 4)) for _ in range(2)]
        return torch.randn(batch, 1, *size, generator=generator(draw)), [batch, *size]
    length = draw(st.integers(1, 6))
    if key == "cloud":
        return torch.randn(batch, length, 3, generator=generator(draw)), [batch, length]
    if key == "text":
        return torch.randint(7, (batch, length), generator=generator(draw)), [batch, length]
    rows = torch.randn(batch, 2, generator=generator(draw))
    rows[:, 1] = torch.randint(3, (batch,), generator=generator(draw))
    return rows, [batch, 2]


@cases(few=60)
@given(data=st.data())
def test_encode(data: st.DataObject) -> None:
    name = data.draw(some(*MODELS))
    made = model(name)
    inputs, given_masks, wrong = data.draw(batches(name, odd=True))
    with torch.set_grad_enabled(data.draw(st.booleans())):
        encoded = refused_if(wrong, made.encode, inputs, given_masks)
    if isinstance(encoded, Refused):
        return
    latents = encoded.latents
    assert latents.isfinite().all()
    inputs = {key: copied(x) for key, x in inputs.items()}
    given_masks = {key: copied(mask) for key, mask in (given_masks or {}).items()}
    with torch.no_grad():
        assert_close(made.encode(inputs, given_masks).latents, latents, "the same in other memory")
        CHECKS[data.draw(some(*CHECKS))](data.draw, made, inputs, given_masks, latents)


def check_alone(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    for index in range(len(latents)):
        part = slice(index, index + 1)
        alone = made.encode(
            {key: x[part] for key, x in inputs.items()},
            {key: mask[part] for key, mask in given_masks.items() if mask is not None},
        )
        assert_close(alone.latents[0], latents[index], f"sample {index} alone")


def check_call(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    """Encoding, then decoding, equals the call, with names of arguments, too."""
    found = tried(made, inputs, given_masks)
    encoded = made.encode(inputs, given_masks)
    decoded = tried(made.decode, encoded)
    assert isinstance(found, Refused) == isinstance(decoded, Refused)
    if isinstance(found, Refused):
        return
    assert list(found.outputs) == list(made.decoders) == list(decoded)
    assert torch.equal(found.latents, encoded.latents)
    for name, value in decoded.items():
        assert torch.equal(found[name], value) and value.isfinite().all()
        assert torch.equal(made.decode(encoded, [name])[name], value), "latents are used again"


def check_masked(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    """What is masked may be anything."""
    other = dict(inputs)
    for key, mask in given_masks.items():
        if mask is None or key == "text":
            continue
        spread = mask[:, None] if key == "image" else mask[..., None] if key == "cloud" else mask
        other[key] = torch.where(spread, inputs[key], draw(some(math.nan, math.inf, -1e20)))
    assert torch.equal(made.encode(other, given_masks).latents, latents)


def check_hidden(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    """What is hidden may be anything, as far as elements are of their own."""
    key = draw(some(*sorted(inputs)))
    if key in ("image", "table"):
        return
    hidden = torch.rand(inputs[key].shape[:2], generator=generator(draw)) < 0.5
    first = tried(made.encode, inputs, given_masks, hidden={key: forms(draw, hidden, keep=True)})
    if isinstance(first, Refused):
        return
    other = inputs[key].flip(1) if key == "text" else inputs[key] + 1
    spread = hidden if key == "text" else hidden[..., None]
    other = torch.where(spread, other, inputs[key])
    second = made.encode({**inputs, key: other}, given_masks, hidden={key: hidden})
    assert_close(second.latents, first.latents, "what is hidden")
    wrong = draw(
        some(hidden.long(), hidden.float(), hidden[0], hidden[:, :0], None, "x", 1, hidden.to_sparse())
    )
    assert isinstance(tried(made.encode, inputs, given_masks, hidden={key: wrong}), Refused)


def check_maps(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    chosen = draw(
        some(None, [0], [2, 0], (1,), range(3), [], [3], [-1], [1.5], ["x"], "x", 5, torch.tensor([1, 2]))
    )
    maps = tried(made.attention_maps, inputs, given_masks, latents=chosen)
    if isinstance(maps, Refused):
        return
    for one in maps:
        weights = torch.cat([value.flatten(3) for value in one.weights.values()], dim=-1)
        count = 3 if chosen is None else len(chosen)
        assert weights.shape[:3] == (len(latents), 1, count)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        logits = (
            torch.cat([(one.content[key] + one.position[key]).flatten(3) for key in one.weights], dim=-1)
            + one.bias[..., None]
        )
        ratios = (weights.clamp(min=1e-30).log() - logits)[weights > 1e-20]
        assert ratios.isfinite().all()


def check_layers(draw: Any, made: PerceiverIO, inputs: Any, given_masks: Any, latents: Tensor) -> None:
    asked = {
        name: draw(some(None, True, False, True, False, 1, "yes"))
        for name in ("return_dict", "output_hidden_states", "output_attentions")
        if draw(st.booleans())
    }
    wrong = (
        True
        if any(isinstance(value, (int, str)) and not isinstance(value, bool) for value in asked.values())
        else None
    )
    found = refused_if(wrong, made, inputs, given_masks, **asked)
    if isinstance(found, Refused):
        return
    if asked.get("return_dict") is False:
        assert isinstance(found, tuple) and torch.equal(found[0], latents)
        return
    assert torch.equal(found.latents, latents)
    if asked.get("output_hidden_states"):
        assert torch.equal(found["hidden_states"][-1], latents)
    if asked.get("output_attentions"):
        for weights in (*found["attentions"], *found["cross_attentions"]):
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


CHECKS = {
    "alone": check_alone,
    "call": check_call,
    "masked": check_masked,
    "hidden": check_hidden,
    "maps": check_maps,
    "layers": check_layers,
}


# Decoding


@st.composite
def encodings(draw: Any) -> tuple[str, Encoded]:
    """An encoded batch of one of two models; the same few, so that most time is spent on decoding."""
    name = draw(some("image", "mixture"))
    seed = draw(st.integers(0, 9))
    return name, _encoded(name, seed)


_KNOWN: dict[tuple[str, int], Encoded] = {}


def _encoded(name: str, seed: int) -> Encoded:
    if (name, seed) not in _KNOWN:
        random = torch.Generator().manual_seed(seed)
        batch, height, width, length = (
            [1, 2, 3][seed % 3],
            2 + 2 * (seed % 4),
            2 + 2 * (seed % 3),
            1 + seed % 6,
        )
        inputs = {
            "image": torch.randn(batch, 1, height, width, generator=random),
            "cloud": torch.randn(batch, length, 3, generator=random),
            "text": torch.randint(7, (batch, length), generator=random),
        }
        chosen = {key: x for key, x in inputs.items() if key in MODELS[name]["inputs"]}
        given_masks = {}
        if seed % 2 and length > 1:
            mask = torch.ones(batch, length, dtype=torch.bool)
            mask[:, -1] = False
            given_masks = {key: mask for key in ("cloud", "text") if key in chosen}
        with torch.no_grad():
            _KNOWN[name, seed] = model(name).encode(chosen, given_masks)
    return _KNOWN[name, seed]


def flat(made: PerceiverIO, encoded: Encoded, name: str) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    """(B, O, V) all points of an output, out of its whole, with NumPy; and its grid."""
    decoder = made.decoders[name]
    assert isinstance(decoder, DenseDecoder)
    grid, config = decoder.query_grid(encoded), decoder.config
    with torch.no_grad():
        whole = made.decode(encoded, [name])[name].numpy()
    if config.channel_axis is None:
        whole = whole[..., None]
    else:
        place = config.channel_axis
        whole = np.moveaxis(whole, place + 1 if place >= 0 else place, -1)
    patch = config.patch_size or (1,) * len(grid)
    rows = []
    for index in np.ndindex(*grid):
        part = whole[(slice(None), *(slice(i * p, i * p + p) for i, p in zip(index, patch, strict=True)))]
        rows.append(part.reshape(len(whole), -1))
    return np.stack(rows, axis=1), grid


@st.composite
def points_of(
    draw: Any, grid: tuple[int, ...], batch: int
) -> tuple[Any, bool | None, np.ndarray[Any, Any] | None]:
    """Points, whether they have to be refused, and the row-major indices (B, O) that they are, if they are any."""
    count, total = draw(st.integers(1, 6)), math.prod(grid)
    random = generator(draw)
    own = draw(st.booleans())
    indices = torch.randint(total, (batch if own else 1, count), generator=random)
    kind = draw(some("flat", "axes", "coordinates", "axes", "flat", "odd"))
    if kind == "coordinates":
        dtype = draw(some(torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
        values = torch.rand(*indices.shape, len(grid), generator=random) * 2 - 1
        if draw(one_in(8)):
            values.view(-1)[0] = draw(some(math.nan, math.inf, 1.0001, -2.0, 1e20))
        values = (values if own else values[0]).to(dtype)
        if dtype in (torch.float16, torch.bfloat16):
            return values, True, None
        values = forms(draw, values)
        return values, not bool((values.abs() <= 1).all()), None
    if kind == "odd":
        return draw(
            some(
                *[
                    (make(indices), True, None)
                    for key, make in NO_TENSORS.items()
                    if key not in ("nothing", "jagged")
                ],
                (indices[:, :0], True, None),
                (indices[0][:0], True, None),
                (indices[None, None], True, None),
                (torch.tensor(0), True, None),
                (indices > 0, True, None),
                (None, False, None),
            )
        )
    dtype = draw(some(torch.int64, torch.int64, torch.int32, torch.uint8, torch.int16, torch.int8))
    values = forms(draw, indices)
    where = np.broadcast_to(copied(values).numpy(), (batch, count))
    if kind == "axes":
        values = torch.stack(torch.unravel_index(values, grid), dim=-1)
    wrong = False
    if draw(one_in(8)):
        values = copied(values)
        values.view(-1)[draw(st.integers(0, values.numel() - 1))] = draw(some(-1, total, 100))
        wrong = True
    if not own:
        values = values[0]
    elif kind == "flat" and values.shape[-1] == len(grid):
        return values, None, None  # read as one for each axis
    return (
        values.to(dtype),
        None if wrong and kind == "axes" else wrong,
        None if wrong else where,
    )


@cases(few=60)
@given(data=st.data())
def test_points(data: st.DataObject) -> None:
    name, encoded = data.draw(encodings())
    made, batch = model(name), len(encoded.latents)
    output = data.draw(some(*[key for key, one in made.decoders.items() if isinstance(one, DenseDecoder)]))
    expected, grid = flat(made, encoded, output)
    points, wrong, where = data.draw(points_of(grid, batch))
    if isinstance(points, Tensor) and points.is_floating_point() and output == "each_point":
        wrong = True if wrong else None  # nothing lies between the elements of a set
    chunk_size = data.draw(some(None, None, 1, 2, 3, 1000))
    with torch.set_grad_enabled(data.draw(st.booleans())):
        answer = refused_if(wrong, made.decode, encoded, points={output: points}, chunk_size=chunk_size)
    if isinstance(answer, Refused) or points is None:
        return
    assert list(answer) == [output]
    values = answer[output].detach()
    assert values.shape[0] == batch and values.shape[2] == expected.shape[2] and values.isfinite().all()
    if where is not None:
        assert values.shape[1] == where.shape[1]
        chosen = np.take_along_axis(expected, where[..., None], axis=1)
        assert_close(values, torch.from_numpy(chosen), "points of the whole")
        return
    # Coordinates: in another order, and each alone.
    order = torch.randperm(values.shape[1], generator=generator(data.draw))
    turned = made.decode(encoded, points={output: points[..., order, :].detach()}, chunk_size=2)[output]
    assert_close(turned.detach(), values[:, order], "points in another order")
    alone = made.decode(encoded, points={output: points[..., :1, :].detach()})[output]
    assert_close(alone.detach(), values[:, :1], "a point alone")


@cases(few=60)
@given(data=st.data())
def test_grids(data: st.DataObject) -> None:
    name, encoded = data.draw(encodings())
    made = model(name)
    output = data.draw(some(*made.decoders))
    decoder = made.decoders[output]
    dense = isinstance(decoder, DenseDecoder)
    nominal = decoder.query_grid(encoded) if dense else (2,)  # type: ignore[union-attr]
    size = st.integers(1, 6)
    grid: Any = tuple(data.draw(size) for _ in nominal)
    wrong: bool | None = None if dense else True
    if data.draw(one_in(4)):
        odd = some(
            0, -1, 1.5, "3", True, None, torch.tensor(2), np.int64(2), np.float32(2), math.nan, (2,), -(2**70)
        )
        place = data.draw(st.integers(0, len(grid) - 1))
        value = data.draw(odd)
        grid = (*grid[:place], value, *grid[place + 1 :])
        wrong = None if isinstance(value, (Tensor, np.int64)) else True
    elif data.draw(one_in(6)):
        grid, wrong = data.draw(
            some(
                ((*grid, 1), True),
                ((), True),
                ("23", True),
                (5, True),
                (torch.tensor(grid), None),
                ({1: 2}, True),
            )
        )
    elif data.draw(st.booleans()):
        grid = data.draw(some(nominal, list(grid), torch.Size(grid)))
    chunk_size = data.draw(some(None, 1, 3, 1000))
    with torch.no_grad():
        answer = refused_if(wrong, made.decode, encoded, grids={output: grid}, chunk_size=chunk_size)
        if isinstance(answer, Refused) or not isinstance(decoder, DenseDecoder):
            return
        whole = answer[output]
        assert whole.isfinite().all() and len(whole) == len(encoded.latents)
        sizes = tuple(int(one) for one in grid)
        if sizes == tuple(nominal):
            assert_close(whole, made.decode(encoded, [output])[output], "its own grid")
        # A grid is its points: from -1 to 1, or from -1 on in equal steps.
        if decoder.config.position == "learned":
            return
        if (
            decoder.config.query_input is not None and min(sizes) < 2
        ):  # an axis of one element is at its beginning
            return
        axes = [
            torch.linspace(-1, 1, one)
            if decoder.config.spacing == "ends"
            else -1 + 2 * torch.arange(one) / one
            for one in sizes
        ]
        places = torch.tensor(list(itertools.product(*[axis.tolist() for axis in axes])))
        points = tried(made.decode, encoded, points={output: places})
        if isinstance(points, Refused):
            return
        values, axis = points[output], decoder.config.channel_axis
        if decoder.config.patch_size is not None:
            return
        moved = whole[..., None] if axis is None else whole.movedim(axis + 1 if axis >= 0 else axis, -1)
        assert_close(values, moved.flatten(1, -2), "a grid and its points", tolerance=1e-4)


@cases(few=60)
@given(data=st.data())
def test_requests(data: st.DataObject) -> None:
    """Names, chunks, budgets and what is no encoded batch."""
    name, encoded = data.draw(encodings())
    made, wrong = model(name), False
    arguments: dict[str, Any] = {}
    known = list(made.decoders)
    names: Any = data.draw(st.lists(some(*known), max_size=3))
    if data.draw(st.booleans()):
        if data.draw(one_in(5)):
            names = data.draw(
                some("label", ["nobody"], 5, [5], [None], ["label", 5], [["label"]], torch.ones(2), b"x")
            )
            wrong = True
        elif data.draw(one_in(5)):
            names = data.draw(some(iter(names), tuple(names), dict.fromkeys(names), set(names)))
        arguments["outputs"] = names
    for key in ("chunk_size", "memory_budget"):
        if data.draw(st.booleans()):
            arguments[key] = data.draw(some(None, 1, 2, 7, 10**6, 2**70, np.int64(3)))
            if data.draw(one_in(6)):
                arguments[key] = data.draw(some(*NO_COUNTS))
                wrong = True
    for key in ("points", "grids"):
        if data.draw(one_in(12)):
            arguments[key] = data.draw(some(*NO_MAPPINGS))
            wrong = True
    done: list[int] = []
    if data.draw(st.booleans()):
        arguments["on_decoded"] = done.append
    given_encoded: Any = encoded
    if data.draw(one_in(15)):
        narrow = Encoded(latents=encoded.latents[..., :-1], byte_arrays=encoded.byte_arrays)
        given_encoded = data.draw(some(None, "x", encoded.latents, {"latents": encoded.latents}, narrow, 5))
        wrong = True
    with torch.no_grad():
        answer = refused_if(wrong, made.decode, given_encoded, **arguments)
        if isinstance(answer, Refused):
            return
        whole = made.decode(encoded)
    if isinstance(names, list) and arguments.get("outputs") is not None:
        assert list(answer) == list(dict.fromkeys(names))
    for key, value in answer.items():
        assert_close(value, whole[key], f"{key} in chunks")
    if arguments.get("on_decoded") and isinstance(names, list):
        asked = arguments.get("outputs") if arguments.get("outputs") is not None else known
        counts = [
            math.prod(one.query_grid(encoded))
            for one in (made.decoders[key] for key in asked)
            if isinstance(one, DenseDecoder)
        ]
        assert sum(done) == sum(counts)


@cases(few=20)
@given(data=st.data())
def test_training(data: st.DataObject) -> None:
    """All gradients are there and finite, whatever is missing, masked, hidden and asked for."""
    name = data.draw(some(*MODELS))
    inputs, given_masks, _ = data.draw(batches(name, odd=False))
    made = copy.deepcopy(model(name)).train()
    torch.manual_seed(data.draw(st.integers(0, 99)))
    names = data.draw(st.lists(some(*made.decoders), min_size=1, max_size=3))
    answer = tried(made, inputs, given_masks, outputs=names)
    if isinstance(answer, Refused):
        return
    assert all(value.isfinite().all() for value in answer.outputs.values())
    sum(value.pow(2).sum() for value in answer.outputs.values()).backward()
    for key, parameter in made.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_the_same_bits(name: str, tmp_path: Any) -> None:
    made = model(name)
    made.save_pretrained(tmp_path)
    twin = PerceiverIO.from_pretrained(tmp_path).eval()
    encoded = _encoded(name, 4) if name != "tokens" else made.encode({"text": torch.randint(7, (2, 3))})
    with torch.no_grad():
        first, second = made.decode(encoded), twin.decode(encoded)
    assert all(torch.equal(first[key], second[key]) for key in first)

"""Adapters with odd settings and inputs of odd sizes, drawn for each registered one.

Shape legend: as in the adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fuzz.odd_tensors import NO_TENSORS, SPECIAL, forms, generator, masks, one_in
from perceiver_io.adapters import (
    AudioAdapter,
    FeaturesAdapter,
    FramePairAdapter,
    ImageAdapter,
    LabelAdapter,
    PixelSequenceAdapter,
    PointCloudAdapter,
    SpectrogramAdapter,
    TableAdapter,
    TextAdapter,
    TimeSeriesAdapter,
    VideoAdapter,
)

__all__ = ["KINDS", "OddCase", "odd_cases"]


@dataclass
class Kind:
    """What an adapter is made with, and what it takes."""

    adapter_class: type
    fields: dict[str, Any]
    shape: list[int]
    mask_axes: tuple[int, ...]
    count: int | None = None
    values: Callable[[Tensor], Tensor] | None = None


@dataclass
class OddCase:
    """An adapter's settings, an input and a mask.

    Attributes:
        fields: Settings.
        fields_are_odd: Whether one of them is of another kind.
        x: The input.
        mask: The mask.
        wrong: Whether the input or the mask has to be refused; None where either is right.
        mask_axes: Axes of the input that the mask has.
    """

    adapter_class: type
    fields: dict[str, Any]
    fields_are_odd: bool
    x: Any
    mask: Any
    wrong: bool | None
    mask_axes: tuple[int, ...] = field(default=())


def _some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def _few(low: int = 1, high: int = 4) -> st.SearchStrategy[int]:
    return st.integers(low, high)


def _maybe(draw: Any, **options: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Some of the settings; the others have their defaults."""
    return {name: draw(strategy) for name, strategy in options.items() if draw(st.booleans())}


def _extent(draw: Any) -> dict[str, Any]:
    return {"position_extent": draw(_some("input", "nominal"))}


def _audio(draw: Any) -> Kind:
    step, channels = draw(_some(1, 2, 3, 4, 6, 7)), draw(_some(1, 1, 2, 3))
    fields = {
        "num_samples": step * draw(_few()),
        "audio_channels": channels,
        "samples_per_patch": step,
        "num_bands": draw(_few(1, 3)),
        **_extent(draw),
        **_maybe(
            draw,
            max_resolution=_some(None, 1, 7),
            include_coordinates=st.booleans(),
            scale=_some(1.0, 0.5, 30.0, 1e-30, 1e30),
        ),
    }
    if draw(one_in(3)):
        fields |= {"features": "conv", "feature_channels": draw(_some(None, 1, 3))}
    shape = [draw(_few(1, 3)), *[channels] * (channels > 1), step * draw(_few())]
    return Kind(AudioAdapter, fields, shape, (0, len(shape) - 1))


def _features(draw: Any) -> Kind:
    position, longest, width = draw(_some("none", "fourier", "learned")), draw(_few(1, 6)), draw(_few())
    fields = {
        "num_features": width,
        "position": position,
        "max_length": longest,
        "num_bands": draw(_few(1, 3)),
        "position_channels": draw(_few()),
    }
    length = draw(_few(1, longest if position == "learned" else 8))
    return Kind(FeaturesAdapter, fields, [draw(_few(1, 3)), length, width], (0, 1))


def _frame_pair(draw: Any) -> Kind:
    channels = draw(_some(1, 3, 2))
    fields = {
        "size": (draw(_few(1, 9)), draw(_few(1, 9))),
        "image_channels": channels,
        "feature_channels": draw(_some(4, 8, 12)),
        "num_bands": draw(_few(1, 3)),
        **_extent(draw),
        **_maybe(draw, max_resolution=_some(None, (1, 1), (8, 3)), include_coordinates=st.booleans()),
    }
    if draw(st.booleans()):
        fields |= _maybe(draw, num_convolutions=_few(1, 3), num_residual_convolutions=_few(0, 2))
        fields |= {"features": "conv_stem", "matching_radius": draw(_few(0, 2))}
    else:
        fields |= {"neighbourhood": draw(_some(1, 3, 5))}
    size = fields["size"] if draw(st.booleans()) else (draw(_few(1, 9)), draw(_few(1, 9)))
    return Kind(FramePairAdapter, fields, [draw(_few(1, 3)), 2, channels, *size], (0, 3, 4))


def _image(draw: Any) -> Kind:
    features = draw(_some("pixels", "patches", "conv1x1", "conv", "conv_stem"))
    channels, step = draw(_some(1, 3, 2)), draw(_few(1, 3)) if features == "patches" else 1
    least = 1
    fields = {
        "image_channels": channels,
        "features": features,
        "patch_size": step,
        "position": draw(_some("fourier", "learned", "none")),
        "num_bands": draw(_few(1, 3)),
        "position_channels": draw(_few(1, 5)),
        **_maybe(
            draw,
            max_resolution=_some(None, (1, 1), (8, 3)),
            include_coordinates=st.booleans(),
            position_projection=_some(None, 1, 4),
        ),
    }
    if draw(one_in(4)):
        fields |= {"combine": "add", "position_projection": channels * step**2}
    if features in ("conv1x1", "conv", "conv_stem"):
        width = draw(_some(4, 8, 12))
        fields |= {"feature_channels": width}
        if fields.get("combine") == "add":
            fields["position_projection"] = width
    if features == "conv_stem":
        fields |= _maybe(draw, num_convolutions=_few(1, 3), num_residual_convolutions=_few(0, 2))
    if features == "conv" and draw(one_in(3)):
        fields["conv_padding"], least = "symmetric", 5
    else:
        fields |= _extent(draw)
    nominal = tuple(step * draw(_few(least, least + 5)) for _ in range(2))
    fields["size"] = nominal
    size = nominal if draw(st.booleans()) else tuple(step * draw(_few(least, least + 8)) for _ in range(2))
    if fields.get("position_extent") == "nominal" and fields["position"] == "learned":
        size = tuple(map(min, size, nominal))
    return Kind(ImageAdapter, fields, [draw(_few(1, 3)), channels, *size], (0, 2, 3))


def _label(draw: Any) -> Kind:
    classes, batch = draw(_few(1, 5)), draw(_few(1, 4))
    if draw(st.booleans()):
        return Kind(LabelAdapter, {"num_classes": classes}, [batch], (0,), count=classes)
    return Kind(LabelAdapter, {"num_classes": classes}, [batch, classes], (0,))


def _pixel_sequence(draw: Any) -> Kind:
    size = draw(_some((1,), (3,), (2, 3), (1, 1), (2, 1, 3), (1, 2, 1, 2)))
    special = draw(_few(1, 3))
    fields = {
        "vocab_size": special + draw(_few(1, 5)),
        "size": size,
        "num_channels": draw(_few()),
        "num_special_tokens": special,
    }
    longest = 1 + torch.Size(size).numel()
    return Kind(
        PixelSequenceAdapter,
        fields,
        [draw(_few(1, 3)), draw(_few(1, longest))],
        (0, 1),
        count=fields["vocab_size"],
    )


def _point_cloud(draw: Any) -> Kind:
    axes, features = draw(_few(1, 4)), draw(_few(0, 3))
    fields: dict[str, Any] = {"num_axes": axes, "num_features": features, "num_bands": draw(_few(1, 3))}
    where = draw(_some("default", "scale", "bounds"))
    if where == "scale":
        fields["scale"] = draw(_some(1.0, 1e-3, 1e6, 1e-30, 1e-45, 1e30))
    elif where == "bounds":
        low, high = draw(_some((-1.0, 1.0), (0.0, 1e-3), (1e6, 1e6 + 1), (-1e30, 1e30), (-1e-30, 0.0)))
        fields |= {"minimum": (low,) * axes, "maximum": (high,) * axes}
    if draw(st.booleans()):
        fields["max_resolution"] = draw(_some(None, (1,) * axes, (9,) * axes))
    return Kind(PointCloudAdapter, fields, [draw(_few(1, 3)), draw(_few(1, 6)), axes + features], (0, 1))


def _spectrogram(draw: Any) -> Kind:
    bands = draw(_few(1, 6))
    fields: dict[str, Any] = {
        "position": draw(_some("fourier", "learned", "none")),
        "num_bands": draw(_few(1, 3)),
        "position_channels": draw(_few()),
        **_extent(draw),
        **_maybe(draw, max_resolution=_some(None, (1, 1), (8, 3)), include_coordinates=st.booleans()),
    }
    step = 4
    if draw(one_in(3)):
        fields |= {"features": "conv", "feature_channels": draw(_some(None, 1, 3))}
    elif draw(st.booleans()):
        step, each = draw(_few(1, 3)), draw(_few(1, 2))
        bands *= each
        fields["patch_size"] = (step, each)
    nominal, number = draw(_few()), draw(_few(1, 6))
    if fields["position_extent"] == "nominal" and fields["position"] == "learned":
        number = min(nominal, number)
    fields["size"] = (nominal * step, bands)
    return Kind(SpectrogramAdapter, fields, [draw(_few(1, 3)), number * step, bands], (0, 1))


def _table(draw: Any) -> Kind:
    number = st.tuples(st.just("number"), _some(0.0, -5.0, 1e6), _some(1.0, 0.1, 1e6, 1e-30, 1e30))
    columns = draw(
        st.lists(st.one_of(number, st.tuples(st.just("category"), _few(1, 4))), min_size=1, max_size=4)
    )
    fields = {
        "columns": tuple(columns),
        "num_channels": draw(_few()),
        "position_channels": draw(_few()),
        "num_frequencies": draw(_few(1, 3)),
    }

    def values(x: Tensor) -> Tensor:
        for index, column in enumerate(columns):
            if column[0] == "category":
                x[:, index] = (x[:, index].abs() * 100).floor() % column[1]
            elif column[2] < 1e-20:
                x[:, index] = column[1]
        return x

    return Kind(TableAdapter, fields, [draw(_few(1, 4)), len(columns)], (0, 1), values=values)


def _text(draw: Any) -> Kind:
    position = draw(_some("learned", "fourier", "sinusoidal", "none"))
    longest, width = draw(_few(1, 8)), 2 * draw(_few(1, 3))
    fields = {
        "vocab_size": draw(_few(1, 6)),
        "max_length": longest,
        "num_channels": width,
        "position": position,
        "num_bands": draw(_few(1, 3)),
        "counts_real": draw(one_in(4)),
    }
    if not fields["counts_real"] and position != "sinusoidal" and draw(one_in(3)):
        fields |= {
            "features": "conv",
            "kernel_size": draw(_some(1, 3, 5)),
            "num_convolutions": draw(_few(1, 3)),
            **_maybe(draw, embedding_channels=_some(None, 1, 3)),
        }
    length = draw(_few(1, longest if position == "learned" else 9))
    return Kind(TextAdapter, fields, [draw(_few(1, 3)), length], (0, 1), count=fields["vocab_size"])


def _time_series(draw: Any) -> Kind:
    variables, first = draw(_few(1, 3)), draw(_some(0.0, -3.0, 1e9))
    fields = {
        "num_variables": variables,
        "time_range": (first, first + draw(_some(1.0, 1e-3, 1e6, 1e30))),
        "num_bands": draw(_few(1, 3)),
        **_maybe(draw, max_resolution=_some(None, 1, 9)),
    }

    low, high = fields["time_range"]

    def values(x: Tensor) -> Tensor:
        x[..., 0] = low + (high - low) * x[..., 0]
        return x

    shape = [draw(_few(1, 3)), draw(_few(1, 6)), 1 + variables]
    return Kind(TimeSeriesAdapter, fields, shape, (0, 1), values=values)


def _video(draw: Any) -> Kind:
    channels, patch = draw(_some(1, 3, 2)), tuple(draw(_few(1, 2)) for _ in range(3))
    fields: dict[str, Any] = {
        "image_channels": channels,
        "num_bands": draw(_few(1, 3)),
        **_extent(draw),
        **_maybe(draw, max_resolution=_some(None, (1, 1, 1), (2, 8, 3)), include_coordinates=st.booleans()),
    }
    if draw(one_in(3)):
        patch = (1, 4, 4)
        fields |= {"features": "conv", "feature_channels": draw(_some(1, 3))}
    fields["patch_size"] = patch
    nominal, size = (tuple(step * draw(_few(1, 2)) for step in patch) for _ in range(2))
    fields["size"] = nominal
    return Kind(VideoAdapter, fields, [draw(_few(1, 2)), size[0], channels, *size[1:]], (0, 1, 3, 4))


KINDS: dict[str, Callable[[Any], Kind]] = {
    "audio": _audio,
    "features": _features,
    "frame-pair": _frame_pair,
    "image": _image,
    "label": _label,
    "pixel-sequence": _pixel_sequence,
    "point-cloud": _point_cloud,
    "spectrogram": _spectrogram,
    "table": _table,
    "text": _text,
    "time-series": _time_series,
    "video": _video,
}

_ODD_SETTINGS = (0, -1, 1.5, "x", None, True, (), (0,), (1, 1, 1, 1), float("nan"), float("inf"))


@st.composite
def odd_cases(draw: Any, name: str, *, odd: bool = True) -> OddCase:
    """Draws a case of the adapter of this name; right ones alone if none is to be odd."""
    kind = KINDS[name](draw)
    fields_are_odd = odd and draw(one_in(20))
    if fields_are_odd:
        kind.fields[draw(st.sampled_from(sorted(kind.fields)))] = draw(st.sampled_from(_ODD_SETTINGS))
    shape, wrong = kind.shape, False
    if odd and draw(one_in(8)):
        shape, wrong = _other_shape(draw, shape)
    if kind.count is None:
        x = torch.randn(shape, generator=generator(draw))
    else:
        x = torch.randint(
            kind.count, shape, generator=generator(draw), dtype=draw(_some(torch.int64, torch.int32))
        )
    if kind.values is not None and shape == kind.shape:
        x = kind.values(x)
    mask_shape = [shape[axis] if axis < len(shape) else 1 for axis in kind.mask_axes]
    mask, mask_is_right = masks(draw, mask_shape, odd=odd)
    if odd and x.numel() and draw(one_in(5)):
        _put_special(draw, kind, x)
    given: Any = forms(draw, x)
    if wrong is False and not fields_are_odd:
        wrong = _must_be_refused(kind, given, mask if mask_is_right else None)
    if odd and draw(one_in(8)):
        given = _of_other_type(draw, kind, given)
        # Labels of one axis less are indices.
        wrong = True if shape == kind.shape or not isinstance(given, Tensor) else None
    return OddCase(
        adapter_class=kind.adapter_class,
        fields=kind.fields,
        fields_are_odd=fields_are_odd,
        x=given,
        mask=mask,
        wrong=wrong if mask_is_right else True,
        mask_axes=kind.mask_axes,
    )


def _other_shape(draw: Any, shape: list[int]) -> tuple[list[int], bool | None]:
    """Another shape, and whether it is certainly wrong."""
    place, kind = (
        draw(st.integers(0, len(shape) - 1)),
        draw(_some("none", "more", "less", "many", "0-d", "one")),
    )
    if kind == "none":
        return [*shape[:place], 0, *shape[place + 1 :]], True
    if kind == "more":
        return [*shape[:place], draw(_few(1, 2)), *shape[place:]], None
    if kind == "less":
        return [*shape[:place], *shape[place + 1 :]], None
    if kind == "0-d":
        return [], True
    return [
        *shape[:place],
        1 if kind == "one" else shape[place] + draw(_few(1, 4)),
        *shape[place + 1 :],
    ], None


def _put_special(draw: Any, kind: Kind, x: Tensor) -> None:
    """Puts in a value that cannot be computed with, or nearly so."""
    place = tuple(draw(st.integers(0, size - 1)) for size in x.shape)
    if kind.count is not None:
        x[place] = draw(_some(-1, kind.count, 2**31 - 1, -(2**31), 0))
    else:
        x[place] = draw(st.sampled_from(SPECIAL))


def _must_be_refused(kind: Kind, x: Tensor, mask: Tensor | None) -> bool | None:
    """Whether what is real of an input has to be refused; None where that is not known here."""
    if mask is not None:
        sizes = [x.shape[axis] if axis in kind.mask_axes else 1 for axis in range(x.ndim)]
        x = x[mask.reshape(sizes).expand_as(x)]
    if kind.count is not None:
        return not bool(((x >= 0) & (x < kind.count)).all())
    if kind.values is not None:
        return True if x.isinf().any() else None
    if _scales_far(kind):
        return None if x.isfinite().all() else True
    factor = kind.fields.get("scale", 1.0) if "num_samples" in kind.fields else 1.0
    largest = float(x.detach().double().abs().max()) * factor if x.numel() else 0.0
    if not largest <= 1.01e16:
        return True
    return None if largest > 1e4 else False


def _scales_far(kind: Kind) -> bool:
    """Whether the settings make numbers of another magnitude of the input."""
    scale = kind.fields.get("scale") or 1.0
    bounds = [kind.fields.get(name) for name in ("minimum", "maximum")]
    if all(isinstance(bound, tuple) and bound for bound in bounds):
        scale = bounds[1][0] - bounds[0][0]
    return not isinstance(scale, (int, float)) or not 1e-2 < scale < 1e2


def _of_other_type(draw: Any, kind: Kind, x: Tensor) -> Any:
    """The input in a type that has to be refused."""
    if draw(st.booleans()):
        # Who has no model cannot say that there are no values.
        return NO_TENSORS[draw(st.sampled_from([one for one in NO_TENSORS if one != "meta"]))](x)
    if kind.count is not None:
        return x.to(draw(_some(torch.int16, torch.uint8, torch.bool, torch.float32, torch.float16)))
    dtype = draw(_some(torch.int64, torch.int32, torch.uint8, torch.bool, torch.int8))
    return x.nan_to_num(0, 0, 0).clamp(-100, 100).to(dtype)

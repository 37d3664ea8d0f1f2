"""Which way to bracket the matrix products around an attention with one head.

Shape legend: N queries, M inputs, D query channels, C input channels, E query/key channels, F value channels,
O output channels, W hidden channels of the feed-forward.

With one head, the projections of an attention are matrix products in a row, and those may be bracketed at will:

    logits = (x Wq) (z Wk)' = x (Wq Wk' z') = (x Wq Wk') z'
    output = (A (z Wv)) Wo  = A (z Wv Wo)   = (A z) Wv Wo

The result is the same to rounding; the number of multiplications is not. Where the inputs are many and narrow,
projecting them costs more than attending to them as they are; where the queries are many, nothing should be done to
each that can be done to the few inputs. The same goes for the linear layers that follow a feed-forward.

Only plain layers may be bracketed otherwise than they are written (`plain.py`): the others are called. The choice never
depends on the size of the batch, so that one compiled graph serves all.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from perceiver_io.layers import TiedOutput, under_autocast
from perceiver_io.plain import is_plain

__all__ = [
    "NO_LAYERS",
    "Brackets",
    "Layer",
    "Layers",
    "apply_layers",
    "choose_brackets",
    "fold_layers",
    "folding_pays",
]

Layer = nn.Linear | TiedOutput
"""What computes x weight' + bias."""


class Brackets(NamedTuple):
    """Where the projections of keys and of values are put.

    Attributes:
        logits: "projected" multiplies both sides, as written; "keys" folds the query projection into the keys;
            "queries" folds the key projection into the queries; "given" leaves nothing to do to the queries, not even
            their norm (see `shared_channels.py`).
        values: "projected" as written; "values" folds the output projection into the values; "outputs" attends to
            the inputs themselves and projects what comes out.
    """

    logits: Literal["projected", "keys", "queries", "given"] = "projected"
    values: Literal["projected", "values", "outputs"] = "projected"


def choose_brackets(
    *,
    num_queries: int,
    num_inputs: int,
    query_channels: int,
    input_channels: int,
    qk_channels: int,
    v_channels: int,
    output_channels: int,
    allowed: Container[str] = ("keys", "queries", "values", "outputs"),
) -> Brackets:
    """Returns the brackets with the fewest multiplications; as written while a graph is exported, for any sizes.

    The fused kernel wants keys and values of one width, so both count as wide as the wider.

    Args:
        num_queries: N, all queries that will meet these inputs.
        num_inputs: M.
        query_channels: D.
        input_channels: C.
        qk_channels: E.
        v_channels: F.
        output_channels: O.
        allowed: Which brackets may be chosen besides those that are written.
    """
    if torch.compiler.is_exporting():
        return Brackets()
    n, m, d, c = num_queries, num_inputs, query_channels, input_channels
    e, f, o = qk_channels, v_channels, output_channels
    # Cost outside of the attention itself, and the width within it.
    logits = {
        "projected": (n * d * e + m * c * e, e),
        "keys": (m * c * e + m * e * d, d + 1),
        "queries": (n * d * e + n * e * c, c),
    }
    values = {
        "projected": (m * c * f + n * f * o, f),
        "values": (m * c * f + m * f * o, o),
        "outputs": (n * c * f + n * f * o, c),
    }
    # A plain loop, because torch.compile traces it; the first of equals is the one nearest to what is written.
    best, fewest = Brackets(), logits["projected"][0] + values["projected"][0] + 2 * n * m * max(e, f)
    for left, (logits_cost, logits_width) in logits.items():
        if left != "projected" and left not in allowed:
            continue
        for right, (values_cost, values_width) in values.items():
            if right != "projected" and right not in allowed:
                continue
            cost = logits_cost + values_cost + 2 * n * m * max(logits_width, values_width)
            if cost < fewest:
                best, fewest = Brackets(left, right), cost  # type: ignore[arg-type]
    return best


class Layers:
    """Linear layers in a row, for a module that applies them after its own.

    They are no tuple: what moves the tensors of a call to another device (accelerate does) would move them along,
    though they belong elsewhere.

    Args:
        *layers: The first is applied first.
    """

    def __init__(self, *layers: nn.Module) -> None:
        self.layers = layers


NO_LAYERS = Layers()


def apply_layers(x_BND: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """Applies linear layers in a row, the last in float32 even under autocast.

    What a head gives is what people read: in bfloat16, a flow of 100 pixels would have steps of half a pixel.
    """
    for layer in layers[:-1]:
        x_BND = layer(x_BND)
    for layer in layers[-1:]:
        if under_autocast(x_BND):
            with torch.autocast(x_BND.device.type, enabled=False):
                x_BND = layer(x_BND.float())
        else:
            x_BND = layer(x_BND)
    return x_BND


def folding_pays(num_queries: int, output: nn.Module, then: Sequence[nn.Module]) -> bool:
    """Whether `fold_layers` takes fewer multiplications than calling the layers does, and may be used.

    Args:
        num_queries: N of a sample.
        output: The feed-forward's output layer, W -> D.
        then: Linear layers that follow, the first D -> …, the last … -> O.
    """
    if not then or torch.compiler.is_exporting() or not is_plain(output, *then):
        return False
    d, w = _size(output)
    sizes = [_size(layer) for layer in then]
    o = sizes[-1][0]
    as_written = num_queries * (d * w + sum(rows * columns for rows, columns in sizes))
    products = o * d * w + sum(o * rows * columns for rows, columns in sizes[:-1])
    return num_queries * o * (d + w) + products < as_written


def fold_layers(x_BND: Tensor, hidden_BNW: Tensor, output: nn.Linear, then: Sequence[Layer]) -> Tensor:
    """Adds the output of a feed-forward and applies the linear layers that follow: then(x + output(hidden)).

    Nothing is nonlinear from the hidden layer on, so the layers are multiplied with each other first.

    Args:
        x_BND: The residual.
        hidden_BNW: The feed-forward's hidden layer, after its activation.
        output: The feed-forward's output layer, plain, W -> D.
        then: Plain linear layers that follow, the first D -> …, the last … -> O.

    Returns:
        (B, N, O), in float32 even under autocast, as by `apply_layers`.
    """
    if under_autocast(x_BND):
        with torch.autocast(x_BND.device.type, enabled=False):
            return fold_layers(x_BND.float(), hidden_BNW.float(), output, then)
    weight_OD, bias_O = _product(then)
    return (
        linear(x_BND, weight_OD, bias_O + weight_OD @ _bias(output))
        + hidden_BNW @ (weight_OD @ output.weight).T
    )


def _size(layer: nn.Module) -> tuple[int, int]:
    assert isinstance(layer, Layer)
    rows, columns = layer.weight.shape
    return rows, columns


def _product(layers: Sequence[Layer]) -> tuple[Tensor, Tensor]:
    """The one linear layer that does what several in a row do."""
    weight: Tensor = layers[-1].weight
    bias = _bias(layers[-1])
    for layer in reversed(layers[:-1]):
        bias = bias + weight @ _bias(layer)
        weight = weight @ layer.weight
    return weight, bias


def _bias(layer: Layer) -> Tensor:
    bias = layer.bias
    return layer.weight.new_zeros(layer.weight.shape[0]) if bias is None else bias

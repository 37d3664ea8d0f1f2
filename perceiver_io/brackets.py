"""Which way to bracket the matrix products around an attention with one head.

Shape legend: N queries, M inputs, D query channels, C input channels, E query/key channels, F value channels,
O output channels, W hidden channels of the feed-forward.

With one head, the projections of an attention are matrix products in a row, and those may be bracketed at will:

    logits = (x Wq) (z Wk)' = x (Wq Wk' z') = (x Wq Wk') z'
    output = (A (z Wv)) Wo  = A (z Wv Wo)   = (A z) Wv Wo

The result is the same to rounding; the number of multiplications is not. Where the inputs are many and narrow,
projecting them costs more than attending to them as they are; where the queries are many, nothing should be done to
each that can be done to the few inputs. The same goes for the linear layers that follow a feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor
from torch.nn.functional import linear

__all__ = ["Affine", "Brackets", "add_feed_forward", "choose_brackets"]


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
) -> Brackets:
    """Returns the brackets with the fewest multiplications.

    The fused kernel wants keys and values of one width, so both count as wide as the wider.

    Args:
        num_queries: N, all queries that will meet these inputs.
        num_inputs: M.
        query_channels: D.
        input_channels: C.
        qk_channels: E.
        v_channels: F.
        output_channels: O.
    """
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
    best, fewest = Brackets(), math.inf
    for left, (logits_cost, logits_width) in logits.items():
        for right, (values_cost, values_width) in values.items():
            cost = logits_cost + values_cost + 2 * n * m * max(logits_width, values_width)
            if cost < fewest:
                best, fewest = Brackets(left, right), cost  # type: ignore[arg-type]
    return best


class Affine(Protocol):
    """A linear layer, or what computes as one: x weight' + bias."""

    @property
    def weight(self) -> Tensor:
        """(out, in)."""

    @property
    def bias(self) -> Tensor:
        """(out,)."""


def add_feed_forward(x_BND: Tensor, hidden_BNW: Tensor, output: Affine, then: Sequence[Affine]) -> Tensor:
    """Adds the output of a feed-forward and applies the linear layers that follow: then(x + output(hidden)).

    Nothing is nonlinear from the hidden layer on, so the layers may be multiplied with each other first; that is
    done where it takes fewer multiplications.

    Args:
        x_BND: The residual.
        hidden_BNW: The feed-forward's hidden layer, after its activation.
        output: The feed-forward's output layer, W -> D.
        then: Linear layers that follow, the first D -> …, the last … -> O.

    Returns:
        (B, N, O); (B, N, D) if nothing follows.
    """
    if then and _folding_pays(hidden_BNW, output, then):
        weight_OD, bias_O = _product(then)
        return (
            linear(x_BND, weight_OD, bias_O + weight_OD @ output.bias)
            + hidden_BNW @ (weight_OD @ output.weight).T
        )
    x_BND = x_BND + linear(hidden_BNW, output.weight, output.bias)
    for layer in then:
        x_BND = linear(x_BND, layer.weight, layer.bias)
    return x_BND


def _folding_pays(hidden_BNW: Tensor, output: Affine, then: Sequence[Affine]) -> bool:
    num_queries = hidden_BNW.shape[0] * hidden_BNW.shape[1]
    d, w = output.weight.shape
    o = then[-1].weight.shape[0]
    as_written = num_queries * (d * w + sum(layer.weight.numel() for layer in then))
    products = o * d * w + sum(o * layer.weight.numel() for layer in then[:-1])
    return num_queries * o * (d + w) + products < as_written


def _product(layers: Sequence[Affine]) -> tuple[Tensor, Tensor]:
    """The one linear layer that does what several in a row do."""
    weight, bias = layers[-1].weight, layers[-1].bias
    for layer in reversed(layers[:-1]):
        bias = bias + weight @ layer.bias
        weight = weight @ layer.weight
    return weight, bias

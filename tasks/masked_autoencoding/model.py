"""The masked autoencoder of any inputs: some elements are hidden, and what they held is asked for.

Shape legend: B batch, M elements, O elements that are asked for, V values of an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.adapter import InputAdapter
from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel

__all__ = ["MaskedAutoencoderOutput", "PerceiverIOForMaskedAutoencoding", "draw_hidden"]


@dataclass
class MaskedAutoencoderOutput(ModelOutput):
    """What a masked autoencoder gives.

    Attributes:
        loss: Mean squared error of what was hidden; only where something is.
        reconstructions: By input, (B, O, V): what elements hold by the model. Where elements are hidden these are the
            hidden ones, in order, O as many as the sample with the most has; else all.
        targets: By input, the true values in the same shape: NaN where nothing is known, and where a sample has fewer.
    """

    loss: Tensor | None = None
    reconstructions: dict[str, Tensor] | None = None
    targets: dict[str, Tensor] | None = None


class PerceiverIOForMaskedAutoencoding(PerceiverIOPreTrainedModel):
    """A Perceiver IO with any named inputs, that says what their hidden elements hold (He et al., 2022).

    The latents see what is not hidden; queries are made of the positions of hidden elements.

    Args:
        config: A configuration with an output for each input, of the same name: a `DenseDecoder.Config` with as many
            output channels as an element's target has values. `config` of this package makes such.

    Raises:
        ValueError: An input has no targets, or no output that fits.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        if set(config.outputs) != set(config.inputs):
            raise ValueError(
                "A masked autoencoder has an output for each input, of the same name, got the inputs "
                f"{list(config.inputs)} and the outputs {list(config.outputs)}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        for name, adapter in self.perceiver.adapters.items():
            wanted, part = cast(InputAdapter, adapter).num_target_channels, config.outputs[name]
            if wanted is None:
                raise ValueError(
                    f"The input {name!r} ({type(adapter).__name__}) has no targets: nothing of it can be reconstructed."
                )
            if (
                not isinstance(part, DenseDecoder.Config)
                or part.output_channels != wanted
                or part.patch_size is not None
            ):
                raise ValueError(
                    f"The elements of the input {name!r} have targets of {wanted} values: its output must be a "
                    f"DenseDecoder.Config of so many output_channels without patches, got {part!r:.200}."
                )
        self.post_init()

    @with_layer_outputs
    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        hidden: Mapping[str, Tensor] | None = None,
    ) -> MaskedAutoencoderOutput:
        """Reconstructs hidden elements, or all.

        Args:
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            hidden: By input, (B, M) bool: which elements are hidden, such as `draw_hidden` draws. If None, nothing is
                hidden, all elements are reconstructed, and there is no loss.

        Returns:
            The reconstructions and their targets; with `hidden` a loss, which is of each input of a sample the mean
            over the values that its hidden elements hold, of the batch the mean over all these.

        Raises:
            ValueError: An input does not fit its adapter, or what is hidden does not fit the input.
        """
        encoded = self.perceiver.encode(inputs, masks, hidden=hidden)
        points: dict[str, Tensor | None] = {}
        targets: dict[str, Tensor] = {}
        for name in inputs:
            adapter = cast(InputAdapter, self.perceiver.adapters[name])
            targets[name] = adapter.targets(inputs[name], (masks or {}).get(name))
            points[name] = None
            if hidden is not None and name in hidden:
                hidden_BM = hidden[name]
                points_BO, is_asked_BO = _places(hidden_BM)
                grid = encoded.byte_arrays[name].grid or (hidden_BM.shape[1],)
                points[name] = torch.stack(torch.unravel_index(points_BO, grid), dim=-1)
                asked_BOV = targets[name].gather(
                    1, points_BO[..., None].expand(-1, -1, targets[name].shape[2])
                )
                targets[name] = torch.where(is_asked_BO[..., None], asked_BOV, torch.nan)
        decoded = self.perceiver.decode(encoded, outputs=list(inputs), points=_some(points))
        decoded = {
            name: values if points[name] is not None else values.flatten(1, -2)
            for name, values in decoded.items()
        }
        loss = None
        if hidden is not None:
            loss = squared_error({name: (decoded[name], targets[name]) for name in hidden})
        return MaskedAutoencoderOutput(loss=loss, reconstructions=decoded, targets=targets)

    def attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend, with nothing hidden; see `PerceiverIO.attention_maps`.

        Args:
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self.perceiver.attention_maps(inputs, masks, latents=latents)


def squared_error(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Averages squared differences over what is known of each input of a sample, then over all these.

    Args:
        pairs: By input the values and the true ones, (B, O, V), NaN where nothing is known.

    Returns:
        A scalar; 0, with gradients of 0, if nothing is known.
    """
    sums, counts = [], []
    for values_BOV, targets_BOV in pairs.values():
        known_BOV = ~targets_BOV.isnan()
        squares_BOV = (values_BOV - torch.where(known_BOV, targets_BOV, 0)).square()
        sums.append(torch.where(known_BOV, squares_BOV, 0).flatten(1).sum(1))
        counts.append(known_BOV.flatten(1).sum(1))
    count_P = torch.cat(counts)
    means_P = torch.cat(sums) / count_P.clamp(min=1)
    return means_P.sum() / (count_P > 0).sum().clamp(min=1)


def draw_hidden(known_BM: Tensor, ratio: float) -> Tensor:
    """Draws which elements are hidden: of each sample the same part, but one of two or more stays, and one is hidden.

    Random numbers are of PyTorch's global generator.

    Args:
        known_BM: (B, M) bool, True where an element is real and has values that are known.
        ratio: The part that is hidden.

    Returns:
        (B, M) bool.

    Raises:
        ValueError: The ratio is not between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"The ratio of hidden elements is {ratio}, expected more than 0 and less than 1.")
    order_BM = torch.rand(known_BM.shape, device=known_BM.device).masked_fill(~known_BM, 2.0)
    rank_BM = order_BM.argsort(1).argsort(1)
    count_B1 = known_BM.sum(1, keepdim=True)
    wanted_B1 = (ratio * count_B1).round().long().clamp(min=1)
    wanted_B1 = torch.minimum(wanted_B1, (count_B1 - 1).clamp(min=0))
    return (rank_BM < wanted_B1) & known_BM


def _places(hidden_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the hidden elements, (B, O), in order, and where there is one; O is at least 1."""
    counts_B = hidden_BM.sum(1)
    most = max(1, int(counts_B.max()))
    points_BO = (~hidden_BM).int().argsort(dim=1, stable=True)[:, :most]
    is_asked_BO = torch.arange(most, device=hidden_BM.device) < counts_B[:, None]
    return torch.where(is_asked_BO, points_BO, 0), is_asked_BO


def _some(points: Mapping[str, Tensor | None]) -> dict[str, Any]:
    return {name: one for name, one in points.items() if one is not None}

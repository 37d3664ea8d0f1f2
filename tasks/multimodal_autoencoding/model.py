"""The model that autoencodes several modalities at once: frames, sound and a label, or others.

Shape legend: B batch, T frames, F image channels, H height, W width, S samples, K classes, O points,
V values of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import PLAIN_OUTPUT, with_layer_outputs
from perceiver_io.tasks.dense.losses import Difference
from perceiver_io.tasks.dense.multiple_outputs import PerceiverIOForMultipleOutputs

__all__ = [
    "AUDIO",
    "IMAGE",
    "LABEL",
    "LOSS_WEIGHTS",
    "MultimodalAutoencodingOutput",
    "PerceiverIOForMultimodalAutoencoding",
]

IMAGE = "image"
AUDIO = "audio"
LABEL = "label"

LOSS_WEIGHTS: Mapping[str, float] = {IMAGE: 0.03, AUDIO: 1.0, LABEL: 0.0001}
"""Weights of the losses in training, by output; other outputs weigh 1."""


@dataclass
class MultimodalAutoencodingOutput(ModelOutput):
    """What the model gives.

    Attributes:
        loss: Weighted sum of the losses of all outputs that were decoded and have a target; None if there are none.
        reconstruction: Outputs by name: frames (B, T, F, H, W), sound (B, S), logits (B, K); (B, O, V) at points.
        losses: The loss of each output, before it is weighted.
        latents: (B, N, D).
    """

    loss: Tensor | None = None
    reconstruction: dict[str, Tensor] | None = None
    losses: dict[str, Tensor] | None = None
    latents: Tensor | None = None


class PerceiverIOForMultimodalAutoencoding(PerceiverIOForMultipleOutputs):
    """A Perceiver IO that gives back what was put in (Perceiver IO, section 4.3).

    The published model has the inputs and outputs "image", "audio" and "label". Others may be added or left out; the
    loss of an output is cross-entropy if its decoder has classes, else the mean absolute difference, unless
    `differences` has another one.

    Args:
        config: A configuration such as `config` of this package makes; at least one output has an input's name.

    Attributes:
        loss_weights: Weight of each output's loss, by name: `LOSS_WEIGHTS` at first. Not saved.

    Raises:
        ValueError: No output has an input's name, or there are not as many class names as classes.
    """

    main_input_name = IMAGE

    def __init__(self, config: PerceiverIOConfig) -> None:
        if not set(config.inputs) & set(config.outputs):
            raise ValueError(
                "An autoencoder has an output with the name of an input, got the inputs "
                f"{list(config.inputs)} and the outputs {list(config.outputs)}."
            )
        num_classes = getattr(config.outputs.get(LABEL), "num_classes", None)
        if num_classes is not None:
            config.name_classes(num_classes)
        super().__init__(config)
        self.loss_weights = {name: LOSS_WEIGHTS.get(name, 1.0) for name in config.outputs}

    @with_layer_outputs
    def forward(  # type: ignore[override]  # the field calls its inputs by names
        self,
        image: Tensor | None = None,
        audio: Tensor | None = None,
        label: Tensor | None = None,
        *,
        others: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        targets: Mapping[str, Tensor] | None = None,
        outputs: Iterable[str] | None = None,
        points: Mapping[str, Tensor | None] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        differences: Mapping[str, Difference] | None = None,
        return_loss: bool = True,
    ) -> MultimodalAutoencodingOutput:
        """Encodes a batch and decodes it, wholly or, as in training, at some points.

        An input may be left out. The target of an output is the input of its name, unless `targets` has another.

        Args:
            image: (B, T, F, H, W) frames, with values in [0, 1].
            audio: (B, S) samples in [-1, 1].
            label: (B,) class indices, or (B, K) probabilities. The published model never shows it to the encoder.
            others: Further inputs of the configuration, by name.
            inputs: All inputs by name, as processors make them, in place of the arguments before.
            masks: Masks by input name, True where it is real: (B, T, H, W), (B, S), (B,). What is not real is neither
                attended to nor counted in the loss.
            targets: Targets by output name, where they are not what was put in.
            outputs: Outputs that are wanted; if None, those that `points` names, or all.
            points: Points of outputs, by name. The same for all samples: (O,) integer indices of the query grid, or
                (O, A) along each axis; different for each: (B, O) or (B, O, A). (B, O) indices of as many points as
                the grid has axes are read as (O, A): give (B, O, A). None asks for the whole output.
            loss_weights: Weights of the losses by output, instead of the model's own.
            differences: What the losses of frames and sound are of, by output, instead of the model's own.
            return_loss: Whether the loss is computed.

        Raises:
            ValueError: An input, a mask, a target or a point does not fit.
        """
        inputs = _gathered(image, audio, label, {**(inputs or {}), **(others or {})})
        result = self.perceiver(inputs, masks, outputs=outputs, points=points, **PLAIN_OUTPUT)
        loss, losses = None, None
        if return_loss:
            if unknown := sorted(set(targets or {}) - set(self.config.outputs)):
                raise ValueError(
                    f"There are targets for {unknown}, but only the outputs {list(self.config.outputs)}."
                )
            given = {**inputs, **(targets or {})}
            loss, losses = self._losses(
                result.outputs,
                {name: x for name, x in given.items() if name in self.config.outputs},
                known={name: mask for name, mask in (masks or {}).items() if name in self.config.outputs},
                points=points,
                weights=loss_weights,
                differences=differences,
            )
        return MultimodalAutoencodingOutput(
            loss=loss,
            reconstruction=dict(result.outputs),
            losses=losses,
            latents=result.latents,
        )

    def reconstruct(
        self,
        image: Tensor | None = None,
        audio: Tensor | None = None,
        label: Tensor | None = None,
        *,
        others: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        outputs: Iterable[str] | None = None,
        points: Mapping[str, Tensor | None] | None = None,
        grids: Mapping[str, Sequence[int]] | None = None,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
        on_decoded: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Reconstructs a batch from one encoding, in chunks, without gradients and as in evaluation.

        Args:
            image: As `forward`.
            audio: As `forward`.
            label: As `forward`.
            others: As `forward`.
            masks: As `forward`.
            outputs: As `forward`.
            points: As `forward`; besides, (O, A) or (B, O, A) floating-point coordinates in [-1, 1].
            grids: Query grids of outputs, by name, for reconstructions of another resolution:
                ``{"image": (16, 448, 448)}``. Queries of sound yield patches: the grid counts these.
            chunk_size: Output queries that are decoded at once.
            memory_budget: Bytes that a chunk may take, where there is no `chunk_size`; 256 MiB if None.
            on_decoded: Called after each chunk with the number of queries in it, to show progress.

        Returns:
            Outputs by name, as `MultimodalAutoencodingOutput.reconstruction`.

        Raises:
            ValueError: An input, a mask or what is asked for does not fit.
        """
        inputs = _gathered(image, audio, label, others)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                encoded = self.perceiver.encode(inputs, masks)
                return self.perceiver.decode(
                    encoded,
                    outputs,
                    points=points,
                    grids=grids,
                    chunk_size=chunk_size,
                    memory_budget=memory_budget,
                    on_decoded=on_decoded,
                )
        finally:
            self.train(training)


def _gathered(
    image: Tensor | None, audio: Tensor | None, label: Tensor | None, others: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    others = others or {}
    named = {IMAGE: image, AUDIO: audio, LABEL: label}
    if twice := sorted(name for name in others if named.get(name) is not None):
        raise ValueError(f"The inputs {twice} are given twice: by their own argument and by name.")
    return {**{name: x for name, x in named.items() if x is not None}, **others}

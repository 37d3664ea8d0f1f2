"""The masked language model with the argument and output names of `transformers`.

Shape legend: B batch, T tokens, V vocabulary, O positions that are decoded.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MaskedLMOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.input_tools import bool_mask
from perceiver_io.layer_outputs import PLAIN_OUTPUT, with_layer_outputs
from perceiver_io.layers import LearnedArray, TiedOutput
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.value_checks import looks_at

__all__ = ["IGNORED", "TEXT", "PerceiverIOForMaskedLM"]

TEXT = "text"
IGNORED = -100
"""The label of positions that the loss leaves out, as everywhere in `transformers`."""


class PerceiverIOForMaskedLM(PerceiverIOPreTrainedModel):
    """A Perceiver IO whose one input is a text and whose one output says what stands at each of its positions.

    Args:
        config: A configuration with the input "text" and the output "text", such as `config` of this package makes.

    Raises:
        ValueError: The inputs or outputs are others, or the output has not a logit for each token.
    """

    pipeline_tag = "fill-mask"
    main_input_name = "input_ids"

    def __init__(self, config: PerceiverIOConfig) -> None:
        if list(config.inputs) != [TEXT] or list(config.outputs) != [TEXT]:
            raise ValueError(
                f"A masked language model has the input {TEXT!r} and the output {TEXT!r}, got the inputs "
                f"{list(config.inputs)} and the outputs {list(config.outputs)}."
            )
        sizes = (
            getattr(config.inputs[TEXT], "vocab_size", None),
            getattr(config.inputs[TEXT], "max_length", None),
        )
        if None in sizes:
            raise ValueError(
                f"The input {TEXT!r} of a masked language model needs an adapter whose configuration has vocab_size "
                f"and max_length, got {type(config.inputs[TEXT]).__qualname__}."
            )
        if getattr(config.outputs[TEXT], "output_channels", None) != sizes[0]:
            raise ValueError(
                f"A masked language model with {sizes[0]} tokens needs as many output_channels, got "
                f"{getattr(config.outputs[TEXT], 'output_channels', None)}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.vocab_size, self.max_length = int(sizes[0] or 0), int(sizes[1] or 0)
        self.post_init()

    def resize_token_embeddings(  # type: ignore[override]  # a table of ours, not `torch.nn.Embedding`
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> LearnedArray:
        """Changes the number of tokens, of the output too: tokens are added at the end, or taken from there.

        Args:
            new_num_tokens: V; as many as there are if None.
            pad_to_multiple_of: What V is rounded up to a multiple of.
            mean_resizing: Whether tokens that are added start as the mean of those that are there; if not, as in a new
                model.

        Returns:
            The embeddings.

        Raises:
            ValueError: A number is below 1.
            NotImplementedError: The output is of a kind that cannot be resized.
        """
        table, decoder = self.get_input_embeddings(), self.perceiver.decoders[TEXT]
        assert table is not None
        count = self.vocab_size if new_num_tokens is None else new_num_tokens
        multiple = 1 if pad_to_multiple_of is None else pad_to_multiple_of
        if count < 1 or multiple < 1:
            raise ValueError(
                f"There must be at least 1 token, got {count}, padded to a multiple of {multiple}."
            )
        count = math.ceil(count / multiple) * multiple
        if not isinstance(decoder, DenseDecoder) or not isinstance(decoder.output, (TiedOutput, nn.Linear)):
            raise NotImplementedError(f"The output of a {type(decoder).__name__} cannot be resized.")
        if isinstance(decoder.output, nn.Linear):
            _resize(decoder.output, "weight", count, mean=mean_resizing, std=decoder.output.in_features**-0.5)
            decoder.output.out_features = count
        _resize(decoder.output, "bias", count, mean=mean_resizing)
        _resize(table, "weight", count, mean=mean_resizing, std=table.std)
        text = self.perceiver.adapters[TEXT]
        text.config = self.config.inputs[TEXT] = replace(self.config.inputs[TEXT], vocab_size=count)
        decoder.config = self.config.outputs[TEXT] = replace(decoder.config, output_channels=count)
        decoder.num_values = self.vocab_size = count
        return table

    @with_layer_outputs
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Says what stands at each position.

        Padding that is masked changes nothing at the other positions, so that it need not be the model's length.

        Args:
            input_ids: (B, T) token ids, T up to the model's length; the tokens to guess are the tokenizer's mask token.
            attention_mask: (B, T), bool or integers of 0 and 1, as tokenizers make it: 1 where a token is real.
            labels: (B, T) int64 token ids, -100 where a position does not count; with them comes a loss. With
                `positions` (B, O).
            positions: (B, O) int64 positions that are asked for, in training those that are hidden: the others cost
                nothing then. All if None.

        Returns:
            `logits` (B, T, V), or (B, O, V) of the positions, and with labels `loss`, the mean cross-entropy of the
            positions that count; 0 if none does.

        Raises:
            ValueError: The ids do not fit the adapter, or the mask, the positions or the labels do not fit the ids.
        """
        masks = _masks(attention_mask, input_ids)
        points = None
        if positions is not None:
            _check_positions(positions, input_ids)
            points = {TEXT: positions.unsqueeze(-1)}
        logits_BTV = self.perceiver({TEXT: input_ids}, masks, points=points, **PLAIN_OUTPUT)[TEXT]
        loss = None
        if labels is not None:
            self._check_labels(labels, input_ids if positions is None else positions)
            # Not its mean: that is NaN where no position counts, as it happens in small batches.
            total = torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            loss = total / (labels != IGNORED).sum().clamp(min=1)
        return MaskedLMOutput(loss=loss, logits=logits_BTV)

    def logits_at(self, input_ids: Tensor, positions: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the logits of some positions: what `forward` gives there, for the cost of only these.

        Args:
            input_ids: As `forward`.
            positions: (O,) int64 positions in the sequence.
            attention_mask: As `forward`.

        Returns:
            (B, O, V).

        Raises:
            ValueError: As `forward`; or a position is outside the sequence.
        """
        masks = _masks(attention_mask, input_ids)
        return self.perceiver({TEXT: input_ids}, masks, points={TEXT: positions}, **PLAIN_OUTPUT)[TEXT]

    def _check_labels(self, labels: Tensor, like: Tensor) -> None:
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != like.shape:
            given = (
                f"{labels.dtype} {tuple(labels.shape)}"
                if isinstance(labels, Tensor)
                else type(labels).__name__
            )
            raise ValueError(f"labels must be int64 token ids {tuple(like.shape)}, got {given}.")
        if looks_at(labels) and (((labels < 0) & (labels != IGNORED)) | (labels >= self.vocab_size)).any():
            raise ValueError(
                f"labels must be token ids 0 to {self.vocab_size - 1}, or {IGNORED} where a position does not count, "
                f"got {int(labels.min())} to {int(labels.max())}."
            )


def _resize(module: nn.Module, name: str, count: int, *, mean: bool, std: float = 0.0) -> None:
    """Gives a parameter another number of rows."""
    old = module.get_parameter(name)
    added = torch.zeros(max(0, count - len(old)), *old.shape[1:], dtype=old.dtype, device=old.device)
    if mean:
        added += old.detach().mean(dim=0, keepdim=True)
    elif std:
        added.normal_(std=std)
    new = torch.cat([old.detach()[:count], added])
    setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))


def _check_positions(positions: Tensor, input_ids: Tensor) -> None:
    # Numbers that are not integers would be taken for coordinates.
    if not isinstance(positions, Tensor) or positions.dtype not in (torch.int64, torch.int32):
        fits = False
    else:
        fits = positions.ndim == 2 and len(positions) == len(input_ids)
    if not fits:
        given = (
            f"{positions.dtype} {tuple(positions.shape)}"
            if isinstance(positions, Tensor)
            else type(positions).__name__
        )
        raise ValueError(f"positions must be int64 ({len(input_ids)}, positions), got {given}.")


def _masks(attention_mask: Tensor | None, input_ids: Tensor) -> dict[str, Tensor] | None:
    if attention_mask is None:
        return None
    real = bool_mask(attention_mask, name="attention_mask")
    if isinstance(input_ids, Tensor) and real.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids, {tuple(input_ids.shape)}, got "
            f"{tuple(real.shape)}."
        )
    return {TEXT: real}

"""Perceiver AR with the argument and output names of a causal language model of `transformers`.

Shape legend: B batch, T tokens, N latents, V vocabulary, C channels of an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from perceiver_io.byte_array import ByteArray
from perceiver_io.causal.alignment import aligned_to_end, joined_masks
from perceiver_io.causal.cache import LatentCache
from perceiver_io.causal.encoder import CausalEncoder, CausalEncoderConfig
from perceiver_io.causal.sequence import SequenceAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import Encoded
from perceiver_io.input_tools import (
    bool_mask,
    check_indices,
    check_names,
    check_plain,
    check_shape,
    listed,
    whole_number,
)
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.tasks.autoregressive.generation import LatentGenerationMixin
from perceiver_io.value_checks import looks_at

__all__ = ["IGNORED", "PerceiverARForCausalLM"]

IGNORED = -100
"""The label of positions that the loss leaves out, as everywhere in `transformers`."""

_MOST_POSITIONS = 2**31


class PerceiverARForCausalLM(PerceiverIOPreTrainedModel, LatentGenerationMixin):
    """A Perceiver AR that says what follows each of the last N tokens (Hawthorne et al., 2022).

    The tokens may be bytes, pixels, events of music, or those of any tokenizer. What the model has of other inputs,
    such as a class or a picture, stands before them as conditions.

    Args:
        config: A configuration with a causal encoder and one output, the logits of the tokens.

    Raises:
        ValueError: The encoder is no causal one, or the outputs are others.
    """

    main_input_name = "input_ids"
    _no_split_modules = ["CausalCrossAttend", "CausalSelfAttend"]  # noqa: RUF012  # as the base class declares it

    def __init__(self, config: PerceiverIOConfig) -> None:
        encoder = config.encoder
        if not isinstance(encoder, CausalEncoderConfig):
            raise ValueError(
                f"A {type(self).__name__} needs a CausalEncoderConfig, got {type(encoder).__name__}."
            )
        if list(config.outputs) != [encoder.sequence]:
            raise ValueError(
                f"A {type(self).__name__} has one output, named as the input that is continued, {encoder.sequence!r}, "
                f"got {list(config.outputs)}."
            )
        vocabulary = getattr(config.inputs[encoder.sequence], "vocab_size", None)
        if vocabulary is None or getattr(config.outputs[encoder.sequence], "vocab_size", None) != vocabulary:
            raise ValueError(
                f"The input and the output {encoder.sequence!r} must have the same vocab_size, got {vocabulary} and "
                f"{getattr(config.outputs[encoder.sequence], 'vocab_size', None)}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.sequence = encoder.sequence
        self.vocab_size = int(vocabulary)
        self.post_init()

    @property
    def max_length(self) -> int:
        """The most elements that the model reads, conditions among them."""
        return cast(int, self.config.encoder.max_length)

    @property
    def num_latents(self) -> int:
        """N, of how many of the last tokens it says what follows."""
        return cast(int, self.config.encoder.num_latents)

    @with_layer_outputs
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        conditions: Mapping[str, Tensor] | None = None,
        condition_masks: Mapping[str, Tensor] | None = None,
        past_key_values: LatentCache | None = None,
        use_cache: bool | None = None,
        num_latents: int | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Says what follows each of the last tokens.

        Padding may stand on either side, but what comes out is about the last real tokens of each row, as if all
        padding stood before them.

        Args:
            input_ids: (B, T) token ids; with a cache that holds some, those that follow.
            attention_mask: (B, T) bool, or integers of 0 and 1: 1 where a token is real.
            labels: (B, T) int64, `input_ids` or -100 where a token is not to be predicted; with them comes a loss. They
                are shifted here: the logits of token i are compared with label i + 1.
            conditions: Other inputs by name, which stand before the tokens.
            condition_masks: Masks of these, True where they are real, in the shapes that their adapters document.
            past_key_values: A cache of this model, for a sequence that grows.
            use_cache: Whether to return a cache, a new one if none is given.
            num_latents: How many of the last tokens to say something of; N, or T if that is less, if None. With a cache
                its schedule decides.
            position_ids: (B, T) int64 places of the tokens where they do not begin at 0, for absolute positions.
                Without a cache only.
            logits_to_keep: If not 0, only so many of the last logits are computed.

        Returns:
            `logits` (B, latents, V); with labels `loss`, the mean cross-entropy of the tokens that count, 0 if none
            does; `past_key_values` with a cache.

        Raises:
            ValueError: An argument does not fit: no tokens, more than the model reads, ids outside the vocabulary, a
                row of padding alone, latents that are not in 1 … N, or a cache of another model or batch.
        """
        mask_BT = self._checked(input_ids, attention_mask, labels)
        check_names(conditions, name="conditions")
        check_names(condition_masks, name="condition_masks")
        logits_to_keep = whole_number(logits_to_keep, name="logits_to_keep", least=0)
        if labels is not None and mask_BT is not None:
            # What stands on padding says nothing of the first token either.
            follows_BT = mask_BT & (mask_BT.cumsum(dim=1) > 1)
            labels, _ = aligned_to_end(labels.masked_fill(~follows_BT, IGNORED), mask_BT)
        unaligned_BT = mask_BT
        input_ids, mask_BT = aligned_to_end(input_ids, mask_BT)
        if position_ids is not None:
            if use_cache or past_key_values is not None:
                raise ValueError(
                    "With a cache positions are counted from the first token: leave position_ids out."
                )
            check_shape(
                position_ids, input_ids.shape, name="position_ids", advice="One for each of input_ids."
            )
            check_indices(
                position_ids,
                count=_MOST_POSITIONS,
                name="position_ids",
                advice="Count from the first token of the sequence.",
                mask=unaligned_BT,
            )
            position_ids, _ = aligned_to_end(position_ids, unaligned_BT)
        if use_cache or past_key_values is not None:
            if num_latents is not None:
                raise ValueError(
                    "With a cache its schedule decides on num_latents: make a LatentCache with another one."
                )
            cache = self._own(past_key_values, conditions)
            latents_BND = self._continued(cache, input_ids, mask_BT, conditions, condition_masks)
        elif position_ids is not None:
            cache = None
            encoder = cast(CausalEncoder, self.perceiver.encoder)
            before = self._conditions(conditions, condition_masks) if conditions else None
            tokens = self._adapter(input_ids, mask_BT, position_ids)
            latents_BND = encoder(
                _joined(before, self.perceiver.packer.widened(self.sequence, tokens)),
                num_latents=num_latents,
                num_before=_count(before),
            )
        else:
            cache = None
            latents_BND = self.perceiver.encode(
                {**(conditions or {}), self.sequence: input_ids},
                {**(condition_masks or {}), **({} if mask_BT is None else {self.sequence: mask_BT})},
                num_latents=num_latents,
            ).latents
        encoded = Encoded(latents=latents_BND[:, -logits_to_keep:], byte_arrays={})
        logits_BNV = self.perceiver.decode(encoded)[self.sequence]
        loss = None
        if labels is not None:
            loss = self._loss(logits_BNV, labels)
        return CausalLMOutputWithPast(loss=loss, logits=logits_BNV, past_key_values=cache)

    def count_conditions(self, conditions: Mapping[str, Tensor] | None) -> int:
        """Returns how many elements conditions are."""
        if not conditions:
            return 0
        with torch.no_grad():
            return self._conditions(conditions, None).values.shape[1]

    def _checked(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None
    ) -> Tensor | None:
        """The mask as bool, None where nothing is masked."""
        check_shape(
            input_ids,
            ("batch", "tokens"),
            name="input_ids",
            advice="Give one sequence a batch axis: ids[None].",
        )
        if labels is not None:
            check_plain(labels, name="labels", device=input_ids.device)
            if labels.dtype != torch.int64 or labels.shape != input_ids.shape:
                raise ValueError(
                    f"labels must be int64 token ids {tuple(input_ids.shape)}, got {labels.dtype} "
                    f"{tuple(labels.shape)}."
                )
            if (
                looks_at(labels)
                and (((labels < 0) & (labels != IGNORED)) | (labels >= self.vocab_size)).any()
            ):
                raise ValueError(
                    f"labels must be token ids 0 to {self.vocab_size - 1}, or {IGNORED} where a token does not count, "
                    f"got {int(labels.min())} to {int(labels.max())}."
                )
        if attention_mask is None:
            return None
        mask_BT = bool_mask(attention_mask, name="attention_mask")
        if mask_BT.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_ids, {tuple(input_ids.shape)}, got "
                f"{tuple(mask_BT.shape)}."
            )
        if looks_at(mask_BT) and not (some_B := mask_BT.any(dim=1)).all():
            rows = listed((~some_B).nonzero().flatten().tolist())
            raise ValueError(
                f"The rows [{rows}] are padding alone: there is nothing to continue. Give each a token, or leave it "
                "out."
            )
        return mask_BT

    def _loss(self, logits_BNV: Tensor, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy of the tokens after the latents'; those that are ignored do not count."""
        targets_BN = labels_BT[:, labels_BT.shape[1] - logits_BNV.shape[1] + 1 :]
        logits_BNV = logits_BNV[:, : targets_BN.shape[1]].float()
        total = cross_entropy(
            logits_BNV.flatten(0, 1), targets_BN.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (targets_BN != IGNORED).sum().clamp(min=1)

    # Sequences that grow

    def _own(self, cache: LatentCache | None, conditions: Mapping[str, Tensor] | None) -> LatentCache:
        """The cache, a new one if there is none; its owner is this model."""
        encoder = cast(CausalEncoder, self.perceiver.encoder)
        if cache is None:
            schedule = self.latent_schedule(num_conditions=self.count_conditions(conditions))
            cache = LatentCache(encoder.num_layers, schedule)
        if not isinstance(cache, LatentCache):
            raise ValueError(f"past_key_values must be a LatentCache, got {type(cache).__name__}.")
        if len(cache.layers) != encoder.num_layers or cache.owner not in (None, id(encoder)):
            raise ValueError("The cache was filled by another model. Start with an empty one.")
        cache.owner = id(encoder)
        return cache

    def _continued(
        self,
        cache: LatentCache,
        ids_BT: Tensor,
        mask_BT: Tensor | None,
        conditions: Mapping[str, Tensor] | None,
        condition_masks: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """Reads tokens that follow those of a cache; returns the latents that were added, or all of a new reading."""
        encoder, adapter = cast(CausalEncoder, self.perceiver.encoder), self._adapter
        before, added = cache.num_tokens, ids_BT.shape[1]
        check_indices(
            ids_BT,
            count=self.vocab_size,
            name="input_ids",
            advice="Use the tokenizer that belongs to the model.",
            mask=mask_BT,
        )
        if mask_BT is not None:
            ids_BT = torch.where(mask_BT, ids_BT, 0)
        cache.append(ids_BT, mask_BT)
        schedule = cache.schedule
        num_latents = schedule.num_latents(before + added)
        if before and num_latents == schedule.num_latents(before) + added:
            return self._extended(cache, start=cache.ids.shape[1] - added, num_latents=added)  # type: ignore[union-attr]
        if not before and conditions:
            cache.conditions = self._conditions(conditions, condition_masks)
        length = cache.ids.shape[1]  # type: ignore[union-attr]
        moved = cache.move_window(schedule.window(before + added))
        gone = length - cache.ids.shape[1]  # type: ignore[union-attr]
        num_conditions = 0 if cache.conditions is None else cache.conditions.values.shape[1]
        num_latents = min(num_latents, length - gone + num_conditions)
        if before and cache.conditions is None and not (moved and adapter.has_absolute_positions):
            # The keys of what stands before the latents are as they were.
            known = cache.num_keys - (cache.num_latents if encoder.config.latent_keys == "query_norm" else 0)
            kept = min(known - gone, length - gone - num_latents)
            if kept > 0:
                cache.drop_first(gone)
                cache.keep(kept, latents=0)
                return self._extended(cache, start=kept, num_latents=num_latents)
        cache.keep(0, latents=0)
        cache.origin = cache.left_behind
        tokens = ByteArray(
            values=adapter.embed(cache.ids, cache.positions(0)),  # type: ignore[arg-type]
            mask=cache.mask,
            num_content_channels=adapter.num_content_channels,
        )
        tokens = self.perceiver.packer.widened(self.sequence, tokens)
        return encoder(
            _joined(cache.conditions, tokens),
            num_latents=num_latents,
            num_before=_count(cache.conditions),
            cache=cache,
        )

    def _extended(self, cache: LatentCache, *, start: int, num_latents: int) -> Tensor:
        """Reads the window's tokens from one on, of which the last are latents."""
        encoder = cast(CausalEncoder, self.perceiver.encoder)
        assert cache.ids is not None
        positions_BT = cache.positions(start)
        tokens = ByteArray(
            values=self._adapter.embed(cache.ids[:, start:], positions_BT),
            num_content_channels=self._adapter.num_content_channels,
        )
        if cache.conditions is not None:
            part = cache.conditions
            count = part.values.shape[1] if part.mask is None else part.mask.sum(dim=1)[:, None]
            positions_BT = positions_BT + count
        return encoder.extend(
            self.perceiver.packer.widened(self.sequence, tokens).values,
            positions_BT,
            None if cache.mask is None else cache.mask[:, start:],
            num_latents=num_latents,
            cache=cache,
        )

    def _conditions(self, conditions: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None) -> ByteArray:
        """The elements that stand before the tokens."""
        if self.sequence in conditions:
            raise ValueError(f"The tokens {self.sequence!r} go into input_ids, they are no condition.")
        packed, _ = self.perceiver.packer(self.perceiver.adapt(conditions, masks))
        return cast(ByteArray, packed)

    @property
    def _adapter(self) -> SequenceAdapter:
        return cast(SequenceAdapter, self.perceiver.adapters[self.sequence])


def _count(conditions: ByteArray | None) -> int:
    """How many elements conditions are."""
    return 0 if conditions is None else conditions.values.shape[1]


def _joined(conditions: ByteArray | None, tokens: ByteArray) -> ByteArray:
    """Conditions, then tokens."""
    if conditions is None:
        return tokens
    parts = [(part.mask, part.values.shape[1]) for part in (conditions, tokens)]
    return ByteArray(
        values=torch.cat([conditions.values.to(tokens.values.dtype), tokens.values], dim=1),
        mask=joined_masks(parts, like=tokens.values),
        num_content_channels=tokens.num_content_channels,
    )


AutoModelForCausalLM.register(PerceiverIOConfig, PerceiverARForCausalLM)

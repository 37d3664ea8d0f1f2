"""What a causal encoder keeps of a sequence that grows: keys and values, the tokens of its window, the schedule.

Shape legend: B batch, H heads, M cached elements, T tokens, E channels a head.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from perceiver_io.byte_array import ByteArray
from perceiver_io.causal.alignment import joined_masks
from perceiver_io.causal.schedule import LatentSchedule

__all__ = ["LatentCache"]


class _GrowingLayer(DynamicLayer):
    """Keys and values of one layer in memory that has room for more: adding a token does not copy the others.

    Attributes:
        room: Elements that memory is taken for at a time.
    """

    def __init__(self, room: int = 256) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds elements; returns the keys and values of all."""
        if torch.is_grad_enabled() and key_states.requires_grad:
            self._buffers = None  # memory that is written to again has no gradients
            keys, values = super().update(key_states, value_states)
            return keys, values
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length, added = self.get_seq_length(), key_states.shape[-2]
        buffers = self._buffers
        assert self.keys is not None and self.values is not None
        if buffers is None or length + added > buffers[0].shape[-2] or not self._in_buffers(buffers):
            shape = (*key_states.shape[:2], length + added + self.room, key_states.shape[-1])
            buffers = key_states.new_empty(shape), value_states.new_empty(shape)
            if length:
                buffers[0][..., :length, :] = self.keys
                buffers[1][..., :length, :] = self.values
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer.narrow(-2, length, added).copy_(new)
        self._buffers = buffers
        keys, values = (buffer.narrow(-2, 0, length + added) for buffer in buffers)
        self.keys, self.values = keys, values
        return keys, values

    def _in_buffers(self, buffers: tuple[Tensor, Tensor]) -> bool:
        """Whether what there is lies at the buffers' beginning: others may have replaced it (beams are reordered)."""
        assert self.keys is not None
        return not self.keys.numel() or (
            self.keys.data_ptr() == buffers[0].data_ptr() and self.keys.shape[0] == buffers[0].shape[0]
        )

    def keep(self, start: int, stop: int) -> None:
        """Forgets all elements but these."""
        if self.is_initialized and self.keys is not None and self.keys.numel():
            assert self.values is not None
            self.keys, self.values = self.keys[..., start:stop, :], self.values[..., start:stop, :]


class LatentCache(Cache):
    """Keys and values of a Perceiver AR: of the whole window in its cross-attend, of the latents in its self-attends.

    It goes where `transformers` puts a cache, and knows what is needed to read the window again when all latents are in
    use: the tokens, and what stands before them.

    Args:
        num_layers: Attentions of the encoder.
        schedule: How many latents there are when.

    Attributes:
        ids: (B, T) tokens of the window, the padding before them included; None while the cache is empty.
        mask: (B, T) bool, True where a token is real; None where all are.
        num_tokens: How many tokens were given in all, T and those that the window has left behind.
        key_mask: (B, M) bool of the cross-attend's keys; None where all are real.
        num_latents: How many there are.
        latent_mask: (B, N) bool, False where a latent stands on no token; None where all do.
        origin: (B,) int64, the position that counts as 0: how many real tokens had left the window when it was last
            read as a whole.
        conditions: What stands before the tokens, packed; None where nothing does.
        owner: Which encoder filled it.
    """

    layers: list[_GrowingLayer]  # type: ignore[assignment]

    def __init__(self, num_layers: int, schedule: LatentSchedule) -> None:
        super().__init__(layers=[_GrowingLayer(room=schedule.max_latents) for _ in range(num_layers)])
        self.schedule = schedule
        self.ids: Tensor | None = None
        self.mask: Tensor | None = None
        self.num_tokens = 0
        self.key_mask: Tensor | None = None
        self.num_latents = 0
        self.latent_mask: Tensor | None = None
        self.left_behind: Tensor | None = None
        self.origin: Tensor | None = None
        self.conditions: ByteArray | None = None
        self.owner: int | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns how many tokens were given so far."""
        return self.num_tokens

    @property
    def num_keys(self) -> int:
        """M, elements of the window that the latents have attended to."""
        return int(self.layers[0].get_seq_length())

    def append(self, ids_BT: Tensor, mask_BT: Tensor | None) -> None:
        """Adds tokens to the window.

        Args:
            ids_BT: The tokens.
            mask_BT: True where one is real; None where all are.

        Raises:
            ValueError: Their batch is of another size than the cache's.
        """
        if self.ids is None:
            self.ids, self.mask = ids_BT, mask_BT
            self.schedule = self.schedule.after_prompt(ids_BT.shape[1])
            self.left_behind = ids_BT.new_zeros(len(ids_BT), dtype=torch.int64)
        else:
            if len(ids_BT) != len(self.ids):
                raise ValueError(
                    f"The cache holds {len(self.ids)} sequences, got tokens of {len(ids_BT)}. Start with an empty "
                    "cache."
                )
            parts = [(self.mask, self.ids.shape[1]), (mask_BT, ids_BT.shape[1])]
            self.mask = joined_masks(parts, like=ids_BT)
            self.ids = torch.cat([self.ids, ids_BT], dim=1)
        self.num_tokens += ids_BT.shape[1]

    def move_window(self, length: int) -> bool:
        """Leaves all tokens behind but the last ones; returns whether any had to go."""
        assert self.ids is not None and self.left_behind is not None
        gone = self.ids.shape[1] - length
        if gone <= 0:
            return False
        real_B = gone if self.mask is None else self.mask[:, :gone].sum(dim=1)
        self.left_behind = self.left_behind + real_B
        self.ids = self.ids[:, gone:]
        if self.mask is not None:
            self.mask = self.mask[:, gone:]
            if self.mask.all():
                self.mask = None
        return True

    def positions(self, start: int) -> Tensor:
        """Returns the positions of the window's tokens from one on, (B, T - start) int64.

        They are counted among the real tokens, from the origin; padding has 0.
        """
        assert self.ids is not None and self.left_behind is not None
        before_B = self.left_behind if self.origin is None else self.left_behind - self.origin
        if self.mask is None:
            return before_B[:, None] + torch.arange(start, self.ids.shape[1], device=self.ids.device)
        return (self.mask.cumsum(dim=1)[:, start:] - 1 + before_B[:, None]).clamp(min=0)

    def keep(self, keys: int, latents: int) -> None:
        """Forgets all keys of the cross-attend but the first ones, and of the self-attends but these latents'."""
        first, *others = self.layers
        first.keep(0, keys)
        for layer in others:
            layer.keep(0, latents)
        if self.key_mask is not None:
            self.key_mask = self.key_mask[:, :keys]
        if self.latent_mask is not None:
            self.latent_mask = self.latent_mask[:, :latents]
        self.num_latents = latents

    def drop_first(self, count: int) -> None:
        """Forgets the first keys of the cross-attend."""
        self.layers[0].keep(count, self.num_keys)
        if self.key_mask is not None:
            self.key_mask = self.key_mask[:, count:]

    def reset(self) -> None:
        """Forgets everything but the schedule's numbers."""
        self.__init__(len(self.layers), replace(self.schedule, prompt_length=None))  # type: ignore[misc]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes over other sequences of the batch, as beams do."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._change_batch(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps some sequences of the batch."""
        super().batch_select_indices(indices)
        self._change_batch(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence of the batch."""
        super().batch_repeat_interleave(repeats)
        self._change_batch(lambda x: x.repeat_interleave(repeats, dim=0))

    def crop(self, max_length: int) -> None:
        """Refused: latents that have seen tokens cannot forget them."""
        raise ValueError("A LatentCache cannot be cropped: start with an empty one.")

    def _change_batch(self, change: Any) -> None:
        for name in ("ids", "mask", "key_mask", "latent_mask", "left_behind", "origin"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, change(value))
        if (part := self.conditions) is not None:
            mask = None if part.mask is None else change(part.mask)
            self.conditions = replace(part, values=change(part.values), mask=mask)

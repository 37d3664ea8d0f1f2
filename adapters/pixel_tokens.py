"""The vocabulary of pixels: which number stands for which grey level, and in which order an image's levels follow.

Shape legend: B batch, T tokens, F image channels, H height, W width, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.input_tools import check_shape

__all__ = ["PixelTokens"]


@dataclass(frozen=True, kw_only=True)
class PixelTokens:
    """An image as tokens: a start token, then each level in raster order, the channels of a pixel one after the other.

    Ids begin with the special tokens, of which the last is the start token. Level 0 follows. The release of Perceiver
    AR has three: padding, the end and the start.

    Attributes:
        size: Height and width.
        num_channels: F.
        num_levels: How many levels a channel of a pixel has.
        num_special_tokens: How many ids are no levels, the start token among them.
    """

    size: tuple[int, int]
    num_channels: int
    num_levels: int
    num_special_tokens: int = 1

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return self.num_special_tokens + self.num_levels

    @property
    def start_id(self) -> int:
        """The id of the start token."""
        return self.num_special_tokens - 1

    @property
    def length(self) -> int:
        """Tokens of a whole image."""
        return 1 + self.length_of(self.size[0])

    def length_of(self, num_rows: int) -> int:
        """Returns how many tokens so many rows are, without the start token."""
        return num_rows * self.size[1] * self.num_channels

    def to_ids(self, levels: Tensor) -> Tensor:
        """Returns the tokens of images, or of their first rows.

        Args:
            levels: (B, F, R, W) whole numbers from 0 on, R from 0 to H.

        Returns:
            (B, 1 + R * W * F) int64, the start token first.

        Raises:
            ValueError: The shape or type does not fit, or a value is no level.
        """
        height, width = self.size
        advice = f"The model's images are {height} x {width} pixels of {self.num_channels} channels."
        check_shape(levels, ("batch", self.num_channels, "rows", width), name="Levels", advice=advice)
        if levels.is_floating_point() or levels.dtype == torch.bool:
            raise ValueError(
                f"Levels must be whole numbers from 0 to {self.num_levels - 1}, got {levels.dtype}. The processor "
                "makes them of images."
            )
        if levels.shape[2] > height:
            raise ValueError(f"Levels have {levels.shape[2]} rows, more than an image. {advice}")
        levels = levels.to(torch.int64)
        if levels.numel() and not 0 <= int(levels.min()) <= int(levels.max()) < self.num_levels:
            raise ValueError(
                f"Levels must be from 0 to {self.num_levels - 1}, got {int(levels.min())} to {int(levels.max())}. The "
                "processor makes them of images."
            )
        values_BT = levels.permute(0, 2, 3, 1).flatten(1) + self.num_special_tokens
        return torch.cat([values_BT.new_full((len(values_BT), 1), self.start_id), values_BT], dim=1)

    def to_levels(self, ids_BT: Tensor) -> Tensor:
        """Returns the images that tokens are, or the rows that there are so far.

        Args:
            ids_BT: Tokens, the start token first, then whole rows.

        Returns:
            (B, F, R, W) int64.

        Raises:
            ValueError: It does not begin with the start token, a row is not whole, there are more than an image has, or
                a special token stands among the levels.
        """
        check_shape(
            ids_BT, ("batch", "tokens"), name="Pixel ids", advice="Give one image a batch axis: ids[None]."
        )
        row = self.length_of(1)
        num_rows, rest = divmod(ids_BT.shape[1] - 1, row)
        if rest or num_rows < 0 or num_rows > self.size[0]:
            raise ValueError(
                f"Got {ids_BT.shape[1]} tokens, expected the start token and up to {self.size[0]} whole rows of {row} "
                "each."
            )
        if (ids_BT[:, 0] != self.start_id).any():
            raise ValueError(
                f"The first token must be the start token {self.start_id}, got {ids_BT[:, 0].tolist()!r:.80}."
            )
        levels_BT = ids_BT[:, 1:].to(torch.int64) - self.num_special_tokens
        if levels_BT.numel() and not 0 <= int(levels_BT.min()) <= int(levels_BT.max()) < self.num_levels:
            raise ValueError(
                f"After the start token all ids must be levels, {self.num_special_tokens} to {self.vocab_size - 1}, "
                f"got {int(ids_BT[:, 1:].min())} to {int(ids_BT[:, 1:].max())}."
            )
        return levels_BT.unflatten(1, (num_rows, self.size[1], self.num_channels)).permute(0, 3, 1, 2)

    @staticmethod
    def of_grid(size: tuple[int, ...], vocab_size: int, num_special_tokens: int) -> PixelTokens:
        """Returns the vocabulary of a `PixelSequenceAdapter`, from the fields of its configuration.

        Raises:
            ValueError: Its grid is not one of height, width and channels.
        """
        if len(size) != 3:
            raise ValueError(f"Images have a height, a width and channels, got the size {list(size)}.")
        return PixelTokens(
            size=(size[0], size[1]),
            num_channels=size[2],
            num_levels=vocab_size - num_special_tokens,
            num_special_tokens=num_special_tokens,
        )

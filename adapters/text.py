"""Text: token ids, embedded and added to learned positions, or beside Fourier features of their places.

Shape legend: B batch, T tokens, C channels of the byte array; M = T elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.causal.sequence import SequenceAdapter, token_positions
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import beside, check_indices, check_mask, check_positive, check_shape
from perceiver_io.layers import LearnedArray, linear
from perceiver_io.plain import is_plain
from perceiver_io.position import FourierPositionEncoding, LearnedPositionEncoding, sinusoids
from perceiver_io.registry import register_adapter

__all__ = ["TextAdapter"]


@register_adapter("text")
class TextAdapter(SequenceAdapter):
    """Embeds token ids (B, T) and adds a learned position to each (Perceiver IO, section 4.1).

    Or it puts Fourier features of each token's place beside it, adds sinusoids, or leaves positions to a causal
    encoder, all of which take no parameters. Convolutions may let each element know its neighbours, as those of the
    image adapter do for pixels; then no causal encoder can take it.

    The tokens of the published model are UTF-8 bytes, moved up by six special ones; any other vocabulary will do. A
    mask is (B, T), True where a token is real. What the ids are where it is False does not matter.

    Args:
        config: The settings.
    """

    argument_names = ("input_ids", "attention_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            vocab_size: How many ids there are; 262 for bytes and their special tokens.
            max_length: The longest sequence, in tokens; shorter ones take the first positions. With Fourier positions
                it is what -1 to 1 covers, and longer sequences go on past 1.
            num_channels: Width of the elements' content, and of learned positions.
            features: "embedding" is each token's own, as published; "conv" lets convolutions see its neighbours first.
            embedding_channels: Width of the embeddings that are convolved; num_channels if None, and without "conv".
            kernel_size: Tokens that a convolution sees, an odd number.
            num_convolutions: How many follow each other; all but the first are residual.
            position: "learned" adds a learned vector to each embedding, as published; "fourier" puts Fourier features
                of a token's place beside it, spaced as in a sequence of `max_length`, however long it is; "sinusoidal"
                adds sines and cosines of the place, counted from 1, as in the release of Perceiver AR; "none" adds
                nothing.
            num_bands: Frequencies of Fourier positions.
            counts_real: Whether places are counted among the real tokens, so that padding may come first; else padding
                counts like any token.
        """

        vocab_size: int = 262
        max_length: int = 2048
        num_channels: int = 768
        features: Literal["embedding", "conv"] = "embedding"
        embedding_channels: int | None = None
        kernel_size: int = 5
        num_convolutions: int = 2
        position: Literal["learned", "fourier", "sinusoidal", "none"] = "learned"
        num_bands: int = 64
        counts_real: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "vocab_size", "max_length", "num_channels", "num_bands")
            check_positive(self, "embedding_channels", "kernel_size", "num_convolutions")
            if self.num_convolutions > 100:
                raise ValueError(
                    f"TextAdapter.Config.num_convolutions must be at most 100, got {self.num_convolutions}."
                )
            if self.kernel_size % 2 == 0:
                raise ValueError(f"TextAdapter.Config.kernel_size must be odd, got {self.kernel_size}.")
            if self.position == "sinusoidal" and self.num_channels % 2:
                raise ValueError(
                    f"TextAdapter.Config.num_channels must be even with sinusoidal positions, got {self.num_channels}."
                )
            if self.features != "conv" and self.embedding_channels not in (None, self.num_channels):
                raise ValueError(
                    "TextAdapter.Config.embedding_channels goes with features='conv': else embeddings are num_channels "
                    f"wide, got {self.embedding_channels} and {self.num_channels}."
                )

        @property
        def element_channels(self) -> int:
            """Width of the byte array: content, and Fourier positions beside it."""
            return self.num_channels + (2 * self.num_bands + 1 if self.position == "fourier" else 0)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_content_channels = config.num_channels
        self.num_channels = config.element_channels
        self.vocab_size = config.vocab_size
        self.has_absolute_positions = config.position != "none"
        self.convolutions = None
        if config.features == "conv":
            width = config.embedding_channels or config.num_channels
            self.embedding = LearnedArray(config.vocab_size, width, std=1.0)
            self.convolutions = SequenceConvolutions(
                width, config.num_channels, kernel_size=config.kernel_size, depth=config.num_convolutions
            )
        else:
            self.embedding = LearnedArray(config.vocab_size, config.num_channels)
        self.position: LearnedPositionEncoding | FourierPositionEncoding | None = None
        if config.position == "learned":
            self.position = LearnedPositionEncoding(
                grid=(config.max_length,), num_channels=config.num_channels, resize="truncate"
            )
        elif config.position == "fourier":
            self.position = FourierPositionEncoding(
                num_bands=config.num_bands,
                max_resolution=(config.max_length,),
                nominal_grid=(config.max_length,),
            )

    def forward(self, x: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> ByteArray:
        """Embeds a batch of token ids.

        Args:
            x: (B, T) int64 or int32 token ids.
            mask: (B, T) bool, True where a token is real.
            positions: (B, T) int64 places of the tokens in the sequence; their index if None, or their index among the
                real tokens, as the configuration has it.

        Returns:
            The byte array. Positions are added to the embeddings, so that all channels count as content; Fourier
            positions come after them.

        Raises:
            ValueError: The rank or type does not fit, the batch is empty, the sequence is longer than there are learned
                positions, or a real id is not in the vocabulary.
        """
        check_shape(
            x, ("batch", "tokens"), name="Token ids", advice="Give one sequence a batch axis: ids[None]."
        )
        check_mask(mask, x.shape, x=x, name="token ids")
        if positions is None and self.config.position == "learned" and x.shape[1] > self.config.max_length:
            raise ValueError(
                f"The sequence of {x.shape[1]} tokens is longer than the model's {self.config.max_length}. "
                "Truncate it, or split it in several."
            )
        check_indices(
            x,
            count=self.config.vocab_size,
            name="Token ids",
            advice="Use the tokenizer that belongs to the model.",
            mask=mask,
        )
        ids_BT = x if mask is None else torch.where(mask, x, 0)
        if positions is None and self.config.counts_real and mask is not None:
            positions = token_positions(mask)
        if positions is None and self.config.position == "sinusoidal":
            positions = torch.arange(x.shape[1], device=x.device)[None]
        if positions is None:
            values_BTC = nn.functional.embedding(ids_BT, self.embedding())
            if self.convolutions is not None:
                values_BTC = self.convolutions(values_BTC, mask)
            if self.position is not None:
                position_TP = self.position((x.shape[1],), like=values_BTC)
                together = torch.add if self.config.position == "learned" else beside
                values_BTC = together(values_BTC, position_TP)
        else:
            values_BTC = self.embed(ids_BT, positions)
        return ByteArray(
            values=values_BTC,
            mask=mask,
            grid=(x.shape[1],),
            num_content_channels=self.num_content_channels,
        )

    def embed(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Returns the elements (B, T, C) of tokens at positions.

        Args:
            ids_BT: Token ids.
            positions_BT: (B or 1, T) int64, from 0.

        Raises:
            ValueError: Convolutions make elements of several tokens, or there are no learned positions for a place.
        """
        if self.convolutions is not None:
            raise ValueError(
                "A TextAdapter with features='conv' makes each element of several tokens, so that none can be embedded "
                "alone. Choose features='embedding'."
            )
        values_BTC = nn.functional.embedding(ids_BT, self.embedding())
        if self.config.position == "none":
            return values_BTC
        if self.config.position == "sinusoidal":
            return values_BTC + sinusoids(positions_BT + 1, self.config.num_channels, like=values_BTC)
        assert self.position is not None
        if self.config.position == "learned":
            check_indices(
                positions_BT,
                count=self.config.max_length,
                name="Positions",
                advice="Truncate the sequence, or split it in several.",
            )
            table_TP = self.position((self.config.max_length,), like=values_BTC)
            return values_BTC + table_TP[positions_BT]
        table_TP = self.position((int(positions_BT.max()) + 1,), like=values_BTC)
        return beside(values_BTC, table_TP[positions_BT].expand(*values_BTC.shape[:2], -1))

    def tied_embedding(self) -> LearnedArray:
        """Returns the embeddings, (vocab_size, channels): decoders may use the same for their logits."""
        return self.embedding


class SequenceConvolutions(nn.Module):
    """Convolutions along a sequence, which keep its length; what is masked counts as zero.

    Args:
        in_channels: E.
        out_channels: C.
        kernel_size: Elements that each sees.
        depth: How many there are. The first widens; the others are residual, with a layer norm before each.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, depth: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        widths = [in_channels] + [out_channels] * (depth - 1)
        self.layers = nn.ModuleList(linear(width * kernel_size, out_channels) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(out_channels) for _ in range(depth - 1))

    def forward(self, x_BTE: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Returns (B, T, C).

        Args:
            x_BTE: The sequence.
            mask_BT: True where an element is real.
        """
        x_BTC = nn.functional.relu(self._convolved(self.layers[0], x_BTE, mask_BT))
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            x_BTC = x_BTC + nn.functional.relu(self._convolved(layer, norm(x_BTC), mask_BT))
        return x_BTC if mask_BT is None else x_BTC * mask_BT[..., None]

    def _convolved(self, layer: nn.Module, x_BTE: Tensor, mask_BT: Tensor | None) -> Tensor:
        if mask_BT is not None:
            x_BTE = x_BTE * mask_BT[..., None]
        if not is_plain(layer):
            padded_BTE = nn.functional.pad(x_BTE, [0, 0, self.kernel_size // 2, self.kernel_size // 2])
            convolved: Tensor = layer(padded_BTE.unfold(1, self.kernel_size, 1).flatten(2))
            return convolved
        assert isinstance(layer, nn.Linear)
        weight_CEK = layer.weight.unflatten(1, (-1, self.kernel_size))
        padding = self.kernel_size // 2
        return nn.functional.conv1d(x_BTE.transpose(1, 2), weight_CEK, layer.bias, padding=padding).transpose(
            1, 2
        )

"""Which tokens of an image are predicted at once, where there are fewer latents than tokens.

Shape legend: T tokens, N latents.

A model that reads tokens up to one says what follows each of the last N, so that N - 1 of them are compared with what
they are. An image is thus judged in several passes, each of which reads all that stands before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perceiver_io.tasks.autoregressive.windows import TokenWindows, Window

__all__ = ["random_window", "usual_latents", "whole_windows"]

_MOST_LATENTS = 1024


def whole_windows(ids_T: Tensor, num_latents: int) -> Sequence[Window]:
    """Returns windows that begin with an image, in which each token but the first is predicted once.

    Args:
        ids_T: Its tokens.
        num_latents: N, 2 or more.
    """
    tokens = ids_T.numpy()
    return TokenWindows([tokens], max_length=max(len(tokens), num_latents), num_latents=num_latents)


def random_window(ids_T: Tensor, num_latents: int) -> Window:
    """Returns a window of random length: each token but the first is as likely to be predicted in it as any other.

    Args:
        ids_T: An image's tokens.
        num_latents: N, 2 or more.
    """
    tokens, size = ids_T.numpy(), num_latents - 1
    if size >= len(tokens) - 1:
        return Window(tokens, len(tokens) - 1)
    # So that tokens at both ends are in as many windows as others, windows may reach beyond them.
    stop = int(torch.randint(2, len(tokens) + size, ()))
    first, stop = max(1, stop - size), min(stop, len(tokens))
    return Window(tokens[:stop], stop - first)


def usual_latents(num_tokens: int) -> int:
    """Returns a number of latents for so many tokens: all, or such that few windows of equal size hold them."""
    num_values = num_tokens - 1
    num_windows = -(-num_values // _MOST_LATENTS)
    return 1 + -(-num_values // num_windows)

"""The most probable bytes that are UTF-8: each masked byte has a distribution of its own, but not each pair makes text.

Shape legend: T bytes in a row, S states, 256 values of a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["most_probable_text"]

# What may follow, as ranges of bytes with the state after them (RFC 3629, section 4). State 0 is between characters; in
# 1, 2 and 3 so many bytes of the 10xxxxxx form are still to come; the others are after first bytes whose second is
# restricted: no character has two encodings, and surrogates and what is above U+10FFFF have none.
_TAIL = (0x80, 0xBF)
_RULES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    (
        (0x00, 0x7F, 0),
        (0xC2, 0xDF, 1),
        (0xE0, 0xE0, 4),
        (0xE1, 0xEC, 2),
        (0xED, 0xED, 5),
        (0xEE, 0xEF, 2),
        (0xF0, 0xF0, 6),
        (0xF1, 0xF3, 3),
        (0xF4, 0xF4, 7),
    ),
    ((*_TAIL, 0),),
    ((*_TAIL, 1),),
    ((*_TAIL, 2),),
    ((0xA0, 0xBF, 1),),
    ((0x80, 0x9F, 1),),
    ((0x90, 0xBF, 2),),
    ((0x80, 0x8F, 2),),
)


def most_probable_text(log_probabilities_TV: NDArray[np.floating]) -> bytes:
    """Returns the most probable bytes that are whole UTF-8 characters, given what each byte probably is.

    Bytes are guessed one by one, not knowing of each other, so the most probable at each place may be half of a
    character. This finds the best of all sequences that can be decoded (Viterbi's algorithm over the states that a
    decoder of UTF-8 goes through).

    Args:
        log_probabilities_TV: (T, 256) logarithms of the probability of each byte, up to a constant for each T.

    Raises:
        ValueError: The array has another shape, or holds NaN or infinities.
    """
    if log_probabilities_TV.ndim != 2 or log_probabilities_TV.shape[1] != 256:
        raise ValueError(f"Expected log-probabilities (T, 256), got {log_probabilities_TV.shape}.")
    if not np.isfinite(log_probabilities_TV).all():
        raise ValueError("The log-probabilities hold NaN or infinities, expected finite numbers.")
    num_states = len(_RULES)
    best_S = np.full(num_states, -np.inf)
    best_S[0] = 0.0
    # How each state is reached best after each byte: by which byte, from which state.
    steps: list[list[tuple[int, int]]] = []
    for log_probability_V in log_probabilities_TV.astype(np.float64):
        reached_S = np.full(num_states, -np.inf)
        step = [(0, 0)] * num_states
        for state, rules in enumerate(_RULES):
            for first, last, following in rules:
                byte = first + int(log_probability_V[first : last + 1].argmax())
                score = best_S[state] + log_probability_V[byte]
                if score > reached_S[following]:
                    reached_S[following] = score
                    step[following] = (byte, state)
        steps.append(step)
        best_S = reached_S
    found = bytearray()
    state = 0
    for step in reversed(steps):
        byte, state = step[state]
        found.append(byte)
    return bytes(reversed(found))

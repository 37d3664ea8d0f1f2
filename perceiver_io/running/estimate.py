"""How long a training will take, told after its first seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["Estimate"]

_SECONDS, _STEPS = 10.0, 3
_LONG = 15 * 60.0


class Estimate:
    """Watches the first steps of a training, and says once how long it will take.

    The first step is left out: it is slower than those that follow.

    Args:
        what: What is estimated, for example "40 epochs".
        where: What it runs on, for example "2 threads".
        shorter: Flags that shorten it, which are named where it will be long; where there are none, it never is.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        *,
        what: str,
        where: str,
        shorter: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.where = what, where
        self.shorter = shorter
        self.clock = clock
        self._first: tuple[int, float] | None = None
        self._is_told = False

    def after(self, step: int, num_steps: int) -> str | None:
        """Returns what there is to tell at the end of a step: once a line, else None.

        Args:
            step: How many steps are done, those before a run was resumed among them.
            num_steps: How many there will be.
        """
        if self._is_told:
            return None
        now = self.clock()
        if self._first is None:
            self._first = step, now
            return None
        steps, seconds = step - self._first[0], now - self._first[1]
        if steps < _STEPS or seconds < _SECONDS:
            return None
        self._is_told = True
        left = (num_steps - step) * seconds / steps
        resumed = self._first[0] > 1
        line = f"about {_duration(left if resumed else seconds + left)} "
        line += f"until the end of {self.what}" if resumed else f"for {self.what}"
        line += f" on {self.where}"
        if left > _LONG and self.shorter:
            line += f"; shorter with {', '.join(self.shorter[:-1])}{' or ' * (len(self.shorter) > 1)}{self.shorter[-1]}"
        return line


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(round(seconds / 10) * 10, 10)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"

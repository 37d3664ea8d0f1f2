"""Results as JSON that every reader takes."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["json_text"]


def json_text(content: Any) -> str:
    """Returns results as JSON; a number that is not finite, for which JSON has no word, is null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

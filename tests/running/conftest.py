from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def cheap_garbage_collection() -> Iterator[None]:
    # accelerate collects garbage at the start of each training; half a second, with all these modules loaded.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()

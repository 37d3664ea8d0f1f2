"""Files that cannot be read, found before the training and not in the middle of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from perceiver_io.data.content import Content
from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["drop_bad_files"]

logger = logging.getLogger(__name__)

_NUM_FILES_NAMED = 20


def drop_bad_files(splits: Mapping[str, Dataset], content: Content, *, skip: bool) -> dict[str, Dataset]:
    """Decodes everything once, and raises or (if bad files are to be skipped) warns where that fails.

    Raises:
        ValueError: Something is missing or corrupt; the message names up to 20 of them.
    """
    good: dict[str, list[int]] = {split: [] for split in splits}
    bad: list[str] = []
    total = sum(len(rows) for rows in splits.values())
    progress = require("tqdm", extra="train").tqdm(
        total=total, desc=f"Checking {content.noun}", unit=f" {content.noun}", delay=1, disable=None
    )
    with progress, ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        for split, rows in splits.items():
            encoded = rows.cast_column(content.column, content.feature(decode=False))
            row = 0
            for batch in encoded.iter(batch_size=512):
                values = batch[content.column]
                for value, fault in zip(values, pool.map(content.fault, values), strict=True):
                    if fault is None:
                        good[split].append(row)
                    else:
                        path = value.get("path") if isinstance(value, Mapping) else None
                        bad.append(f"{path or f'row {row} of {split}'} ({fault})")
                    row += 1
                progress.update(len(values))
    if not bad:
        return dict(splits)
    names = ", ".join(bad[:_NUM_FILES_NAMED])
    rest = f" and {len(bad) - _NUM_FILES_NAMED} more" if len(bad) > _NUM_FILES_NAMED else ""
    message = f"{len(bad)} of {total} {content.noun} are missing or corrupt: {names}{rest}."
    if not skip:
        raise ValueError(f"{message} Repair or remove them, or set skip_bad_files to go on without them.")
    logger.warning("Skipped: %s", message)
    return {split: rows.select(good[split]) for split, rows in splits.items()}

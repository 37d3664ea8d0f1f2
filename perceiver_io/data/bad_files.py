"""Files that cannot be read, found before the training and not in the middle of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from perceiver_io.data.content import Content
from perceiver_io.data.sources import nouns
from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["drop_bad_files"]

logger = logging.getLogger(__name__)

_NUM_FILES_NAMED = 20


def drop_bad_files(
    splits: Mapping[str, Dataset], contents: Sequence[Content], *, skip: bool
) -> dict[str, Dataset]:
    """Decodes everything once, and raises or (if bad files are to be skipped) warns where that fails.

    Of several contents a sample may lack some, but not all.

    Raises:
        ValueError: Something is missing or corrupt; the message names up to 20 of them.
    """
    kept: dict[str, list[int]] = {}
    bad: list[str] = []
    noun, total = nouns(contents), sum(len(rows) for rows in splits.values()) * len(contents)
    progress = require("tqdm", extra="train").tqdm(
        total=total, desc=f"Checking {noun}", unit=f" {noun}", delay=1, disable=None
    )
    with progress, ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        for split, rows in splits.items():
            faulty, present = set[int](), set[int]()
            for content in contents:
                encoded = rows.select_columns([content.column])
                feature = content.feature(decode=False)
                if encoded.features[content.column] != feature:
                    encoded = encoded.cast_column(content.column, feature)
                row = 0
                for batch in encoded.iter(batch_size=512):
                    values = batch[content.column]
                    for value, fault in zip(values, pool.map(content.fault, values), strict=True):
                        if value is not None:
                            present.add(row)
                        if fault is not None and (value is not None or len(contents) == 1):
                            path = value.get("path") if isinstance(value, Mapping) else None
                            bad.append(f"{path or f'row {row} of {split}'} ({fault})")
                            faulty.add(row)
                        row += 1
                    progress.update(len(values))
            if len(contents) > 1:
                empty = sorted(set(range(len(rows))) - present)
                bad += [f"row {row} of {split} (has none of the {noun})" for row in empty]
                faulty.update(empty)
            kept[split] = [row for row in range(len(rows)) if row not in faulty]
    if not bad:
        return dict(splits)
    names = ", ".join(bad[:_NUM_FILES_NAMED])
    rest = f" and {len(bad) - _NUM_FILES_NAMED} more" if len(bad) > _NUM_FILES_NAMED else ""
    message = f"{len(bad)} of {total} {noun} are missing or corrupt: {names}{rest}."
    if not skip:
        raise ValueError(f"{message} Repair or remove them, or set skip_bad_files to go on without them.")
    logger.warning("Skipped: %s", message)
    return {split: rows.select(kept[split]) for split, rows in splits.items()}

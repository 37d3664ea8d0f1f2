"""Tasks whose every input is one file: it becomes one row, as the rows of the data are."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.loaded_model import LoadedModel
from perceiver_io.running.task import Batch, Collate, Setup, TrainableTask

__all__ = ["RowTask"]


class RowTask(TrainableTask):
    """A trainable task that reads a file as a row, and makes batches of rows in training as in use.

    Its model gives `logits` with a row for each row of the batch, and has `attention_maps` with the same arguments.

    Attributes:
        batch_size: How many files are predicted at once.
    """

    batch_size: ClassVar[int] = 64

    @abstractmethod
    def collate(self, rows: Sequence[Any], processor: Any) -> Batch:
        """Makes a batch: the keyword arguments of the model, `labels` among them where the rows have them.

        Args:
            rows: Of the data, or of `read`.
            processor: What makes the model's inputs of raw ones; None if the task has none.
        """

    @abstractmethod
    def read(self, file: str) -> Any:
        """Reads a file as one row, which need not have a label.

        Raises:
            ValueError: It cannot be read.
        """

    def named_rows(self, file: str) -> list[tuple[str, Any]]:
        """Reads all rows of a file, each with the name that predictions have: by default one, under the file's."""
        return [(file, self.read(file))]

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns `collate`, in training as otherwise."""
        return partial(self.collate, processor=setup.processor)

    def outputs(
        self, loaded: LoadedModel[Any], files: Sequence[str], *, batch_size: int | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields each file with what the model gives for it, its row of `logits` in float32.

        Args:
            loaded: The model and its processor.
            files: The files.
            batch_size: How many are predicted at once, if not as many as usual.

        Raises:
            ValueError: A file cannot be read, or the weights are damaged.
        """
        rows = (row for file in files for row in self.named_rows(file))
        while part := list(itertools.islice(rows, batch_size or self.batch_size)):
            batch = self._inputs(loaded.model, [row for _, row in part], loaded.processor)
            with torch.inference_mode():
                logits = loaded.model(**batch).logits.float().cpu()
            if not logits.isfinite().all():
                raise ValueError("The model gives values that are not numbers: its weights are damaged.")
            yield from zip((name for name, _ in part), logits, strict=True)

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents attend to in a file."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one file at a time, got {len(inputs)}.")
        return self.row_view(loaded.model, loaded.processor, self.read(inputs[0]), Path(inputs[0]).name)

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a row.

        Args:
            model: The model.
            processor: Its processor.
            row: The row.
            title: Heading of the picture.
        """
        return AttentionView(maps=model.attention_maps(**self._inputs(model, [row], processor)), title=title)

    def _inputs(self, model: Any, rows: Sequence[Any], processor: Any) -> Batch:
        batch = {name: part for name, part in self.collate(rows, processor).items() if name != "labels"}
        inputs: Batch = to_device(batch, model.device, dtype=model.dtype)
        return inputs

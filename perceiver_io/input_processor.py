"""What makes an adapter's input of what people have: a picture, a recording, a text.

Shape legend: B batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["InputProcessor", "SavedAlone"]


@runtime_checkable
class InputProcessor(Protocol):
    """Turns values of one modality into what its adapter takes, sample by sample, and samples into batches.

    Processors are saved with the model: those that `transformers` has a kind for (image processors, feature extractors)
    in its files, all of them within a `PerceiverIOProcessor`. Each is registered with
    `perceiver_io.register_processor`.
    """

    def prepare(self, value: Any) -> Tensor:
        """Returns one sample, as the adapter takes it but without a batch axis; its size may be its own.

        Raises:
            ValueError: The value is none of this modality, empty, damaged, or not what the processor is set for.
        """

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch of samples, padded to the largest, and its mask; see `perceiver_io.ragged.pad_ragged`.

        Args:
            samples: What `prepare` returned; None where a sample lacks the input.
        """

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, as JSON values: ``type(self).from_dict(self.to_dict())`` is an equal processor."""

    @classmethod
    def from_dict(cls, settings: dict[str, Any], /) -> InputProcessor:
        """Makes a processor of its settings.

        Raises:
            ValueError: A setting is unknown or out of range.
        """


@runtime_checkable
class SavedAlone(Protocol):
    """A processor that `transformers` has a kind for, such as an image processor, with a file of its own."""

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Any:
        """Writes its file into a folder."""

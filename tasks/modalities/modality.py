"""What every modality is to the tasks that read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.data import Content
from perceiver_io.input_processor import InputProcessor
from perceiver_io.pictures.seen import Seen
from perceiver_io.running import section

__all__ = ["Modality", "settings_section"]


class Modality(ABC):
    """One kind of input: where it comes from, how it becomes an input, how it varies, how it is drawn.

    A task of one modality declares which; a task of several takes any of them. They know nothing of a task.

    Attributes:
        name: What its input, its column and its section of a recipe are called.
        content: Its files and columns.
        Settings: What a recipe may say of it.
    """

    name: ClassVar[str]
    content: ClassVar[Content]
    Settings: ClassVar[type[ComponentConfig]]

    @abstractmethod
    def processor(self, settings: Any, values: Iterable[Any]) -> InputProcessor:
        """Returns the processor of a new model.

        Args:
            settings: The recipe's.
            values: What the training set has of it, opened one by one as they are asked for; empty if there is none.
        """

    @abstractmethod
    def adapter(self, settings: Any, processor: Any) -> ComponentConfig:
        """Returns the configuration of a new model's adapter.

        Args:
            settings: The recipe's.
            processor: What `processor` returned.
        """

    def loaded(self, processor: Any) -> InputProcessor:
        """Returns the processor that was loaded by one of the auto classes of `transformers`; by default it is one."""
        return processor

    def varied(self, value: Any, processor: Any, settings: Any) -> Tensor:
        """Prepares a value for training, varied at random as the settings say; by default as it is.

        Random numbers are of PyTorch's global generator.

        Args:
            value: The value.
            processor: The processor.
            settings: The recipe's.

        Returns:
            As `InputProcessor.prepare`.
        """
        return processor.prepare(value)

    @abstractmethod
    def seen(self, value: Any, sample: Tensor, processor: Any) -> Seen:
        """Returns what the model saw of a value, to draw attention over it.

        Args:
            value: The value.
            sample: What `processor` prepared of it.
            processor: The processor.
        """


def settings_section(modality: type[Modality] | Modality, what: str) -> Any:
    """Returns the field of a recipe that holds a modality's settings.

    Args:
        modality: The modality.
        what: What they are about: "the recordings".
    """
    names = ", ".join(modality.Settings.__dataclass_fields__)
    return section(f"Settings of {what}: {names}.")

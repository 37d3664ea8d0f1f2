"""The named inputs of a task: one modality each, from rows of data to batches, configurations and pictures.

Shape legend: B batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Content
from perceiver_io.pictures.seen import Seen
from perceiver_io.presets import laid_over
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.running.model_settings import ModelSettings
from perceiver_io.single_output import Arguments
from perceiver_io.tasks.modalities.modality import Modality

__all__ = ["Inputs", "Settings"]

Settings = Mapping[str, ComponentConfig]


@dataclass(frozen=True)
class Inputs:
    """Some modalities, by the name of the input. Rows have a column of that name, or lack it.

    Attributes:
        modalities: The modalities.
    """

    modalities: Mapping[str, Modality]

    @classmethod
    def of(cls, *modalities: Modality) -> Inputs:
        """Returns the inputs of some modalities, under their own names."""
        return cls({one.name: one for one in modalities})

    def chosen(self, names: Sequence[str]) -> Inputs:
        """Returns some of the inputs.

        Raises:
            ValueError: One is not known.
        """
        if unknown := [name for name in names if name not in self.modalities]:
            raise ValueError(f"There are no inputs {unknown}. Known: {', '.join(self.modalities)}.")
        return Inputs({name: self.modalities[name] for name in names})

    @property
    def contents(self) -> list[Content]:
        """What is read of data."""
        return [one.content for one in self.modalities.values()]

    def settings(self, recipe: Any) -> dict[str, Any]:
        """Returns what a recipe says of each, from its section of that name.

        Raises:
            ValueError: A setting is unknown, of a wrong type or out of range.
        """
        found = {}
        for name, modality in self.modalities.items():
            try:
                found[name] = modality.Settings.from_dict(getattr(recipe, name))
            except ValueError as error:
                raise ValueError(f"The section {name}: {error}") from error
        return found

    def processor(self, settings: Settings, rows: Sequence[Mapping[str, Any]]) -> PerceiverIOProcessor:
        """Returns the processor of a new model.

        Args:
            settings: Of each input.
            rows: What it is trained on.
        """
        return PerceiverIOProcessor(
            {
                name: modality.processor(settings[name], self._values(name, rows))
                for name, modality in self.modalities.items()
            }
        )

    def adapters(
        self, settings: Settings, processor: PerceiverIOProcessor, changes: ModelSettings | None = None
    ) -> dict[str, ComponentConfig]:
        """Returns the configurations of a new model's adapters.

        Args:
            settings: Of each input.
            processor: What `processor` returned.
            changes: What a recipe says of the model.
        """
        found = {}
        for name, modality in self.modalities.items():
            config = modality.adapter(settings[name], processor.processors[name])
            change = {} if changes is None else changes.input(name)
            found[name] = laid_over(type(config), config.to_dict(), change)
        return found

    def batch(
        self,
        rows: Sequence[Mapping[str, Any]],
        processor: PerceiverIOProcessor,
        *,
        arguments: Arguments,
        varied: Settings | None = None,
    ) -> dict[str, Any]:
        """Makes the keyword arguments of a model, but for the labels.

        Args:
            rows: Of data, or with values of some inputs.
            processor: The model's.
            arguments: The model's own names of them; see `SingleOutputModel`.
            varied: In training, the settings by which values are varied at random.

        Raises:
            ValueError: A value is bad, or a row has none.
        """
        made = processor.collate(
            [self._sample(row, index, processor, varied) for index, row in enumerate(rows)]
        )
        if not arguments:
            return made
        batch = {}
        for name, (argument, mask_argument) in arguments.items():
            batch[argument] = made["inputs"][name]
            if name in made["masks"]:
                batch[mask_argument] = made["masks"][name]
        return batch

    def seen(self, row: Mapping[str, Any], processor: PerceiverIOProcessor) -> dict[str, Seen]:
        """Returns what a model sees of a row."""
        found = {}
        for name, modality in self.modalities.items():
            if row.get(name) is not None:
                value = modality.content.decode(row[name])
                sample = processor.processors[name].prepare(value)
                found[name] = modality.seen(value, sample, processor.processors[name])
        return found

    def read(self, file: str) -> dict[str, Any]:
        """Opens a file as a row; of several inputs, those of a sample: ``image=7.png,audio=7.wav``.

        Args:
            file: The file, or the files with the names of their inputs.

        Raises:
            ValueError: A file cannot be read, or which input it is is not said.
        """
        names = list(self.modalities)
        if len(names) == 1:
            return {names[0]: self.modalities[names[0]].content.read(file)}
        found = re.split(rf"(?:^|,)({'|'.join(names)})=", file)
        parts = dict(zip(found[1::2], found[2::2], strict=True))
        if found[0] or not parts or len(parts) < len(found) // 2:
            raise ValueError(
                f"{file!r:.200} does not say which file is which input, expected for example "
                f"{','.join(f'{name}=FILE' for name in names[:2])}, each input once at most. Known: {', '.join(names)}."
            )
        return {name: self.modalities[name].content.read(path) for name, path in parts.items()}

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model, whichever kind it is.

        Raises:
            ValueError: It is damaged, or of other inputs.
            OSError: There is none.
        """
        loaded = PerceiverIOProcessor.from_pretrained(source)
        if not isinstance(loaded, PerceiverIOProcessor):
            names = list(self.modalities)
            if len(names) > 1:  # then the model says which of them it has
                names = list(PerceiverIOConfig.from_pretrained(source).inputs)
            if len(names) != 1 or names[0] not in self.modalities:
                raise ValueError(
                    f"The processor in {source} is a {type(loaded).__name__}, expected one of the inputs {names}."
                )
            loaded = PerceiverIOProcessor({names[0]: self.modalities[names[0]].loaded(loaded)})
        if unknown := sorted(set(loaded.names) - set(self.modalities)):
            raise ValueError(
                f"The processor in {source} has the inputs {unknown}, expected some of {list(self.modalities)}."
            )
        return loaded

    def _values(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        decode: Callable[[Any], Any] = self.modalities[name].content.decode
        for index in range(len(rows)):
            value = rows[index].get(name)
            if value is not None:
                yield decode(value)

    def _sample(
        self,
        row: Mapping[str, Any],
        index: int,
        processor: PerceiverIOProcessor,
        varied: Settings | None,
    ) -> dict[str, Tensor]:
        present = [name for name in self.modalities if row.get(name) is not None]
        if unknown := [name for name in present if name not in processor.names]:
            raise ValueError(
                f"Sample {index} has the inputs {unknown}, which the model does not: it has {processor.names}."
            )
        values = {name: self.modalities[name].content.decode(row[name]) for name in present}
        if varied is None or not values:
            return processor.prepare(values, index)
        return {
            name: self.modalities[name].varied(value, processor.processors[name], varied[name])
            for name, value in values.items()
        }

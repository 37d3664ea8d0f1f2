"""The processor of a model with any named inputs: one processor for each, saved in one file.

Shape legend: B batch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    FeatureExtractionMixin,
    ProcessorMixin,
)
from transformers.utils.hub import cached_file

from perceiver_io.files import writing
from perceiver_io.input_processor import InputProcessor, SavedAlone
from perceiver_io.model_card import upload
from perceiver_io.registry import PROCESSORS
from perceiver_io.settings_files import reading_settings

__all__ = ["PROCESSOR_FILES", "PerceiverIOProcessor", "save_whole"]

PROCESSOR_FILE = "processor_config.json"

# What a folder without one may have instead: processors that `transformers` has a kind for. Two kinds share a file.
_OTHERS: dict[str, Any] = {
    "preprocessor_config.json": AutoFeatureExtractor,
    "video_preprocessor_config.json": AutoVideoProcessor,
    "tokenizer_config.json": AutoTokenizer,
}
PROCESSOR_FILES = (PROCESSOR_FILE, *_OTHERS)
"""The files beside a model that may hold its processor."""


class PerceiverIOProcessor:
    """Makes batches of samples that are given by input name: pads them, masks the padding and what a sample lacks.

    Args:
        processors: One processor for each input, by the input's name.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, processors: Mapping[str, InputProcessor]) -> None:
        if not processors:
            raise ValueError("A processor needs at least one input, got none.")
        self.processors = dict(processors)

    def __call__(self, samples: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> dict[str, Any]:
        """Prepares samples and makes a batch of them.

        Args:
            samples: One mapping of values by input name for each sample, or a single one. What a sample lacks is left
                out, or None.

        Returns:
            `inputs` and `masks` by name, as the model takes them. What no sample has is in neither.

        Raises:
            ValueError: There are no samples, one has no input at all or one that is not known, or a value is bad.
        """
        rows = [samples] if isinstance(samples, Mapping) else list(samples)
        return self.collate([self.prepare(row, index) for index, row in enumerate(rows)])

    def prepare(self, sample: Mapping[str, Any], index: int = 0) -> dict[str, Tensor]:
        """Prepares the inputs that one sample has.

        Args:
            sample: Values by input name.
            index: Which sample it is, for messages.

        Raises:
            ValueError: It has no input at all, or one that is not known, or a value is bad.
        """
        if unknown := sorted(set(sample) - set(self.processors)):
            raise ValueError(f"Sample {index} has the inputs {unknown}, expected some of {self.names}.")
        present = {name: value for name, value in sample.items() if value is not None}
        if not present:
            raise ValueError(
                f"Sample {index} has none of the inputs {self.names}. Give it one, or leave it out."
            )
        return {name: self.processors[name].prepare(value) for name, value in present.items()}

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """Makes a batch of what `prepare` returned.

        Args:
            samples: The samples.

        Returns:
            As when called.

        Raises:
            ValueError: There are none.
        """
        if not samples:
            raise ValueError("There are no samples, expected one or more.")
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, processor in self.processors.items():
            column = [sample.get(name) for sample in samples]
            if all(one is None for one in column):
                continue
            inputs[name], mask = processor.collate(column)
            if mask is not None:
                masks[name] = mask
        return {"inputs": inputs, "masks": masks}

    @property
    def names(self) -> list[str]:
        """The names of the inputs."""
        return list(self.processors)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, as JSON values."""
        inputs = {
            name: PROCESSORS.tagged(PROCESSORS.name_of(type(one)), one.to_dict())
            for name, one in self.processors.items()
        }
        return {"processor_class": type(self).__name__, "inputs": inputs}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PerceiverIOProcessor:
        """Makes a processor of its settings.

        Raises:
            ValueError: They are not those of such a processor, a type is not known, or a setting is bad.
        """
        inputs = settings.get("inputs")
        if not isinstance(inputs, Mapping):
            raise ValueError(
                f"The settings of a processor ({PROCESSOR_FILE}) must have `inputs` by name, each with its `type`: "
                f"got {dict(settings)!r:.200}."
            )
        processors = {}
        for name, one in inputs.items():
            processor, fields = PROCESSORS.untagged(one, where=f"{PROCESSOR_FILE}: inputs[{name!a:.80}]")
            processors[name] = processor.from_dict(fields)
        return cls(processors)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes processor_config.json into a folder, or what `transformers` calls the file of the one processor.

        A processor of one input that `transformers` has a kind for is saved as that kind, so that pipelines find it.

        Args:
            save_directory: The folder; made if need be.
            **kwargs: What `transformers` passes besides; not used.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        first, *others = self.processors.values()
        if not others and isinstance(first, SavedAlone):
            first.save_pretrained(folder)
            return
        _write(self.to_dict(), folder)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads the processor to a model's repository of the Hugging Face hub.

        Args:
            repo_id: The repository, such as "me/flowers"; made if need be.
            **kwargs: `private`, `token`, and what `huggingface_hub.HfApi.upload_folder` takes.

        Returns:
            Where the commit is found.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload(folder, repo_id, **{"commit_message": "Upload processor", **kwargs})

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Loads the processor beside a model.

        Args:
            source: A folder, or a hub id.
            **kwargs: As `transformers.AutoProcessor.from_pretrained`.

        Returns:
            The processor. Where there is no processor_config.json but the file of an image processor, a feature
            extractor or a tokenizer, as with tasks of one input, it is that; and where processor_config.json is that of
            a processor of all inputs at once (`save_whole`), it is that one.

        Raises:
            ValueError: The file is damaged, or none of its kind.
            OSError: There is none.
        """
        with reading_settings(source, *PROCESSOR_FILES):
            return cls._from_pretrained(source, kwargs)

    @classmethod
    def _from_pretrained(cls, source: str | os.PathLike[str], kwargs: dict[str, Any]) -> Any:
        kwargs.pop("_from_auto", None)
        quiet = {
            "_raise_exceptions_for_gated_repo": False,
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        if cached_file(source, PROCESSOR_FILE, **_hub_options(kwargs), **quiet) is not None:
            settings = ProcessorMixin.get_processor_dict(str(source), **kwargs)[0]
            if "inputs" not in settings and isinstance(settings.get("type"), str):
                whole, fields = PROCESSORS.untagged(settings, where=PROCESSOR_FILE)
                fields.pop("processor_class", None)
                return whole.from_dict(fields)
            return cls.from_dict(settings)
        for file, auto_class in _OTHERS.items():
            found = cached_file(source, file, **_hub_options(kwargs), **quiet)
            if found is not None:
                is_image = auto_class is AutoFeatureExtractor and _is_image_processor(found)
                return (AutoImageProcessor if is_image else auto_class).from_pretrained(source, **kwargs)
        raise OSError(f"There is no processor in {source}: it has no {PROCESSOR_FILE}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerceiverIOProcessor) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it may be changed


def save_whole(processor: InputProcessor | Any, save_directory: str | os.PathLike[str]) -> None:
    """Writes processor_config.json of one processor for all inputs of a model, such as frames and sound of a file.

    Args:
        processor: A registered processor; `AutoProcessor` gives it back.
        save_directory: The folder; made if need be.
    """
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    tagged = PROCESSORS.tagged(PROCESSORS.name_of(type(processor)), processor.to_dict())
    _write({"processor_class": PerceiverIOProcessor.__name__, **tagged}, folder)


def _write(settings: Mapping[str, Any], folder: Path) -> None:
    with writing(folder / PROCESSOR_FILE) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    known = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
    return {name: options[name] for name in known if name in options}


def _is_image_processor(file: str) -> bool:
    """Whether a preprocessor_config.json is not that of a feature extractor."""
    return "feature_extractor_type" not in FeatureExtractionMixin.get_feature_extractor_dict(file)[0]

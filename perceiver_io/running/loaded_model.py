"""A saved model with its processor, ready to be used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from perceiver_io.files import is_path
from perceiver_io.loading import from_pretrained
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.running.run_folder import RunFolder

__all__ = ["LoadedModel", "check_source", "load_model"]

ModelT = TypeVar("ModelT", bound=PerceiverIOPreTrainedModel)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class LoadedModel(Generic[ModelT]):
    """A model with what belongs to it.

    Attributes:
        model: The model, on its device, in evaluation mode.
        processor: What makes its inputs of raw ones: an image processor, a tokenizer; None if it needs none.
        source: Where it came from: a folder or hub id.
    """

    model: ModelT
    processor: Any
    source: str


def load_model(
    source: str | Path,
    model_class: type[ModelT],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> ModelT:
    """Loads a model for use: in evaluation mode, on a device, in a type.

    Args:
        source: A run folder, any folder that `perceiver_io.from_pretrained` reads, or a hub id.
        model_class: What the model must be.
        device: Where to put it; on the accelerator if there is one, if None.
        dtype: Type of its weights; as they were saved if None.

    Raises:
        ValueError: There is no such folder, its training was interrupted, or it holds a model of another kind.
        OSError: It is a hub id, and nothing can be fetched.
    """
    run = RunFolder(source)
    if run.recipe_file.is_file() and not (run.path / "config.json").is_file():
        raise ValueError(
            f"The run {run} has no model yet: its training was interrupted. Go on with --resume."
        )
    check_source(source, has_config=True)
    with no_progress_bars():
        model = from_pretrained(source, **({} if dtype is None else {"dtype": dtype}))
    if not isinstance(model, model_class):
        raise ValueError(
            f"The model in {source} is a {type(model).__name__}, expected a {model_class.__name__}: it belongs to "
            "another task."
        )
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    model.eval()
    torch.nn.Module.to(model, device)
    return model


def check_source(source: str | Path, *, has_config: bool = False) -> None:
    """Refuses what can be neither the folder of a model nor a hub id.

    Args:
        source: The folder or hub id.
        has_config: Whether a folder must have a config.json.

    Raises:
        ValueError: It is a file, or a folder that does not exist or lacks a config.json.
    """
    path = Path(source)
    if path.is_file():
        raise ValueError(
            f"{source} is a file, expected the folder of a model. A parameter file of the original release becomes "
            "one with: perceiver-io convert"
        )
    if not path.is_dir() and (is_path(source) or not _HUB_ID.fullmatch(str(source))):
        raise ValueError(f"There is no folder {source}.")
    if has_config and path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"There is no model in {source}: it has no config.json.")

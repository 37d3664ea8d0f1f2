"""What `perceiver-io info` tells: of this installation, and of a saved model."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
import transformers

import perceiver_io
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.registry import ADAPTERS, DECODERS, TASKS
from perceiver_io.running import RunFolder

__all__ = ["installation", "saved_model"]


def installation() -> dict[str, Any]:
    """Returns versions, devices, and what is registered or announced."""
    accelerators = [f"{torch.accelerator.current_accelerator()}"] * (
        torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    )
    return {
        "perceiver_io": perceiver_io.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "devices": ["cpu", *(f"{name}:{index}" for index, name in enumerate(accelerators))],
        "adapters": ADAPTERS.names(),
        "decoders": DECODERS.names(),
        "tasks": TASKS.names(),
    }


def saved_model(folder: str) -> dict[str, Any]:
    """Returns what a saved model is made of, and the results of its run.

    Raises:
        ValueError: There is no such folder, or no model in it.
        OSError: The model cannot be read.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"There is no model in {folder}: it has no config.json.")
    with no_progress_bars():
        model = perceiver_io.from_pretrained(folder)
    config = model.config
    content: dict[str, Any] = {
        "model": type(model).__name__,
        "parameters": model.num_parameters(),
        **{f"input {name}": part.to_dict() for name, part in config.inputs.items()},
        "encoder": config.encoder.to_dict(),
        **{f"output {name}": part.to_dict() for name, part in config.outputs.items()},
    }
    if len(config.inputs) > 1:
        content["packing"] = config.packing.to_dict()
    if config.shared_attention is not None:
        content["shared attention"] = config.shared_attention.to_dict()
    run = RunFolder(folder)
    if run.is_complete:
        scalars = {name: value for name, value in run.metrics().items() if isinstance(value, (int, float))}
        content["results"] = scalars
    return content

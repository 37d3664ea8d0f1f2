"""Folders of published models: converted from one layout to another, or made with fresh weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.config_json import read_json_object
from perceiver_io.files import check_not_inside, make_folder, remove_empty, writing_into
from perceiver_io.loading import from_pretrained
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.published import from_deepmind, layout_of, published_config, save_transformers
from perceiver_io.published.huggingface import MODEL_TYPE
from perceiver_io.running.find_task import task_of_class
from perceiver_io.running.loaded_model import check_source
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.task import Layout

__all__ = ["convert", "init"]


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    layout: Layout = "perceiver-io",
    model: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model in another layout, with its image processor or tokenizer.

    Args:
        source: A folder or hub id that `perceiver_io.from_pretrained` reads, or a parameter file of the original
            release.
        folder: The folder to write, whole or not at all.
        layout: "perceiver-io" or "transformers".
        model: Name of a published model, or a config.json of this package, that the weights are of. Parameter files
            need it; elsewhere it takes the place of the source's own configuration.
        overwrite: Whether to replace a model that is in the folder.

    Returns:
        What was written, by `folder`, `layout`, `model` (the class), `parameters` (their number).

    Raises:
        ValueError: The source is no model or does not fit the configuration, the layout cannot hold the model, or
            the folder is not empty.
        OSError: The source cannot be read, or the folder not be written.
    """
    _check_free(folder, overwrite=overwrite, inputs=[source, *_files(model)])
    config = None if model is None else _config(model)
    with no_progress_bars():
        if Path(source).is_file():
            if config is None:
                raise ValueError(
                    f"The parameter file {source} does not say which model it is of. Say it with --model, such as "
                    "--model language-perceiver."
                )
            loaded = from_deepmind(source, config)
            return _write(loaded, folder, layout=layout)
        check_source(source, has_config=True)
        loaded = from_pretrained(source, **({} if config is None else {"config": config}))
        return _write(loaded, folder, layout=layout, source=source)


def init(
    model: str, folder: str | Path, *, seed: int = 0, layout: Layout = "perceiver-io", overwrite: bool = False
) -> dict[str, Any]:
    """Writes a model with fresh random weights, with its image processor or tokenizer.

    Args:
        model: Name of a published model, or a config.json of this package.
        folder: The folder to write, whole or not at all.
        seed: Of the weights.
        layout: "perceiver-io" or "transformers".
        overwrite: Whether to replace a model that is in the folder.

    Returns:
        As `convert`.

    Raises:
        ValueError: There is no such model, or the folder is not empty.
        OSError: The folder cannot be written.
    """
    _check_free(folder, overwrite=overwrite, inputs=_files(model))
    config = _config(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = layout_of(config).model_class(config)
    return _write(fresh, folder, layout=layout)


def _write(
    model: PerceiverIOPreTrainedModel, folder: str | Path, *, layout: Layout, source: str | Path | None = None
) -> dict[str, Any]:
    name = type(model).__name__
    with _writing(folder) as path:
        if layout == "transformers":
            save_transformers(model, path)
        else:
            model.save_pretrained(path)
        if (task := task_of_class(name)) is not None:
            task.save_processor(model, path, source=source, layout=layout)
    return {
        "folder": str(folder),
        "layout": layout,
        "model": name,
        "parameters": model.num_parameters(),
    }


@contextmanager
def _writing(folder: str | Path) -> Iterator[Path]:
    """Gives a path to write to, whose files are in the folder at the end of the block."""
    target = RunFolder(folder).path
    made = make_folder(target)
    try:
        with no_progress_bars(), writing_into(target) as path:
            yield path
    except BaseException:
        remove_empty(made)
        raise


def _check_free(folder: str | Path, *, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Refuses a folder that holds something else than a model, which is to be replaced."""
    target = RunFolder(folder)
    if target.path.exists() and not target.path.is_dir():
        raise ValueError(f"The output folder {folder} is a file. Choose another output folder.")
    if not target.path.is_dir() or not any(file.name[0] != "." for file in target.path.iterdir()):
        return
    if target.recipe_file.exists():
        raise ValueError(
            f"The output folder {folder} holds a training run, which is not overwritten. Choose another."
        )
    if not overwrite:
        raise ValueError(
            f"The output folder {folder} exists and is not empty. Choose another one, or pass --overwrite to replace "
            "the model in it."
        )
    if not _holds_model(target.path):
        raise ValueError(
            f"The output folder {folder} is not overwritten: it has no config.json of a Perceiver, so it is not one "
            "that holds a model. Choose another one, or remove it yourself."
        )
    check_not_inside(target, [path for path in inputs if Path(path).exists()])


def _holds_model(folder: Path) -> bool:
    """Whether a folder has the configuration of a model that we or `transformers` wrote; its files are all replaced."""
    try:
        content = read_json_object(folder / "config.json")
    except (OSError, ValueError):
        return False
    return content.get("model_type") in (
        PerceiverIOConfig.model_type,
        MODEL_TYPE,
    )


def _files(model: str | None) -> list[str]:
    """Returns the file that says which model it is, or nothing where its name does."""
    return [model] if model is not None and Path(model).is_file() else []


def _config(model: str) -> PerceiverIOConfig:
    """Returns a published configuration, or the one in a file, with the name of its class."""
    config: PerceiverIOConfig
    if Path(model).is_file():
        try:
            content = read_json_object(model)
        except (OSError, ValueError) as error:
            raise ValueError(f"The configuration {model} cannot be read: {error}.") from error
        config = PerceiverIOConfig.from_dict(content)
    else:
        config = published_config(model)
    config.architectures = [layout_of(config).model_class.__name__]
    return config

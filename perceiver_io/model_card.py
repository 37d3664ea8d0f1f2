"""The README.md of a saved model: what it is, what goes in and comes out, what it learned of, how to load it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, ModelCard, ModelCardData

from perceiver_io.component import ComponentConfig

if TYPE_CHECKING:
    from perceiver_io.pretrained import PerceiverIOPreTrainedModel

__all__ = ["CARD_FILE", "model_card", "upload"]

CARD_FILE = "README.md"
_LIBRARY = "perceiver-io-toolkit"
_MOST_NAMES = 20
_LONGEST_SETTING = 60


def model_card(
    model: PerceiverIOPreTrainedModel,
    *,
    name: str | None = None,
    fields: Mapping[str, Any] | None = None,
    task: str | None = None,
    pipeline_tag: str | None = None,
    dataset: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    has_processor: bool = False,
) -> ModelCard:
    """Describes a model in the format of the Hugging Face hub.

    Args:
        model: The model.
        name: Where it will be found, a folder or a hub id; "path/to/model" if None.
        fields: Fields of `huggingface_hub.ModelCardData`, such as `license`, `language` or `tags`, which go before
            those that are found here. The licence is "unknown" if nobody says one.
        task: Name of the task that it was trained for.
        pipeline_tag: What the hub calls the task; as the model's class says if None.
        dataset: What it was trained on.
        metrics: What was measured, by name; what is no number is left out.
        has_processor: Whether its processor is beside it.

    Raises:
        ValueError: A field is none that such a card can have.
    """
    fields, pipeline_tag = dict(fields or {}), pipeline_tag or model.pipeline_tag
    tags = ["perceiver", "perceiver-io", *([task] if task else []), *fields.pop("tags", [])]
    data = {
        "library_name": _LIBRARY,
        "license": "unknown",
        "pipeline_tag": pipeline_tag,
        "tags": list(dict.fromkeys(tags)),
        **fields,
    }
    numbers = {key: value for key, value in (metrics or {}).items() if type(value) in (int, float)}
    try:
        header = ModelCardData(**data).to_yaml()
    except (TypeError, ValueError) as error:
        raise ValueError(f"The fields {sorted(fields)} do not make a model card: {error}") from error
    parts = [
        f"---\n{header}\n---\n",
        f"# {name.rstrip('/').rsplit('/', 1)[-1] if name else type(model).__name__}\n",
        _summary(model, task),
        _table("Inputs", model.config.inputs, model.config.adapter_class, arguments=True),
        _table("Outputs", model.config.outputs, model.config.decoder_class),
        _classes(model.config.id2label),
        _training(dataset, numbers),
        _use(name or "path/to/model", pipeline_tag, has_processor=has_processor),
        "## Licence\n\nSee the field `license` above; set it to that of the weights and of the data.\n",
    ]
    return ModelCard("\n".join(part for part in parts if part))


def upload(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    keep_card: bool = True,
    private: bool | None = None,
    token: bool | str | None = None,
    **commit: Any,
) -> str:
    """Uploads a folder to a model repository of the Hugging Face hub.

    Args:
        folder: The folder.
        repo_id: The repository; made if need be.
        keep_card: Whether a card that the repository has stays as it is.
        private: Whether a new repository is private.
        token: Whose repository it is; that of the login if None.
        **commit: As `huggingface_hub.HfApi.upload_folder`.

    Returns:
        Where the commit is found.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    has_card = keep_card and api.file_exists(repo_id, CARD_FILE, revision=commit.get("revision"))
    commit.setdefault("commit_message", "Upload model")
    return str(
        api.upload_folder(
            repo_id=repo_id,
            folder_path=os.fspath(folder),
            ignore_patterns=[CARD_FILE] if has_card else None,
            **commit,
        )
    )


def _summary(model: PerceiverIOPreTrainedModel, task: str | None) -> str:
    encoder = model.config.encoder
    purpose = f" for {task.replace('-', ' ')}" if task else ""
    return (
        f"A `{type(model).__name__}`{purpose}: a Perceiver IO of {model.num_parameters():,} parameters, whose "
        f"{encoder.num_latents} latents of {encoder.latent_channels} channels read all inputs.\n"
    )


def _table(
    title: str, parts: Mapping[str, ComponentConfig], class_of: Any, *, arguments: bool = False
) -> str:
    rows = [
        f"## {title}\n",
        "| name | read by | settings |" if arguments else "| name | made by | settings |",
    ]
    rows.append("|---|---|---|")
    for name, part in parts.items():
        called = class_of(name).argument_names if arguments else None
        label = f"`{name}`" + (f" (`{called[0]}`)" if called else "")
        rows.append(f"| {label} | {class_of(name).__name__} | {_settings(part)} |")
    return "\n".join(rows) + "\n"


def _settings(part: ComponentConfig) -> str:
    """What is not as it comes, in short."""
    told = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            told.append(f"`{field.name}={_code(value)}`")
    return ", ".join(told) or "as they come"


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(" " if character in "`|\r\n" else character for character in text)
    return text if len(text) <= _LONGEST_SETTING else f"{text[: _LONGEST_SETTING - 1]}…"


def _classes(id2label: Mapping[Any, str] | None) -> str:
    if not id2label:
        return ""
    names = [f"`{_code(str(name))}`" for name in list(id2label.values())[:_MOST_NAMES]]
    rest = f" and {len(id2label) - _MOST_NAMES:,} more" if len(id2label) > _MOST_NAMES else ""
    return f"The {len(id2label):,} classes: {', '.join(names)}{rest}.\n"


def _training(dataset: str | None, numbers: Mapping[str, float]) -> str:
    if dataset is None and not numbers:
        return ""
    lines = ["## Training and evaluation\n"]
    if dataset is not None:
        lines.append(f"Data: `{_code(dataset)}`. `recipe.yaml` has all settings.\n")
    if numbers:
        lines += ["| measured | value |", "|---|---|"]
        lines += [
            f"| {_code(key)} | {value:,} |" if isinstance(value, int) else f"| {_code(key)} | {value:.5g} |"
            for key, value in numbers.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _use(where: str, pipeline_tag: str | None, *, has_processor: bool) -> str:
    lines = ["## Load it\n", "```python", "import perceiver_io as pio", ""]
    place = json.dumps(where)
    lines.append(f"model = pio.from_pretrained({place}).eval()")
    if has_processor:
        lines.append(f"processor = pio.PerceiverIOProcessor.from_pretrained({place})")
    lines += ["```\n", f"`pip install {_LIBRARY}` brings the package `perceiver_io`."]
    if has_processor and pipeline_tag in _PIPELINES:
        pipeline = f'pipeline("{pipeline_tag}", model={place})'
        lines += ["\nOr as a pipeline of `transformers`:\n", "```python", "import perceiver_io"]
        lines += ["from transformers import pipeline", "", f"model = {pipeline}", "```"]
    return "\n".join(lines) + "\n"


# Those that know their models by an auto class, and find all that they need beside the weights.
_PIPELINES = (
    "audio-classification",
    "depth-estimation",
    "image-classification",
    "image-segmentation",
    "text-classification",
    "text-generation",
    "video-classification",
)

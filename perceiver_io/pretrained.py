"""What all model classes of this package share: initial values, strict loading, embeddings of tokens."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from perceiver_io.config import LABEL_OPTIONS, PerceiverIOConfig
from perceiver_io.config_json import read_json_object
from perceiver_io.files import set_mode, writing
from perceiver_io.layers import LearnedArray, TiedOutput, reset_parameters
from perceiver_io.model_card import CARD_FILE, model_card, upload
from perceiver_io.printable import printable, reason_of
from perceiver_io.quantized_weights import QUANTIZATION, joined_shapes
from perceiver_io.weight_files import (
    HUB_OPTIONS,
    PICKLE,
    SAFETENSORS,
    check_finite,
    check_fit,
    description,
    find_weights,
    tensor_shapes,
)

__all__ = ["PerceiverIOPreTrainedModel", "building", "resolved_config"]

# What torch says of sizes that no tensor can have.
_OF_SIZES = re.compile(
    r"overflow|allocat|memory|negative dimension|invalid combination of arguments|too large", re.I
)

ModelT = TypeVar("ModelT", bound="PerceiverIOPreTrainedModel")

# What says how a model is uploaded.
_OF_PUSH = ("commit_message", "commit_description", "private", "token", "revision", "create_pr")
# What is about the weights alone, though a configuration would take it for a field of its own.
_OF_WEIGHTS = ("dtype", "torch_dtype")


class PerceiverIOPreTrainedModel(PreTrainedModel):
    """What all models of this package share: initialisation, saving and strict loading."""

    config_class = PerceiverIOConfig
    base_model_prefix = "perceiver"
    # Inputs are given by name: there is no one tensor whose size the Trainer of transformers could count.
    main_input_name = ""
    pipeline_tag: ClassVar[str | None] = None  # what the Hugging Face hub calls the task
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["CrossAttention", "SelfAttention"]  # noqa: RUF012  # as the base class declares it

    def _init_weights(self, module: nn.Module) -> None:
        # Every leaf knows its own initial values; there is no rule by layer type to keep in step with them.
        reset_parameters(module)

    def get_input_embeddings(self) -> LearnedArray | None:  # type: ignore[override]  # there may be none
        """Returns the table of tokens' vectors of the one input that has one; None if none has, or several have."""
        tables = self._token_tables()
        return tables[0] if len(tables) == 1 else None

    def _token_tables(self) -> list[LearnedArray]:
        adapters: Mapping[str, Any] = self.base_model.adapters  # type: ignore[assignment]
        tables = [adapter.tied_embedding() for adapter in adapters.values()]
        return [table for table in tables if table is not None]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Gives the embeddings of tokens the weights of a module; outputs that are tied to them follow.

        Args:
            value: Anything with a `weight` of the same shape, such as a `torch.nn.Embedding`.

        Raises:
            ValueError: The shape is another.
            NotImplementedError: Not one input has such a table, but none or several.
        """
        table = self.get_input_embeddings()
        if table is None:
            raise NotImplementedError(
                f"Of the inputs {list(self.config.inputs)}, {len(self._token_tables())} have embeddings of tokens, "
                "expected one."
            )
        weight = getattr(value, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, nn.Parameter) else None
        if not isinstance(weight, nn.Parameter) or shape != tuple(table.weight.shape):
            raise ValueError(
                f"The embeddings must have a weight {tuple(table.weight.shape)}, got {shape}. Another number of tokens "
                "is set by resize_token_embeddings."
            )
        table.weight = weight

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        card: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model as `transformers.PreTrainedModel.save_pretrained` does, with the same arguments.

        Args:
            save_directory: The folder; made if need be.
            *args: As `transformers.PreTrainedModel.save_pretrained`.
            card: Fields of the model card, such as `{"license": "apache-2.0"}`; see `perceiver_io.model_card`. A card
                (README.md) is written where the folder has none; with fields, an older one is replaced.
            **kwargs: As `transformers.PreTrainedModel.save_pretrained`. With `push_to_hub=True` also those of
                `push_to_hub`; the repository is called as the folder unless there is a `repo_id`.

        Raises:
            ValueError: An output is tied to an embedding that is no part of the model any more: what would be loaded
                again is another model. Or a layer holds its weights as no tensors, as those of `quantize_dynamic` do.
                Or a field of the card is none.
        """
        for name, value in self.state_dict().items():
            if not isinstance(value, torch.Tensor):
                raise ValueError(
                    f"{name!r} is a {type(value).__name__}, not a tensor: packed integers are not saved. Save the "
                    "model before it is quantised, or quantise it with torchao."
                )
        parts = set(self.modules())
        untied = [
            name
            for name, module in self.named_modules()
            if isinstance(module, TiedOutput) and module.embedding not in parts
        ]
        if untied:
            raise ValueError(
                f"The outputs {untied} are tied to embeddings that were replaced in their adapters, and would be tied "
                "to the new ones after loading. Build the model with an output that is not tied, or train the "
                "embeddings themselves: set requires_grad instead of replacing the module."
            )
        push, folder = kwargs.pop("push_to_hub", False), Path(save_directory)
        of_push = (
            {name: kwargs.pop(name) for name in (*_OF_PUSH, "repo_id") if name in kwargs} if push else {}
        )
        super().save_pretrained(folder, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            for weights in folder.glob("model*.safetensors"):
                if not weights.is_symlink():
                    set_mode(weights)
            if card is not None or not (folder / CARD_FILE).exists():
                self._write_card(folder, name=of_push.get("repo_id"), fields=card)
        if push:
            upload(folder, of_push.pop("repo_id", folder.absolute().name), **of_push)

    def push_to_hub(  # type: ignore[override]  # transformers would replace the card by one that says nothing
        self, repo_id: str, *, card: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> str:
        """Uploads the model and its card to the Hugging Face hub.

        A card that is there already stays, unless `card` has fields. A run folder, with its own card, recipe and
        pictures, is uploaded by `huggingface_hub.upload_folder`.

        Args:
            repo_id: The repository, such as "me/flowers"; made if need be.
            card: As `save_pretrained`.
            **kwargs: As `transformers.PreTrainedModel.push_to_hub`.

        Returns:
            Where the commit is found.

        Raises:
            ValueError: As `save_pretrained`.
        """
        tags = kwargs.pop("tags", None)
        if tags is not None:
            card = {**(card or {}), "tags": [*(card or {}).get("tags", []), *tags]}
        of_push = {name: kwargs.pop(name) for name in _OF_PUSH if name in kwargs}
        with tempfile.TemporaryDirectory() as folder:
            self._write_card(folder, name=repo_id, fields=card)
            self.save_pretrained(folder, **kwargs)  # which leaves a card that is there
            return upload(folder, repo_id, keep_card=card is None, **of_push)

    def _write_card(
        self, folder: str | os.PathLike[str], *, name: str | None, fields: Mapping[str, Any] | None
    ) -> None:
        with writing(Path(folder) / CARD_FILE) as partial:
            partial.write_text(str(model_card(self, name=name, fields=fields)), encoding="utf-8")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # all that the base class names goes through kwargs
        cls: type[ModelT], pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ModelT:
        """Loads a model from a folder (or hub id) that holds config.json and model.safetensors, strictly.

        Args:
            pretrained_model_name_or_path: The folder or id.
            *args: As `transformers.PreTrainedModel.from_pretrained`.
            **kwargs: The same; besides, `adapters` and `decoders` give classes by name that are not registered, and
                `num_labels`, `id2label` or `label2id` other classes, as `PerceiverIOConfig.with_labels` takes them.
                With ``ignore_mismatched_sizes=True`` tensors of other shapes keep their fresh initial values.

        Raises:
            ValueError: A tensor is missing, not expected, of a wrong shape, or holds NaN or infinities; a file
                cannot be read; the configuration is not one of ours.
            OSError: There is no such folder or id, or a file is missing in it, or config.json is not valid JSON.
        """
        source = pretrained_model_name_or_path
        _check_attention(kwargs.get("attn_implementation"))
        if source is not None:
            hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            _check_no_adapter(source, hub_options)
            if cls.can_generate():
                _check_generation(source, hub_options)
        config, kwargs = resolved_config(source, kwargs)
        kwargs.setdefault("use_safetensors", True)
        if (state_dict := kwargs.get("state_dict")) is not None:
            found = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        else:
            found = _shapes_of_weights(source, kwargs, quantized=hasattr(config, QUANTIZATION))
        check_fit(
            found,
            cls.tensor_shapes(config),
            source=source,
            model_name=cls.__name__,
            may_mismatch=kwargs.get("ignore_mismatched_sizes", False),
            prefix=f"{cls.base_model_prefix}.",
        )
        with _putting_together(source) if hasattr(config, QUANTIZATION) else nullcontext():
            loaded: Any = super().from_pretrained(source, *args, config=config, **kwargs)
            model: PreTrainedModel = loaded[0] if isinstance(loaded, tuple) else loaded
            check_finite(model.state_dict(), source=source, model_name=cls.__name__)
        _align(model)
        return loaded

    @classmethod
    def tensor_shapes(cls, config: PerceiverIOConfig) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor of a model, without taking the memory for it.

        Args:
            config: The model's configuration.

        Raises:
            ValueError: It is none that this class can have, or one tensor is larger than any memory.
        """
        with torch.device("meta"):  # names and shapes only
            model = cls(copy.deepcopy(config))
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@contextmanager
def building(model_name: str) -> Iterator[None]:
    """For the block that builds a model's parts: what no memory can hold becomes an error that says so.

    Args:
        model_name: The model's class, for the message.

    Raises:
        ValueError: A part is larger than any tensor can be, or than memory has room for.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # of an accelerator, which the caller may want to free
        raise
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        if isinstance(error, (RuntimeError, TypeError)) and not _OF_SIZES.search(str(error)):
            raise  # a part's own, or a device's
        reason = " ".join(str(error).split("\n")[0].split())
        raise ValueError(
            f"A {model_name} of these settings cannot be built ({printable(reason):.200}). Are all sizes right?"
        ) from error


@contextmanager
def _putting_together(source: str | os.PathLike[str]) -> Iterator[None]:
    """For the block that has torchao make tensors of what a file says of them, in which anything can go wrong."""
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"The quantised weights in {source} cannot be put together: what the files say of them does not fit them "
            f"({reason_of(error):.300})."
        ) from error


def _check_no_adapter(source: str | os.PathLike[str], hub_options: Mapping[str, Any]) -> None:
    """Refuses what `transformers` would add to the model by itself, whatever it does."""
    if find_adapter_config_file(os.fspath(source), **hub_options) is not None:
        raise ValueError(
            f"{source} also holds an adapter of peft ({ADAPTER_CONFIG_NAME}), which is not loaded with a model. Load "
            "the model from a folder without it, then the adapter with peft.PeftModel.from_pretrained."
        )


def _check_generation(source: str | os.PathLike[str], hub_options: Mapping[str, Any]) -> None:
    """Checks what `transformers` would read beside a model that continues sequences, and takes as it is."""
    file = cached_file(
        source, GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **hub_options
    )
    if file is None:
        return
    values = read_json_object(file)
    try:
        GenerationConfig.from_dict(values)
    except Exception as error:  # of whatever type
        raise ValueError(
            f"The {GENERATION_CONFIG_NAME} of {source} cannot be used: {reason_of(error):.300}"
        ) from error


def _check_attention(implementation: Any) -> None:
    if implementation not in (None, "sdpa", "eager"):
        raise ValueError(
            f"attn_implementation must be 'sdpa', PyTorch's fused attention, which picks the fastest kernel there is "
            f"(flash attention among them), or 'eager', its plain formula; got {implementation!r:.80}."
        )


def _align(model: nn.Module) -> None:
    """Moves what was read from a file to where PyTorch would have put it.

    Matrix products pick their kernels by the alignment in memory, and kernels differ in the last bit: without this, a
    model that was saved and loaded is not bit-equal.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()


def resolved_config(
    source: str | os.PathLike[str], kwargs: dict[str, Any]
) -> tuple[PerceiverIOConfig, dict[str, Any]]:
    """Returns the configuration that a model is loaded with, and the arguments that remain for the weights.

    Args:
        source: As `PerceiverIOPreTrainedModel.from_pretrained`.
        kwargs: The same.

    Raises:
        ValueError: The configuration is none of ours.
        OSError: There is none.
    """
    config = kwargs.get("config")
    if isinstance(config, PerceiverIOConfig):
        labels = {name: kwargs[name] for name in LABEL_OPTIONS if kwargs.get(name) is not None}
        used = ("config", "adapters", "decoders", *LABEL_OPTIONS)
        rest = {name: value for name, value in kwargs.items() if name not in used}
        return config.with_labels(**labels) if labels else config, rest
    options = {name: value for name, value in kwargs.items() if name not in ("config", *_OF_WEIGHTS)}
    where = source if config is None else config
    config, rest = PerceiverIOConfig.from_pretrained(where, return_unused_kwargs=True, **options)
    kept = {name: kwargs[name] for name in (*_OF_WEIGHTS, *HUB_OPTIONS) if name in kwargs}
    return config, {**rest, **kept}


def _shapes_of_weights(
    source: str | os.PathLike[str], kwargs: Mapping[str, Any], *, quantized: bool
) -> dict[str, tuple[int, ...]]:
    names = {True: (SAFETENSORS,), False: (PICKLE,), None: (SAFETENSORS, PICKLE)}[kwargs["use_safetensors"]]
    hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
    shapes: dict[str, tuple[int, ...]] = {}
    paths = find_weights(source, names, hub_options, variant=kwargs.get("variant"))
    for path in paths:
        shapes |= tensor_shapes(path)
    return joined_shapes(shapes, map(description, paths)) if quantized else shapes

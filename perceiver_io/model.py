"""The model: adapters, encoder and decoders, put together from a configuration.

Shape legend: B batch, M elements, C channels, N latents, D latent channels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from perceiver_io.adapter import InputAdapter
from perceiver_io.attention_maps import AttentionMap, attention_maps
from perceiver_io.byte_array import ByteArray, ByteArrayPacker
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import Encoded
from perceiver_io.encoder import Encoder

__all__ = ["PerceiverIO", "PerceiverIOOutput", "PerceiverIOPreTrainedModel"]

ModelT = TypeVar("ModelT", bound="PerceiverIOPreTrainedModel")


@dataclass(frozen=True, kw_only=True)
class PerceiverIOOutput:
    """What a forward pass gives: ``out["label"]`` is the output of that name.

    Attributes:
        outputs: Each output by its name.
        latents: (B, N, D).
    """

    outputs: Mapping[str, Tensor]
    latents: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name]


class PerceiverIOPreTrainedModel(PreTrainedModel):
    """What all models of this package share: initialisation, saving and strict loading."""

    config_class = PerceiverIOConfig
    base_model_prefix = "perceiver"
    main_input_name = "inputs"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        # Every leaf knows its own initial values; there is no rule by layer type to keep in step with them.
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # all that the base class names goes through kwargs
        cls: type[ModelT], pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ModelT:
        """Loads a model from a folder (or hub id) that holds config.json and model.safetensors, strictly.

        Args:
            pretrained_model_name_or_path: The folder or id.
            *args: As `transformers.PreTrainedModel.from_pretrained`.
            **kwargs: The same; besides, `adapters` and `decoders` give classes by name that are not registered.
                With ``ignore_mismatched_sizes=True`` tensors of other shapes keep their fresh initial values.

        Raises:
            ValueError: A tensor is missing, not expected, or of a wrong shape; a file cannot be read; the
                configuration is not one of ours.
            OSError: There is no such folder or id, or a file is missing in it, or config.json is not valid JSON.
        """
        source = pretrained_model_name_or_path
        components = {name: kwargs.pop(name) for name in ("adapters", "decoders") if name in kwargs}
        if not isinstance(kwargs.get("config"), PerceiverIOConfig) and components:
            kwargs["config"] = cls.config_class.from_pretrained(source, **components)
        wants_info = kwargs.pop("output_loading_info", False)
        keeps_mismatched = kwargs.setdefault("ignore_mismatched_sizes", False)
        kwargs["ignore_mismatched_sizes"] = True  # so that all that is wrong is reported at once, below
        kwargs.setdefault("use_safetensors", True)
        loaded: Any
        try:
            with _load_report(shown=keeps_mismatched):
                loaded = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"The weights in {source} cannot be read ({error}): the file is truncated or is no safetensors file. "
                "Fetch or save it again."
            ) from error
        model, info = loaded
        problems = _loading_problems(info, report_mismatched=not keeps_mismatched)
        if problems:
            raise ValueError(
                f"The weights in {source} do not fit {cls.__name__} as its config.json describes it:\n  "
                + "\n  ".join(problems)
            )
        return loaded if wants_info else model


class PerceiverIO(PerceiverIOPreTrainedModel):
    """A Perceiver IO: any inputs, one encoder, any outputs (Perceiver IO, section 3).

    Args:
        config: The inputs, the encoder and the outputs.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        adapters: dict[str, InputAdapter] = {
            name: config.adapter_class(name)(part) for name, part in config.inputs.items()
        }
        self.adapters = nn.ModuleDict(adapters)
        self.packer = ByteArrayPacker({name: adapter.num_channels for name, adapter in adapters.items()})
        self.encoder = Encoder(
            config.encoder,
            input_channels=self.packer.num_channels,
            content_channels=[adapter.num_content_channels for adapter in adapters.values()],
        )
        self.decoders = nn.ModuleDict(
            {
                name: config.decoder_class(name)(part, latent_channels=config.encoder.latent_channels)
                for name, part in config.outputs.items()
            }
        )
        self.post_init()

    def forward(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> PerceiverIOOutput:
        """Encodes a batch and decodes every output.

        Args:
            inputs: Raw inputs by name; an input that the batch lacks may be left out.
            masks: Masks by input name, True = real, in the shapes that the adapters document.

        Returns:
            The outputs by name, and the latents.

        Raises:
            ValueError: An input or mask is unknown or does not fit its adapter, or a sample is wholly masked.
        """
        encoded = self.encode(inputs, masks)
        return PerceiverIOOutput(outputs=self.decode(encoded), latents=encoded.latents)

    def encode(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> Encoded:
        """Encodes a batch once, for any number of calls of `decode`.

        Args:
            inputs: As `forward`.
            masks: As `forward`.

        Returns:
            The latents and the byte arrays.
        """
        byte_arrays = self._adapt(inputs, masks)
        packed, _ = self.packer(byte_arrays)
        _check_some_real(packed)
        return Encoded(latents=self.encoder(packed), byte_arrays=byte_arrays)

    def decode(self, encoded: Encoded, outputs: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Decodes outputs of an encoded batch.

        Args:
            encoded: What `encode` returned.
            outputs: Names of the outputs that are wanted; all if None.

        Returns:
            The outputs by name.

        Raises:
            ValueError: An output is unknown.
        """
        names = list(self.decoders) if outputs is None else list(outputs)
        if unknown := sorted(set(names) - set(self.decoders)):
            raise ValueError(f"The model has no outputs {unknown}; it has {list(self.decoders)}.")
        return {name: self.decoders[name](encoded) for name in names}

    def attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns what each cross-attend of the encoder looks at, over the grid of each input.

        Runs without gradients and without dropout.

        Args:
            inputs: As `forward`.
            masks: As `forward`.
            latents: Indices of the latents whose maps are wanted; all if None. Each map holds B x H x latents x M
                floats, three times over.

        Returns:
            One `AttentionMap` per cross-attend, in order.

        Raises:
            ValueError: As `forward`; or a latent's index is out of range.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                packed, segments = self.packer(self._adapt(inputs, masks))
                _check_some_real(packed)
                return attention_maps(self.encoder, packed, segments, latents=latents)
        finally:
            self.train(training)

    def _adapt(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None
    ) -> dict[str, ByteArray]:
        masks = {} if masks is None else masks
        if unknown := sorted(set(inputs) - set(self.adapters)):
            raise ValueError(f"The model has no inputs {unknown}; it has {list(self.adapters)}.")
        if unknown := sorted(set(masks) - set(inputs)):
            raise ValueError(f"There are masks for {unknown}, but inputs only for {sorted(inputs)}.")
        if not inputs:
            raise ValueError(f"At least one of the inputs {list(self.adapters)} is needed, got none.")
        dtype = self.encoder.latents.weight.dtype
        for name, x in inputs.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"The input {name!r} must be a tensor, got {type(x).__name__}.")
            if x.is_floating_point() and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
                raise ValueError(
                    f"The input {name!r} is {x.dtype}, but the model is {dtype}: convert one to the other with "
                    "`.to(dtype)`, or run the model under torch.autocast."
                )
        sizes = {name: x.shape[0] for name, x in inputs.items() if x.ndim}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"All inputs of a batch must have the same batch size, got {sizes}.")
        return {
            name: adapter(inputs[name], masks.get(name))
            for name, adapter in self.adapters.items()
            if name in inputs
        }


def _check_some_real(byte_array: ByteArray) -> None:
    if byte_array.mask is None or torch.compiler.is_compiling():
        return
    wholly_masked = ~byte_array.mask.any(dim=1)
    if wholly_masked.any():
        raise ValueError(
            f"Every element of the samples {wholly_masked.nonzero().flatten().tolist()} is masked: there is nothing to "
            "attend to. Mask less, or drop these samples from the batch."
        )


@contextmanager
def _load_report(*, shown: bool) -> Iterator[None]:
    """Holds back the table that transformers logs of what does not fit: an error says it here, once."""

    def keep(record: logging.LogRecord) -> bool:
        return shown or "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger(PreTrainedModel.__module__)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _loading_problems(info: Mapping[str, Any], *, report_mismatched: bool) -> list[str]:
    problems = [f"missing tensor: {name}" for name in sorted(info["missing_keys"])]
    problems += [f"unexpected tensor: {name}" for name in sorted(info["unexpected_keys"])]
    if report_mismatched:
        problems += [
            f"wrong shape: {name} is {tuple(found)}, expected {tuple(expected)}"
            for name, found, expected in sorted(info["mismatched_keys"])
        ]
    return problems

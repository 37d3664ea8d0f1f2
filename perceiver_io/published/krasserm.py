"""The layout of krasserm's implementation: config.json with his settings, and pytorch_model.bin.

What all of his models have in common: how a folder is read, his encoder, and the names of its tensors. What only one
kind has lies with that task, which announces a loader in its `PublishedLayout`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from perceiver_io.config import LABEL_OPTIONS, PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.published.layout import renamed
from perceiver_io.vector_decoders import ClassificationDecoder
from perceiver_io.weight_files import HUB_OPTIONS, PICKLE, SAFETENSORS, check_fit, find_weights, read_tensors

__all__ = [
    "ATTENTION_PARTS",
    "CLASSIFIER_NAMES",
    "FEED_FORWARD_PARTS",
    "ROOT",
    "decoder_fields",
    "krasserm_classifier",
    "krasserm_encoder",
    "krasserm_labels",
    "load_krasserm",
    "perceiver_io_loader",
]

ROOT = "backend_model."
"""What the names of all tensors begin with."""
ATTENTION_PARTS = {
    "attention.query": "attention.q_proj",
    "attention.key": "attention.k_proj",
    "attention.value": "attention.v_proj",
    "attention.output": "attention.o_proj",
    "norm": "norm",
    "query_norm": "q_norm",
    "input_norm": "kv_norm",
}
"""Parts of an attention by our name."""
FEED_FORWARD_PARTS = {
    "feed_forward_norm": "1.module.0",
    "feed_forward.hidden": "1.module.1",
    "feed_forward.output": "1.module.3",
}
"""Parts of the feed-forward that follows."""
# His model is a sequence of an encoder, 0, and a decoder, 1.
_MODULES = {
    "encoder.latents.weight": "0.latent_provider._query",
    "encoder.cross_attends.0": "0.cross_attn_1",
    "encoder.cross_attends.1": "0.cross_attn_n",
    "encoder.blocks.0.layers": "0.self_attn_1",
    "encoder.blocks.1.layers": "0.self_attn_n",
}
# What follows from the configuration.
_BUFFERS = r".*(\.position_encoding|\.frq_pos_encoding\.inv_freq)"

CLASSIFIER_NAMES = {
    "decoders.label.query.weight": "1.output_query_provider._query",
    "decoders.label.cross_attend": "1.cross_attn",
    "decoders.label.output": "1.output_adapter.linear",
}
"""What his classifiers of all inputs call the parts of the output "label"."""

Names = Callable[[Iterable[str], PerceiverIOConfig], dict[str, str]]


def load_krasserm(
    source: str | os.PathLike[str],
    model_class: type[PerceiverIOPreTrainedModel],
    *,
    read: Callable[[Mapping[str, Any]], PerceiverIOConfig],
    names: Names,
    config: PerceiverIOConfig | None = None,
    **kwargs: Any,
) -> PerceiverIOPreTrainedModel:
    """Loads a model that his implementation wrote, strictly.

    Args:
        source: A folder or hub id with config.json and the weights; pickles are read with ``weights_only=True``.
        model_class: The task's class.
        read: Returns the configuration of what a config.json describes.
        names: Returns what the tensors of such a model are called there, without `backend_model` before it.
        config: What the model shall compute; as his class does if None.
        **kwargs: As `PerceiverIO.from_pretrained`.

    Raises:
        ValueError: config.json is none of his, a tensor is missing, not expected, or of a wrong shape, or a file cannot
            be read.
        OSError: There is no such folder or id, or a file is missing in it.
    """
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    labels = {name: kwargs.pop(name) for name in LABEL_OPTIONS if name in kwargs}
    if config is None:
        config_json, _ = PerceiverIOConfig.get_config_dict(source, **hub_options)
        if not isinstance(config_json.get("model_config"), Mapping):
            raise ValueError(
                f"{source} must have a config.json with settings under model_config, got "
                f"{config_json.get('model_config')!r:.80}."
            )
        try:
            config = read(config_json)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"The config.json of {source} lacks a setting or has one of a wrong type: {error!r}"
            ) from error
    if any(value is not None for value in labels.values()):
        config = config.with_labels(**labels)
    tensors: dict[str, Tensor] = {}
    for path in find_weights(source, (SAFETENSORS, PICKLE), hub_options):
        tensors |= read_tensors(path)
    tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(_BUFFERS, name)}
    expected = model_class.tensor_shapes(config)
    table = {ours: ROOT + theirs for ours, theirs in names(expected, config).items()}
    check_fit(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {theirs: expected[ours] for ours, theirs in table.items()},
        source=source,
        model_name=model_class.__name__,
        may_mismatch=kwargs.get("ignore_mismatched_sizes", False),
    )
    state_dict = {ours: tensors.pop(theirs) for ours, theirs in table.items()}
    return model_class.from_pretrained(None, config=config, state_dict=state_dict, **kwargs)  # type: ignore[arg-type]


def perceiver_io_loader(
    model_class: type[PerceiverIOPreTrainedModel],
    *,
    read: Callable[[Mapping[str, Any]], PerceiverIOConfig],
    names: Callable[[PerceiverIOConfig], Mapping[str, str]],
) -> Callable[..., PerceiverIOPreTrainedModel]:
    """Returns the loader of one kind of his Perceiver IO models, for `PublishedLayout.loaders`.

    Args:
        model_class: The task's class.
        read: Returns the configuration of what a config.json describes.
        names: Returns our modules and tensors to his, besides those of the encoder, for a configuration; the
            cross-attend of an output is among them.
    """

    def load(source: str | os.PathLike[str], **kwargs: Any) -> PerceiverIOPreTrainedModel:
        def table(tensors: Iterable[str], config: PerceiverIOConfig) -> dict[str, str]:
            return {ours: _name(ours, names(config), config) for ours in tensors}

        return load_krasserm(source, model_class, read=read, names=table, **kwargs)

    return load


def krasserm_encoder(
    model_config: Mapping[str, Any], *, qk_channels: int | None = None, v_channels: int | None = None
) -> EncoderConfig:
    """Returns the encoder that his settings describe.

    Args:
        model_config: His settings of the model.
        qk_channels: Width of the cross-attends' queries and keys where he says nothing; the latents' if None.
        v_channels: Width of their values where he says nothing; that of their queries if None.

    Raises:
        ValueError: Several cross-attends, but not one before each block.
    """
    encoder, latent_channels = model_config["encoder"], model_config["num_latent_channels"]
    num_blocks = encoder["num_self_attention_blocks"]
    num_cross_attends = encoder["num_cross_attention_layers"]
    if num_cross_attends not in (1, num_blocks):
        raise ValueError(
            f"The model has {num_cross_attends} cross-attends and {num_blocks} blocks: his stand before the first "
            "blocks, ours are spread over all. Only one, or as many as blocks, can be loaded."
        )
    cross_qk = encoder["num_cross_attention_qk_channels"] or qk_channels or latent_channels
    self_qk = encoder["num_self_attention_qk_channels"] or latent_channels
    return EncoderConfig(
        num_latents=model_config["num_latents"],
        latent_channels=latent_channels,
        num_cross_attends=num_cross_attends,
        num_blocks=num_blocks,
        num_self_attends_per_block=encoder["num_self_attention_layers_per_block"],
        share_cross_attends="all" if encoder["first_cross_attention_layer_shared"] else "after_first",
        share_blocks="all" if encoder["first_self_attention_block_shared"] else "after_first",
        num_cross_attention_heads=encoder["num_cross_attention_heads"],
        num_self_attention_heads=encoder["num_self_attention_heads"],
        cross_attention_qk_channels=cross_qk,
        cross_attention_v_channels=encoder["num_cross_attention_v_channels"] or v_channels or cross_qk,
        self_attention_qk_channels=self_qk,
        self_attention_v_channels=encoder["num_self_attention_v_channels"] or self_qk,
        cross_attention_widening_factor=encoder["cross_attention_widening_factor"],
        self_attention_widening_factor=encoder["self_attention_widening_factor"],
        attention_dropout=encoder["dropout"],
        latent_std=encoder["init_scale"],
        cross_attention_init="fan_in",
    )


def decoder_fields(model_config: Mapping[str, Any], *, query_channels: int) -> dict[str, Any]:
    """Returns the fields of a decoder's attention that his settings describe.

    Args:
        model_config: His settings of the model.
        query_channels: Width of its queries, which that of queries and keys is where he says nothing.
    """
    decoder = model_config["decoder"]
    qk_channels = decoder["num_cross_attention_qk_channels"] or query_channels
    return {
        "num_heads": decoder["num_cross_attention_heads"],
        "qk_channels": qk_channels,
        "v_channels": decoder["num_cross_attention_v_channels"] or qk_channels,
        "widening_factor": decoder["cross_attention_widening_factor"],
        "use_query_residual": decoder["cross_attention_residual"],
        "attention_dropout": decoder["dropout"],
    }


def krasserm_classifier(model_config: Mapping[str, Any]) -> ClassificationDecoder.Config:
    """Returns the decoder of a classifier that his settings describe.

    Args:
        model_config: His settings of the model.

    Raises:
        ValueError: It asks more than once.
    """
    decoder = model_config["decoder"]
    if decoder["num_output_queries"] != 1:
        raise ValueError(f"A classifier asks once, got num_output_queries {decoder['num_output_queries']}.")
    query_channels = decoder["num_output_query_channels"]
    return ClassificationDecoder.Config(
        num_classes=decoder["num_classes"],
        query_channels=query_channels,
        **decoder_fields(model_config, query_channels=query_channels),
    )


def krasserm_labels(config_json: Mapping[str, Any], *, num_classes: int) -> dict[int, str] | None:
    """Returns the names of classes by index, where his config.json has as many as there are classes.

    Args:
        config_json: The whole of it.
        num_classes: How many classes there are.
    """
    names = config_json.get("id2label")
    if not isinstance(names, Mapping) or len(names) != num_classes:
        return None
    return {int(index): str(name) for index, name in names.items()}


def _name(ours: str, names: Mapping[str, str], config: PerceiverIOConfig) -> str:
    found = renamed(ours.removeprefix("perceiver."), {**_MODULES, **names})
    if found is None:
        raise ValueError(f"The tensor {ours} has no counterpart in krasserm's implementation.")
    module, rest = found
    match = re.fullmatch(r"((?:\d+\.)?)(.+)\.(weight|bias)", rest)
    if match is None:
        return f"{module}.{rest}" if rest else module
    index, part, leaf = match.groups()
    if part in FEED_FORWARD_PARTS:
        part = FEED_FORWARD_PARTS[part]
    elif part in ATTENTION_PARTS:
        # What is added to its input is a module of a module.
        outputs = list(config.outputs.values())
        adds = not ours.removeprefix("perceiver.").startswith("decoders") or outputs[0].use_query_residual
        part = f"0.{'module.' if adds else ''}{ATTENTION_PARTS[part]}"
    return f"{module}.{index}{part}.{leaf}"

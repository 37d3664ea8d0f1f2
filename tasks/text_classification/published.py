"""Classifiers of texts that others published: what krasserm's implementation calls and computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.published.krasserm import (
    CLASSIFIER_NAMES,
    krasserm_classifier,
    krasserm_encoder,
    krasserm_labels,
    perceiver_io_loader,
)
from perceiver_io.published.layout import PublishedLayout
from perceiver_io.tasks.text_classification.model import TEXT, PerceiverIOForSequenceClassification

__all__ = ["LAYOUT"]

_LABEL = "label"
_NAMES = {
    **CLASSIFIER_NAMES,
    "adapters.text.embedding": "0.input_adapter.txt_embedding",
    "adapters.text.position.table": "0.input_adapter.pos_embedding",
}


def _of_krasserm(config_json: Mapping[str, Any]) -> PerceiverIOConfig:
    """Returns what his "perceiver-io-text-classifier" computes."""
    values = config_json["model_config"]
    encoder, classifier = values["encoder"], krasserm_classifier(values)
    return PerceiverIOConfig(
        inputs={
            TEXT: TextAdapter.Config(
                vocab_size=encoder["vocab_size"],
                max_length=encoder["max_seq_len"],
                num_channels=encoder["num_input_channels"],
            )
        },
        encoder=krasserm_encoder(values),
        outputs={_LABEL: classifier},
        id2label=krasserm_labels(config_json, num_classes=classifier.num_classes),
    )


def _to_transformers(_: PerceiverIOConfig) -> NoReturn:
    raise ValueError("Classifiers of texts cannot be written in the layout of transformers.")


LAYOUT = PublishedLayout(
    model_class=PerceiverIOForSequenceClassification,
    inputs=(TEXT,),
    outputs=(_LABEL,),
    models={},
    architectures={},
    to_transformers=_to_transformers,
    transformers_names={},
    deepmind_names={},
    loaders={
        "perceiver-io-text-classifier": perceiver_io_loader(
            PerceiverIOForSequenceClassification, read=_of_krasserm, names=lambda _: _NAMES
        )
    },
)

"""The whole model against the Perceiver of `transformers`, both with the same random weights.

Not its convolutional features: it pads the convolution by 3 on both sides and the max-pool not at all, where
the original release (`test_goldens.py`) pads both as 'SAME', and so it makes 7x7 elements of 32x32 pixels, not 8x8.
"""

import re
from typing import Any

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverModel,
)

from perceiver_io import PerceiverIO
from perceiver_io.tasks import image_classification

LATENTS = {"num_latents": 8, "num_blocks": 2, "num_self_attends_per_block": 2, "num_self_attention_heads": 4}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "fourier": {
        "prep_type": "pixels",
        "spatial_downsample": 1,
        "fourier_position_encoding_kwargs": {"num_bands": 4, "max_resolution": (8, 8), "concat_pos": True},
    },
    "learned": {
        "prep_type": "conv1x1",
        "spatial_downsample": 1,
        "out_channels": 16,
        "position_encoding_type": "trainable",
        "project_pos_dim": 16,
        "trainable_position_encoding_kwargs": {"num_channels": 16, "index_dims": 64},
    },
}
IMAGE: dict[str, dict[str, Any]] = {
    "fourier": {"num_bands": 4, "max_resolution": (8, 8)},
    "learned": {"feature_channels": 16, "position_channels": 16, "position_projection": 16},
}
# Parts of their names -> ours.
RENAMED = {
    r"^embeddings\.latents$": "encoder.latents.weight",
    r"^encoder\.cross_attention\.": "encoder.cross_attends.0.",
    r"^encoder\.self_attends\.": "encoder.blocks.0.layers.",
    r"^decoder\.decoder\.output_position_encodings\.position_embeddings$": "decoders.label.query.weight",
    r"^decoder\.decoder\.decoding_cross_attention\.": "decoders.label.cross_attend.",
    r"^decoder\.decoder\.final_layer\.": "decoders.label.output.",
    r"^input_preprocessor\.convnet_1x1\.": "adapters.image.features.",
    r"^input_preprocessor\.position_embeddings\.position_embeddings$": "adapters.image.position.table.weight",
    r"^input_preprocessor\.positions_projection\.": "adapters.image.position_projection.",
    r"\.attention\.self\.layernorm1\.": ".query_norm.",
    r"\.attention\.self\.layernorm2\.": ".input_norm.",
    r"\.attention\.self\.": ".attention.",
    r"\.attention\.output\.dense\.": ".attention.output.",
    r"\.layernorm\.": ".feed_forward_norm.",
    r"\.mlp\.dense1\.": ".feed_forward.hidden.",
    r"\.mlp\.dense2\.": ".feed_forward.output.",
    r"(layers\.\d+)\.query_norm": r"\1.norm",
}


def our_name(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def theirs(variant: str) -> PerceiverModel:
    config = PerceiverConfig(
        **LATENTS, d_latents=32, num_cross_attention_heads=1, num_labels=10, hidden_act="gelu", image_size=8
    )
    preprocessor = PerceiverImagePreprocessor(config, **PREPROCESSORS[variant])
    config.d_model = preprocessor.num_channels
    decoder = PerceiverClassificationDecoder(
        config,
        num_channels=32,
        trainable_position_encoding_kwargs={"num_channels": 32, "index_dims": 1},
        use_query_residual=variant != "learned",
    )
    model = PerceiverModel(config, input_preprocessor=preprocessor, decoder=decoder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return model


def ours(variant: str, reference: PerceiverModel) -> PerceiverIO:
    config = image_classification.config(
        num_classes=10,
        size=(8, 8),
        variant=variant,
        image=IMAGE[variant],
        encoder=LATENTS | {"latent_channels": 32, "activation": "gelu"},
        decoder={"activation": "gelu"},
    )
    model = PerceiverIO(config).eval()
    model.load_state_dict({our_name(name): value for name, value in reference.state_dict().items()})
    return model


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        ("fourier", (8, 8)),
        ("fourier", (6, 11)),
        ("learned", (8, 8)),
        ("learned", (12, 7)),
    ],
)
def test_same_logits(variant: str, size: tuple[int, int]) -> None:
    reference = theirs(variant)
    model = ours(variant, reference)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = reference(inputs=image, interpolate_pos_encoding=variant == "learned").logits
        logits = model({"image": image})["label"]
    assert (logits - expected).abs().max() < 1e-4 * expected.std()


def test_same_latents_with_a_mask() -> None:
    reference = theirs("fourier")
    model = ours("fourier", reference)
    image, mask = torch.randn(2, 3, 8, 8), torch.rand(2, 8, 8) < 0.6
    with torch.no_grad():
        expected = reference(inputs=image, attention_mask=mask.flatten(1).float()).last_hidden_state
        latents = model({"image": image}, {"image": mask}).latents
    assert (latents - expected).abs().max() < 1e-4 * expected.std()

"""The six published models at full size, as `transformers` and as this package run them on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

import perceiver_io as pio

IMAGENET = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "image_size": 224,
    "num_labels": 1000,
}
NUM_CHUNKS = 128  # in so many the published example decodes a video, and encodes it again for each
FRAMES, SIDE, SAMPLES, PATCH = 16, 224, 30720, 16


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One of the six.

    Attributes:
        architecture: Its class in `transformers`.
        settings: Of its configuration there.
        batch_sizes: To be timed with.
        inputs: Random inputs of a batch size, by this package's names.
        theirs: Runs the model of `transformers`: the outputs, in parts where it can only be run in parts.
        ours: Runs this package's: the same outputs, whole.
        num_parts: Parts that `theirs` takes for the whole output.
    """

    architecture: str
    settings: dict[str, Any]
    batch_sizes: tuple[int, ...]
    inputs: Callable[[int], dict[str, Tensor]]
    theirs: Callable[[Any, dict[str, Tensor]], Iterator[dict[str, Tensor]]]
    ours: Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]
    num_parts: int = 1

    def build(self) -> transformers.PreTrainedModel:
        """Returns the model of `transformers` with fresh random weights."""
        config = transformers.PerceiverConfig(**self.settings)
        model: transformers.PreTrainedModel = getattr(transformers, self.architecture)(config).eval()
        return model


def _images(batch_size: int) -> dict[str, Tensor]:
    return {"image": torch.randn(batch_size, 3, 224, 224)}


def _classify(model: Any, inputs: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    yield {"label": model(pixel_values=inputs["image"]).logits}


def _whole(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(model.perceiver(inputs).outputs)


def _vision(name: str, d_model: int) -> Peer:
    return Peer(
        architecture=f"PerceiverForImageClassification{name}",
        settings=IMAGENET | {"d_model": d_model},
        batch_sizes=(1, 8),
        inputs=_images,
        theirs=_classify,
        ours=_whole,
    )


def _flow_theirs(model: Any, inputs: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    # It takes neighbourhoods that its user has cut out, and leaves the published factor of 20 to its user.
    frames = inputs["frames"]
    cut = torch.nn.functional.unfold(frames.flatten(0, 1), 3, padding=1)
    patches = cut.view(-1, 2, 3, 9, *frames.shape[-2:]).transpose(2, 3).flatten(2, 3)
    yield {"flow": 20 * model(inputs=patches).logits.permute(0, 3, 1, 2)}


def _video(batch_size: int) -> dict[str, Tensor]:
    return {
        "image": torch.rand(batch_size, FRAMES, 3, SIDE, SIDE),
        "audio": torch.rand(batch_size, SAMPLES) * 2 - 1,
        "label": torch.zeros(batch_size, 700),
    }


def _video_theirs(model: Any, inputs: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    given = inputs | {"audio": inputs["audio"].unsqueeze(-1)}
    pixels, patches = FRAMES * SIDE * SIDE // NUM_CHUNKS, SAMPLES // PATCH // NUM_CHUNKS
    for chunk in range(NUM_CHUNKS):
        points = {
            "image": torch.arange(pixels * chunk, pixels * (chunk + 1)),
            "audio": torch.arange(patches * chunk, patches * (chunk + 1)),
            "label": None,
        }
        yield dict(model(inputs=given, subsampled_output_points=points).logits)


PEERS: dict[str, Peer] = {
    "vision-learned": _vision("Learned", 512),
    "vision-fourier": _vision("Fourier", 261),
    "vision-conv": _vision("ConvProcessing", 322),
    "language": Peer(
        architecture="PerceiverForMaskedLM",
        settings={"qk_channels": 256, "v_channels": 1280},
        batch_sizes=(1, 8),
        inputs=lambda batch_size: {"text": torch.randint(0, 262, (batch_size, 2048))},
        theirs=lambda model, inputs: iter([{"text": model(inputs=inputs["text"]).logits}]),
        ours=_whole,
    ),
    "optical-flow": Peer(
        architecture="PerceiverForOpticalFlow",
        settings={
            "num_latents": 2048,
            "d_latents": 512,
            "d_model": 322,
            "num_blocks": 1,
            "num_self_attends_per_block": 24,
            "num_self_attention_heads": 16,
            "num_cross_attention_heads": 1,
            "train_size": [368, 496],
        },
        batch_sizes=(1,),
        inputs=lambda batch_size: {"frames": torch.rand(batch_size, 2, 3, 368, 496) * 2 - 1},
        theirs=_flow_theirs,
        ours=_whole,
    ),
    "multimodal": Peer(
        architecture="PerceiverForMultimodalAutoencoding",
        settings={
            "num_latents": 784,
            "d_latents": 512,
            "d_model": 704,
            "num_blocks": 1,
            "num_self_attends_per_block": 8,
            "num_self_attention_heads": 8,
            "num_cross_attention_heads": 1,
            "num_labels": 700,
        },
        batch_sizes=(1,),
        inputs=_video,
        theirs=_video_theirs,
        ours=_whole,
        num_parts=NUM_CHUNKS,
    ),
}


def load_ours(folder: str) -> pio.PerceiverIOPreTrainedModel:
    """Loads a folder that `transformers` saved as this package's model."""
    return pio.from_pretrained(folder).eval()


def load_theirs(name: str, folder: str) -> transformers.PreTrainedModel:
    """Loads it as the class of `transformers` that saved it."""
    model: transformers.PreTrainedModel = getattr(transformers, PEERS[name].architecture).from_pretrained(
        folder
    )
    return model.eval()

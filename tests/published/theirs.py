"""Tiny Perceivers of `transformers`, one of each published class, and what both sides are given and compute.

What the classes hard-code (numbers of frequencies, some widths) stays as it is; all else is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad
from transformers import PerceiverConfig, PreTrainedModel

__all__ = ["CASES", "Case", "Inputs", "neighbourhoods", "relative_error"]

Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]

SMALL = {
    "num_latents": 8,
    "d_latents": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One class of theirs.

    Attributes:
        architecture: Its name.
        ours: The name of our class.
        fields: Fields of the tiny configuration.
        inputs: Makes inputs, in our layout, with masks under names that end in "_mask".
        run_theirs: What their model computes.
        run_ours: What ours computes, by the same names and in the same shapes.
    """

    architecture: str
    ours: str
    inputs: Callable[[], Inputs]
    run_theirs: Callable[[Any, Inputs], Outputs]
    run_ours: Callable[[Any, Inputs], Outputs]
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def cls(self) -> Any:
        return getattr(transformers, self.architecture)

    def make(self, **changes: Any) -> PreTrainedModel:
        """Returns their model with random weights, large enough for every part to matter."""
        model = self.cls(PerceiverConfig(**(SMALL | self.fields | changes))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) / 5)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_()
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
                elif name.endswith("num_batches_tracked"):
                    buffer.fill_(1234567)
        return model


def relative_error(found: Outputs, expected: Outputs) -> float:
    """The largest difference of any output, in standard deviations of that output."""
    assert found.keys() == expected.keys()
    assert all(found[name].shape == value.shape for name, value in expected.items())
    return max(((found[name] - value).abs().max() / value.std()).item() for name, value in expected.items())


def neighbourhoods(frames: Tensor) -> Tensor:
    """(B, 2, 3, H, W) frames -> (B, 2, 27, H, W), as their model of optical flow wants them; zeros outside."""
    height, width = frames.shape[-2:]
    padded = pad(frames, (1, 1, 1, 1))
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.cat(shifted, dim=2)


def image_inputs(size: tuple[int, int]) -> Inputs:
    return {"image": torch.randn(2, 3, *size)}


def theirs_image(model: Any, inputs: Inputs) -> Outputs:
    mask = inputs.get("image_mask")
    options = {} if mask is None else {"attention_mask": mask.flatten(1).float()}
    if "Learned" in type(model).__name__:
        options["interpolate_pos_encoding"] = True
    return {"label": model(inputs=inputs["image"], **options).logits}


def ours_image(model: Any, inputs: Inputs) -> Outputs:
    return {"label": model(inputs["image"], pixel_mask=inputs.get("image_mask")).logits}


def text_inputs() -> Inputs:
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0  # padding
    return {"text": torch.randint(0, 262, (2, 9)), "text_mask": mask}


def theirs_text(model: Any, inputs: Inputs) -> Outputs:
    # Theirs always decodes all the positions that it has.
    logits = model(inputs=inputs["text"], attention_mask=inputs["text_mask"]).logits
    return {"text": logits[:, : inputs["text"].shape[1]]}


def ours_text(model: Any, inputs: Inputs) -> Outputs:
    return {"text": model(inputs["text"], inputs["text_mask"]).logits}


def flow_inputs() -> Inputs:
    mask = torch.rand(2, 8, 12) < 0.8
    frames = torch.rand(2, 2, 3, 8, 12) * 2 - 1
    return {"frames": frames * mask[:, None, None], "frames_mask": mask}


def theirs_flow(model: Any, inputs: Inputs) -> Outputs:
    logits = model(
        inputs=neighbourhoods(inputs["frames"]), attention_mask=inputs["frames_mask"].flatten(1).float()
    ).logits
    return {"flow": 20 * logits.permute(0, 3, 1, 2)}


def ours_flow(model: Any, inputs: Inputs) -> Outputs:
    return {"flow": model.perceiver({"frames": inputs["frames"]}, {"frames": inputs["frames_mask"]})["flow"]}


def multimodal_inputs() -> Inputs:
    return {
        "image": torch.rand(2, 2, 3, 16, 16),
        "audio": torch.randn(2, 64),
        "label": torch.randn(2, 7).softmax(-1),
        "image_points": torch.randperm(2 * 16 * 16)[:50],
        "audio_points": torch.tensor([15, 0, 3]),
    }


def theirs_multimodal(model: Any, inputs: Inputs) -> Outputs:
    points = {"image": inputs["image_points"], "audio": inputs["audio_points"], "label": None}
    values = {name: inputs[name] for name in ("image", "audio", "label")}
    return dict(model(inputs=values, subsampled_output_points=points).logits)


def ours_multimodal(model: Any, inputs: Inputs) -> Outputs:
    points = {"image": inputs["image_points"], "audio": inputs["audio_points"], "label": None}
    values = {name: inputs[name] for name in ("image", "audio", "label")}
    outputs = model.perceiver(values, points=points)
    return {"audio": outputs["audio"].flatten(1), "image": outputs["image"], "label": outputs["label"]}


def image_case(kind: str, size: tuple[int, int], **fields: Any) -> Case:
    return Case(
        architecture=f"PerceiverForImageClassification{kind}",
        ours="PerceiverIOForImageClassification",
        inputs=lambda: image_inputs(size),
        run_theirs=theirs_image,
        run_ours=ours_image,
        fields={"num_labels": 5, **fields},
    )


CASES: dict[str, Case] = {
    "learned": image_case("Learned", (8, 8), image_size=8),
    "fourier": image_case("Fourier", (6, 11)),
    "conv": image_case("ConvProcessing", (32, 27)),
    "language": Case(
        architecture="PerceiverForMaskedLM",
        ours="PerceiverIOForMaskedLM",
        inputs=text_inputs,
        run_theirs=theirs_text,
        run_ours=ours_text,
        fields={"d_model": 16, "max_position_embeddings": 12, "num_cross_attention_heads": 2},
    ),
    "flow": Case(
        architecture="PerceiverForOpticalFlow",
        ours="PerceiverIOForOpticalFlow",
        inputs=flow_inputs,
        run_theirs=theirs_flow,
        run_ours=ours_flow,
        fields={"train_size": [8, 12]},
    ),
    "multimodal": Case(
        architecture="PerceiverForMultimodalAutoencoding",
        ours="PerceiverIOForMultimodalAutoencoding",
        inputs=multimodal_inputs,
        run_theirs=theirs_multimodal,
        run_ours=ours_multimodal,
        fields={
            "num_labels": 7,
            "num_frames": 2,
            "image_size": 4,
            "audio_samples_per_frame": 32,
            "samples_per_patch": 4,
            "output_shape": [1, 2, 16, 16],
            "output_num_channels": 24,
        },
    ),
}

"""The six published models at full size beside `transformers`: how far the outputs are apart.

Each class of `transformers` gets random weights that make every part of it matter, is saved, and loaded with
`perceiver_io.from_pretrained`. Both compute the same inputs, with and without masks, and images of another size too.
What is printed is the largest difference, as a share of the output's standard deviation; more than 1e-4 is an error.
The multimodal model is compared at the points of some of the 128 chunks that `transformers` decodes it in.

    python benchmarks/parity.py                                    # on the processor: several minutes
    python benchmarks/parity.py --models language multimodal
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peers import FRAMES, NUM_CHUNKS, PATCH, PEERS, SAMPLES, SIDE
from torch import Tensor, nn
from transformers import PreTrainedModel

import perceiver_io as pio
from perceiver_io.published import save_transformers

ALLOWED = 1e-4

# What is compared, then outputs of theirs and of ours.
Comparison = tuple[str, Callable[[], Tensor], Callable[[], Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    print(f"{'model':16}{'what':44}{'std':>9}{'apart':>10}", flush=True)
    worst = 0.0
    for name in options.models:
        theirs = PEERS[name].build()
        randomize(theirs)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            theirs.save_pretrained(folder)
            ours = pio.from_pretrained(folder)
            save_transformers(ours, f"{folder}/again")
            again = type(theirs).from_pretrained(f"{folder}/again").state_dict()
            changed = [
                key for key, value in theirs.state_dict().items() if not torch.equal(value, again[key])
            ]
            print(
                f"{name:16}{f'{len(again)} tensors there and back':44}{len(changed):>9} changed", flush=True
            )
            worst = math.inf if changed else worst
            for what, expect, find in COMPARISONS[name](theirs, ours):
                expected, found = expect(), find()
                assert found.shape == expected.shape, (found.shape, expected.shape)
                std = expected.std().item()
                apart = (found - expected).abs().max().item() / std
                print(f"{name:16}{what:44}{std:>9.3f}{apart:>10.1e}", flush=True)
                worst = max(worst, apart)
        del theirs, ours
    if not worst < ALLOWED:
        sys.exit(f"The largest difference is {worst:.1e}; {ALLOWED:.0e} is allowed.")


def randomize(model: nn.Module) -> None:
    """Draws weights under which activations keep their size, attention is uneven, and biases matter.

    Sharper attention would measure something else: with logits four times as large, `transformers` is further from its
    own result in float64 than it is allowed to be apart here.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module, _, leaf = name.rpartition(".")
            owner = model.get_submodule(module)
            if isinstance(owner, (nn.LayerNorm, nn.BatchNorm2d)):
                parameter.normal_(1.0 if leaf == "weight" else 0.0, 0.1)
            elif leaf == "bias":
                parameter.normal_(0.0, 0.1)
            elif isinstance(owner, (nn.Linear, nn.Conv2d)):
                gain = 0.5 if "self_attends" in name else 1.0
                parameter.normal_(0.0, gain / math.sqrt(parameter[0].numel()))
            else:
                parameter.normal_(0.0, 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)


def compare_images(theirs: PreTrainedModel, ours: Any) -> Iterator[Comparison]:
    kind = type(theirs).__name__
    interpolated = {"interpolate_pos_encoding": True} if kind.endswith("Learned") else {}
    for size in ((224, 224), (160, 208)):
        image = torch.randn(1, 3, *size)
        yield (
            f"{size[0]}x{size[1]}",
            lambda image=image: theirs(inputs=image, **interpolated).logits,
            lambda image=image: ours(image).logits,
        )
    image, mask = torch.randn(1, 3, 224, 224), torch.ones(1, 224, 224, dtype=torch.bool)
    mask[:, 150:] = False
    mask[:, :, :40] = False
    image *= mask[:, None]  # masked pixels are zero in ours; convolutions of theirs see them
    elements = ours.perceiver.encode({"image": image}, {"image": mask}).byte_arrays["image"].mask
    yield (
        f"masked: {int(elements.sum())} of {elements.shape[1]} elements",
        lambda: theirs(inputs=image, attention_mask=elements.float()).logits,
        lambda: ours(image, pixel_mask=mask).logits,
    )


def compare_language(theirs: PreTrainedModel, ours: Any) -> Iterator[Comparison]:
    for length, real in ((2048, 2048), (2048, 700), (333, 333), (333, 100)):
        ids = torch.randint(0, 262, (2, length))
        mask = torch.ones(2, length, dtype=torch.int64)
        mask[1, real:] = 0
        yield (
            f"2 x {length}, {length - real} of padding",
            lambda ids=ids, mask=mask: theirs(inputs=ids, attention_mask=mask).logits[:, : ids.shape[1]],
            lambda ids=ids, mask=mask: ours(ids, mask).logits,
        )


def compare_flow(theirs: PreTrainedModel, ours: Any) -> Iterator[Comparison]:
    frames, mask = torch.rand(1, 2, 3, 368, 496) * 2 - 1, torch.ones(1, 368, 496, dtype=torch.bool)
    yield "368x496", lambda: flow(theirs, frames), lambda: ours.perceiver({"frames": frames})["flow"]
    mask[:, 300:] = False
    masked = frames * mask[:, None, None]
    yield (
        "masked below",
        lambda: flow(theirs, masked, attention_mask=mask.flatten(1).float()),
        lambda: ours.perceiver({"frames": masked}, {"frames": mask})["flow"],
    )


def flow(model: Any, frames: Tensor, **options: Tensor) -> Tensor:
    """What their model computes, in pixels; it wants the neighbourhoods of all pixels, row by row."""
    height, width = frames.shape[-2:]
    padded = nn.functional.pad(frames, (1, 1, 1, 1))
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return 20 * model(inputs=torch.cat(shifted, dim=2), **options).logits.permute(0, 3, 1, 2)


def compare_multimodal(theirs: Any, ours: Any) -> Iterator[Comparison]:
    inputs = {
        "image": torch.rand(1, FRAMES, 3, SIDE, SIDE),
        "audio": torch.rand(1, SAMPLES) * 2 - 1,
        "label": torch.zeros(1, 700),
    }
    encoded = ours.perceiver.encode(inputs)
    for chunk in (0, 1, NUM_CHUNKS // 2, NUM_CHUNKS - 1):
        sizes = {"image": FRAMES * SIDE * SIDE // NUM_CHUNKS, "audio": SAMPLES // PATCH // NUM_CHUNKS}
        points: dict[str, Any] = {
            name: torch.arange(size * chunk, size * (chunk + 1)) for name, size in sizes.items()
        }
        points["label"] = None
        outputs = theirs(inputs=inputs, subsampled_output_points=points).logits
        decoded = ours.perceiver.decode(encoded, points=points)
        for name, expected in outputs.items():
            yield (
                f"{name}, chunk {chunk} of {NUM_CHUNKS}",
                lambda expected=expected: expected,
                lambda found=decoded[name], expected=expected: found.reshape(expected.shape),
            )
    whole = ours.perceiver.decode(encoded, outputs=["image", "audio"])
    yield (
        "image, last chunk of the whole",
        lambda: outputs["image"],
        lambda: whole["image"].movedim(2, -1).flatten(1, 3)[:, -outputs["image"].shape[1] :],
    )
    yield (
        "audio, last chunk of the whole",
        lambda: outputs["audio"],
        lambda: whole["audio"][:, -outputs["audio"].shape[1] :],
    )


COMPARISONS: dict[str, Callable[[Any, Any], Iterator[Comparison]]] = {
    "vision-learned": compare_images,
    "vision-fourier": compare_images,
    "vision-conv": compare_images,
    "language": compare_language,
    "optical-flow": compare_flow,
    "multimodal": compare_multimodal,
}


if __name__ == "__main__":
    main()

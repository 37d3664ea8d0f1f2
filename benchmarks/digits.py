"""Who learns to read digits, and how fast: four implementations on equal work.

Trains Perceivers of equal latents, depth, steps and batch on scikit-learn's digits (80 %, the other 20 % are held out,
stratified), all with the same optimiser and schedule, without augmentation, and prints the accuracy on the held-out
images and the seconds of training for each. The rows take turns, seed by seed, so that a machine that slows down slows
all of them.

    python benchmarks/digits.py                       # the table, in ten to thirty minutes
    python benchmarks/digits.py --plot curves.png     # and the accuracy after each epoch
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
import transformers
from perceiver_pytorch import Perceiver as LucidrainsPerceiver
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverModel,
)

from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification, config

NUM_LATENTS, LATENT_CHANNELS, NUM_SELF_ATTENDS, NUM_HEADS, NUM_BANDS = 16, 64, 4, 4, 64
SIZE, NUM_CLASSES = (8, 8), 10

Classifier = Callable[[Tensor], Tensor]


class TransformersPerceiver(nn.Module):
    """transformers' Perceiver on raw pixels beside Fourier features, put together from its own classes."""

    def __init__(self) -> None:
        super().__init__()
        settings = transformers.PerceiverConfig(
            num_latents=NUM_LATENTS,
            d_latents=LATENT_CHANNELS,
            num_blocks=1,
            num_self_attends_per_block=NUM_SELF_ATTENDS,
            num_self_attention_heads=NUM_HEADS,
            num_cross_attention_heads=1,
            attention_probs_dropout_prob=0.0,
            num_labels=NUM_CLASSES,
        )
        preprocessor = PerceiverImagePreprocessor(
            settings,
            prep_type="pixels",
            spatial_downsample=1,
            temporal_downsample=1,
            in_channels=1,
            position_encoding_type="fourier",
            fourier_position_encoding_kwargs={
                "num_bands": NUM_BANDS,
                "max_resolution": SIZE,
                "concat_pos": True,
            },
        )
        settings.d_model = preprocessor.num_channels
        decoder = PerceiverClassificationDecoder(
            settings,
            num_channels=LATENT_CHANNELS,
            trainable_position_encoding_kwargs={"num_channels": LATENT_CHANNELS, "index_dims": 1},
            use_query_residual=True,
        )
        self.perceiver = PerceiverModel(settings, input_preprocessor=preprocessor, decoder=decoder)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.perceiver(inputs=x_BCHW).logits


class PerceiverPytorch(nn.Module):
    """perceiver-pytorch's Perceiver; its feed-forwards are four times as wide and gated, which it fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.perceiver = LucidrainsPerceiver(
            input_channels=1,
            input_axis=2,
            num_freq_bands=NUM_BANDS,
            max_freq=float(SIZE[0]),
            depth=1,
            num_latents=NUM_LATENTS,
            latent_dim=LATENT_CHANNELS,
            cross_heads=1,
            latent_heads=NUM_HEADS,
            cross_dim_head=LATENT_CHANNELS,
            latent_dim_head=LATENT_CHANNELS // NUM_HEADS,
            self_per_cross_attn=NUM_SELF_ATTENDS,
            num_classes=NUM_CLASSES,
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.perceiver(x_BCHW.movedim(1, -1))


class Ours(nn.Module):
    """This package's classifier.

    Args:
        initialisation: "fan_in" as published, or "balanced", the default.
        published_features: Raw pixels beside 64 Fourier bands as published; else those of the preset for small images.
    """

    def __init__(self, *, initialisation: str, published_features: bool) -> None:
        super().__init__()
        image = {"features": "pixels", "patch_size": 1, "num_bands": NUM_BANDS}
        encoder = {
            "num_latents": NUM_LATENTS,
            "latent_channels": LATENT_CHANNELS,
            "num_cross_attends": 1,
            "num_blocks": 1,
            "num_self_attends_per_block": NUM_SELF_ATTENDS,
            "num_self_attention_heads": NUM_HEADS,
            "cross_attention_init": initialisation,
        }
        published_widths = {"cross_attention_qk_channels": None, "num_cross_attention_heads": 1}
        self.model = PerceiverIOForImageClassification(
            config(
                variant="tiny",
                size=SIZE,
                image_channels=1,
                num_classes=NUM_CLASSES,
                image=image if published_features else None,
                encoder=encoder | (published_widths if published_features else {}),
            )
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.model(x_BCHW).logits


ROWS: dict[str, Callable[[], nn.Module]] = {
    "perceiver-pytorch": PerceiverPytorch,
    "transformers": TransformersPerceiver,
    "ours, as published": lambda: Ours(initialisation="fan_in", published_features=True),
    "ours, published features, balanced initialisation": lambda: Ours(
        initialisation="balanced", published_features=True
    ),
    "ours, defaults": lambda: Ours(initialisation="balanced", published_features=False),
}


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns training images, test images, training labels and test labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return images[train], images[test], labels[train], labels[test]


def train(
    model: nn.Module, *, epochs: int, batch_size: int, learning_rate: float
) -> tuple[list[float], float]:
    """Trains a model; returns the test accuracy after each epoch and the seconds of training alone."""
    x_train, x_test, y_train, y_test = load()
    steps = len(x_train) // batch_size * epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    accuracies, seconds = [], 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        order = torch.randperm(len(x_train))
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            loss = nn.functional.cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - start
        model.eval()
        with torch.inference_mode():
            accuracies.append((model(x_test).argmax(-1) == y_test).float().mean().item())
    return accuracies, seconds


def plot(curves: dict[str, list[list[float]]], path: Path) -> None:
    """Draws the mean accuracy over the seeds after each epoch, with the range of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in curves.items():
        by_epoch = list(zip(*runs, strict=True))
        epochs = range(1, len(by_epoch) + 1)
        (line,) = axes.plot(epochs, [100 * mean(values) for values in by_epoch], label=name)
        low, high = [100 * min(values) for values in by_epoch], [100 * max(values) for values in by_epoch]
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel="accuracy on held-out digits [%]", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Trains every row with every seed and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--threads", type=int, default=1, help="processor threads; models this small want one"
    )
    parser.add_argument("--plot", type=Path, help="file for a plot of the accuracy after each epoch")
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)

    curves: dict[str, list[list[float]]] = {name: [] for name in ROWS}
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    parameters: dict[str, int] = {}
    turns = [(seed, name) for seed in args.seeds for name in ROWS]
    for seed, name in (progress := tqdm(turns)):
        progress.set_description(f"{name}, seed {seed}")
        torch.manual_seed(seed)
        model = ROWS[name]()
        parameters[name] = sum(parameter.numel() for parameter in model.parameters())
        accuracies, spent = train(
            model, epochs=args.epochs, batch_size=args.batch_size, learning_rate=args.learning_rate
        )
        curves[name].append(accuracies)
        seconds[name].append(spent)

    print(
        f"{NUM_LATENTS} latents x {LATENT_CHANNELS}, 1 cross-attend, {NUM_SELF_ATTENDS} self-attends, {args.epochs} "
        f"epochs of batch {args.batch_size}, learning rate {args.learning_rate}, seeds {args.seeds}, "
        f"{torch.get_num_threads()} threads\n"
    )
    print("| | parameters | accuracy (each seed) | after 5 epochs | seconds | to transformers |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ROWS:
        final = [100 * run[-1] for run in curves[name]]
        early = mean(100 * run[min(4, args.epochs - 1)] for run in curves[name])
        ratio = mean(
            mine / theirs for mine, theirs in zip(seconds[name], seconds["transformers"], strict=True)
        )
        print(
            f"| {name} | {parameters[name]:,} | {mean(final):.1f} % ({', '.join(f'{value:.1f}' for value in final)}) | "
            f"{early:.1f} % | {mean(seconds[name]):.1f} | {ratio:.2f}x |"
        )
    if args.plot:
        plot(curves, args.plot)
    if args.json:
        args.json.write_text(json.dumps({"accuracies": curves, "seconds": seconds, "parameters": parameters}))


if __name__ == "__main__":
    main()

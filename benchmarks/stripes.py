"""What puts stripes into dense outputs: one cause at a time, measured and drawn.

    python benchmarks/stripes.py --picture docs/images/stripes.png       # some minutes on one thread

Small models learn to give back grey crops of scikit-learn's two photographs, 32 x 32 pixels, from few latents. Then
they are asked for the 32 x 32 pixels that they were trained on, and for 64 x 64. The photographs were blurred before,
so that what is between the pixels follows from them: of the true picture next to nothing lies at or above the Nyquist
frequency of the training grid. What an output has there was made up.

Two figures tell stripes from other errors, both of spectra under a Hann window, averaged over the test crops. "above"
is the output's power at or above the training grid's Nyquist frequency along an axis, at 64 x 64, as a part of all
power of the true picture. "axes" is how many times as much of the error's power at 32 x 32 lies along the axes, within
one step of a zero frequency, as would if it were spread like the true picture's own power.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from torch import Tensor

import perceiver_io as pio
from perceiver_io.drawn_points import draw_points
from perceiver_io.pictures.figure import INK, MUTED, new_figure, write_figure
from perceiver_io.tasks.dense.presets import image_map_config

SIZE, FINER = 32, 64
OUTPUT = "image"
POSITIONS_ONLY = {"query_input": None, "query_input_channels": 0, "upsampling": None}
FOUR_TIMES = (4 * SIZE, 4 * SIZE)
BATCH = 8

# By name: what of the decoder differs from the defaults, and how many points of a crop a step decodes.
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "as it comes": ({}, 256),
    "bands to Nyquist": ({"num_bands": 16, "max_resolution": (SIZE, SIZE)}, 256),
    "bands to 4x Nyquist": ({"num_bands": 32, "max_resolution": FOUR_TIMES}, 256),
    "8 points a step": ({}, 8),
    "positions only": (POSITIONS_ONLY, 256),
    "positions only,\nbands to 4x Nyquist": (
        {**POSITIONS_ONLY, "num_bands": 32, "max_resolution": FOUR_TIMES},
        256,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = _photographs()
    truth = _crops(test, 64, np.random.default_rng(1))
    rows, drawn = [], []
    print(f"{'':34}{'error 1x':>9}{'error 2x':>9}{'above':>8}{'axes':>7}{'s':>6}", flush=True)
    print(f"{'the true picture':34}{'':18}{_above(truth, truth):8.2%}", flush=True)
    for name, (decoder, num_points) in VARIANTS.items():
        start = time.process_time()
        model = _trained(train, decoder, num_points, options.steps, options.seed)
        seconds = time.process_time() - start
        once, twice = _decoded(model, truth)
        row = {
            "variant": name.replace("\n", " "),
            "error": _rms(once - truth[:, ::2, ::2]),
            "error_twice": _rms(twice - truth),
            "above": _above(twice, truth),
            "axes": _along_axes(once - truth[:, ::2, ::2], truth[:, ::2, ::2]),
            "seconds": seconds,
        }
        rows.append(row)
        drawn.append((name, once, twice))
        print(
            f"{row['variant']:34}{row['error']:9.3f}{row['error_twice']:9.3f}{row['above']:8.2%}{row['axes']:7.2f}"
            f"{seconds:6.0f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"truth_above": _above(truth, truth), "rows": rows}, indent=2))
    if options.picture:
        _draw(truth, drawn, rows, options.picture)


def _photographs() -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """The left three quarters of both, and the rest; mean 0, deviation 1."""
    train, test = [], []
    for image in load_sample_images().images:
        grey = gaussian_filter(image.mean(-1), 1.3)
        grey = ((grey - grey.mean()) / grey.std()).astype(np.float32)
        border = grey.shape[1] * 3 // 4
        train.append(grey[:, :border])
        test.append(grey[:, border:])
    return train, test


def _crops(
    photographs: list[np.ndarray[Any, Any]], number: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """(number, 64, 64); every second pixel of every second row is what a model is trained on."""
    crops = []
    for _ in range(number):
        grey = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(0, side - FINER + 1) for side in grey.shape)
        crops.append(grey[top : top + FINER, left : left + FINER])
    return np.stack(crops)


def _trained(
    train: list[np.ndarray[Any, Any]], decoder: dict[str, Any], num_points: int, steps: int, seed: int
) -> pio.PerceiverIO:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = image_map_config(
        OUTPUT,
        size=(SIZE, SIZE),
        image_channels=1,
        output_channels=1,
        of="model",
        encoder={"latent_channels": 64, "cross_attention_qk_channels": 32},
        decoder={"qk_channels": 32, **decoder},
    )
    model = pio.PerceiverIO(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        crops = torch.from_numpy(_crops(train, BATCH, rng)[:, ::2, ::2].copy())
        points, _ = draw_points(torch.ones(BATCH, SIZE * SIZE, dtype=torch.bool), num_points)
        found = model({"image": crops[:, None]}, points={OUTPUT: points})[OUTPUT][..., 0]
        loss = torch.nn.functional.mse_loss(found, crops.flatten(1).gather(1, points))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _decoded(
    model: pio.PerceiverIO, truth: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What a model gives on the grid that it was trained on, and on one of twice the size."""
    inputs: Tensor = torch.from_numpy(truth[:, None, ::2, ::2].copy())
    with torch.no_grad():
        encoded = model.encode({"image": inputs})
        once, twice = (
            model.decode(encoded, grids={OUTPUT: (side, side)})[OUTPUT][:, 0].numpy()
            for side in (SIZE, FINER)
        )
    return once, twice


def _rms(error: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.square(error).mean()))


def _power(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean power of some pictures by frequency, (H, W), 0 in the middle."""
    side = pictures.shape[-1]
    window = np.hanning(side + 1)[:-1]
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    spectra = np.fft.fftshift(np.fft.fft2(centred * np.outer(window, window)), axes=(1, 2))
    power: np.ndarray[Any, Any] = np.square(np.abs(spectra)).mean(0)
    return power


def _above(pictures: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    power = _power(pictures)
    frequency = np.abs(np.arange(FINER) - FINER // 2)
    above = frequency >= SIZE // 2
    return float(power[above[:, None] | above[None, :]].sum() / _power(truth).sum())


def _along_axes(error: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """How much more of the error's power than of the true picture's is along the axes, beyond low frequencies."""
    frequency = np.abs(np.arange(SIZE) - SIZE // 2)
    near, far = frequency <= 1, frequency >= SIZE // 8
    axes = (near[:, None] & far[None, :]) | (far[:, None] & near[None, :])
    all_far = far[:, None] | far[None, :]
    parts = [power[axes].sum() / power[all_far].sum() for power in map(_power, (error, truth))]
    return float(parts[0] / parts[1])


def _draw(
    truth: np.ndarray[Any, Any],
    drawn: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    rows: list[dict[str, Any]],
    path: Path,
) -> None:
    # The crop with the most in it, so that there is something to see.
    shown = int(np.argmax(truth.std((1, 2))))
    low, high = np.quantile(truth[shown], [0.01, 0.99])
    columns = [
        f"output, {SIZE} x {SIZE}",
        f"output, {FINER} x {FINER}",
        f"error, {FINER} x {FINER}",
        "its power",
    ]
    figure = new_figure(8.6, 1.75 * (len(drawn) + 1) + 0.3)
    grid = figure.subplots(
        len(drawn) + 1,
        4,
        gridspec_kw={
            "left": 0.22, "right": 0.99, "bottom": 0.01, "top": 1 - 0.3 / figure.get_figheight(),
            "hspace": 0.06, "wspace": 0.04,
        },
    )  # fmt: skip
    levels = [_power(twice - truth) for _, _, twice in drawn]
    brightest = max(power.max() for power in levels)
    named = [("the true picture", truth[:, ::2, ::2], truth), *drawn]
    for line, (name, once, twice) in enumerate(named):
        for column, axes in enumerate(grid[line]):
            axes.set_xticks([])
            axes.set_yticks([])
            if line == 0 and column > 1:
                axes.set_visible(False)
            elif column < 2:
                axes.imshow(
                    (once, twice)[column][shown], cmap="gray", vmin=low, vmax=high, interpolation="nearest"
                )
            elif column == 2:
                axes.imshow(
                    (twice - truth)[shown], cmap="RdBu_r", vmin=-0.8, vmax=0.8, interpolation="nearest"
                )
            else:
                decibels = 10 * np.log10(levels[line - 1] / brightest + 1e-12)
                axes.imshow(decibels, cmap="magma", vmin=-50, vmax=0, interpolation="nearest")
                edge = np.array([-1, 1, 1, -1, -1]) * SIZE // 2 + FINER // 2
                axes.plot(
                    edge, np.roll(edge, 1)[[0, 1, 2, 3, 0]], color="white", linewidth=0.6, linestyle=":"
                )
        place = grid[line][0].get_position()
        middle = (place.y0 + place.y1) / 2
        figure.text(0.205, middle + 0.008, name, ha="right", va="bottom", size=9, color=INK)
        if line:
            row = rows[line - 1]
            note = (
                f"above Nyquist {row['above']:.2%}\nerror {row['error']:.3f}, at 2x {row['error_twice']:.3f}"
            )
            figure.text(0.205, middle, note, ha="right", va="top", size=7.5, color=MUTED)
    for column, title in enumerate(columns):
        place = grid[min(1, column // 2)][column].get_position()
        figure.text(
            (place.x0 + place.x1) / 2,
            1 - 0.2 / figure.get_figheight() - (column > 1) * (1 - place.y1 - 0.32 / figure.get_figheight()),
            title,
            ha="center",
            size=9,
            color=INK,
        )
    write_figure(figure, path)


if __name__ == "__main__":
    main()

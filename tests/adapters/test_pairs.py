"""Every pair of adapters in one model, every decoder on it: padding, lacking inputs, saving and loading."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io import (
    ClassificationDecoder,
    DenseDecoder,
    NextTokenDecoder,
    PooledClassificationDecoder,
    RegressionDecoder,
)
from perceiver_io.adapters import (
    AudioAdapter,
    FeaturesAdapter,
    FramePairAdapter,
    ImageAdapter,
    LabelAdapter,
    PixelSequenceAdapter,
    PointCloudAdapter,
    SpectrogramAdapter,
    TableAdapter,
    TextAdapter,
    TimeSeriesAdapter,
    VideoAdapter,
)
from perceiver_io.component import ComponentConfig
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import ADAPTERS, DECODERS
from perceiver_io.testing.common import tiny_encoder

NAN = torch.nan


@dataclass(frozen=True, kw_only=True)
class Modality:
    """An adapter and three samples of unequal sizes, as `pad_ragged` takes them."""

    config: ComponentConfig
    samples: Sequence[Tensor]
    axes: Sequence[int] = (0,)
    multiples: Sequence[int] | None = None


def randn(*sizes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(size) for size in sizes]


# By the adapter's registered name. Positions are nominal where there is a choice.
MODALITIES: dict[str, Callable[[], Modality]] = {
    "audio": lambda: Modality(
        config=AudioAdapter.Config(
            num_samples=16, samples_per_patch=4, num_bands=3, position_extent="nominal"
        ),
        samples=randn((8,), (20,), (10,)),
        multiples=(4,),
    ),
    "features": lambda: Modality(
        config=FeaturesAdapter.Config(num_features=3, position="learned", max_length=8, position_channels=4),
        samples=randn((2, 3), (5, 3), (1, 3)),
    ),
    "frame-pair": lambda: Modality(
        config=FramePairAdapter.Config(
            size=(3, 4), image_channels=1, feature_channels=4, num_bands=2, position_extent="nominal"
        ),
        samples=randn((2, 1, 3, 4), (2, 1, 2, 5), (2, 1, 4, 2)),
        axes=(2, 3),
    ),
    "image": lambda: Modality(
        config=ImageAdapter.Config(
            size=(8, 8), features="conv", feature_channels=4, num_bands=2, position_extent="nominal"
        ),
        samples=randn((3, 8, 4), (3, 10, 7), (3, 4, 12)),
        axes=(1, 2),
        multiples=(4, 4),
    ),
    "label": lambda: Modality(
        config=LabelAdapter.Config(num_classes=4),
        samples=[torch.tensor(index) for index in (3, 0, 2)],
        axes=(),
    ),
    "pixel-sequence": lambda: Modality(
        config=PixelSequenceAdapter.Config(vocab_size=9, size=(2, 3), num_channels=4),
        samples=[torch.randint(9, (length,)) for length in (4, 7, 2)],
    ),
    "point-cloud": lambda: Modality(
        config=PointCloudAdapter.Config(num_features=1, num_bands=2), samples=randn((3, 4), (6, 4), (1, 4))
    ),
    "spectrogram": lambda: Modality(
        config=SpectrogramAdapter.Config(size=(8, 5), features="conv", feature_channels=4, num_bands=2),
        samples=randn((8, 5), (14, 5), (3, 5)),
        multiples=(4,),
    ),
    "table": lambda: Modality(
        config=TableAdapter.Config(
            columns=(("number", 0.0, 1.0), ("category", 3), ("number", 5.0, 2.0)),
            num_channels=4,
            position_channels=2,
            num_frequencies=2,
        ),
        samples=[torch.tensor(row) for row in ([0.5, 1.0, NAN], [NAN, 2.0, 4.0], [1.0, 0.0, 6.5])],
    ),
    "text": lambda: Modality(
        config=TextAdapter.Config(
            vocab_size=9,
            max_length=8,
            num_channels=4,
            features="conv",
            kernel_size=3,
            position="fourier",
            num_bands=2,
        ),
        samples=[torch.randint(9, (length,)) for length in (4, 10, 2)],
    ),
    "time-series": lambda: Modality(
        config=TimeSeriesAdapter.Config(num_variables=2, time_range=(0.0, 5.0), num_bands=2),
        samples=[
            torch.tensor([[0.0, 1.0, NAN], [4.0, NAN, 2.0]]),
            torch.tensor([[1.0, 1.0, 0.5], [1.5, NAN, NAN], [6.0, 3.0, 2.0]]),
            torch.tensor([[2.0, NAN, -1.0]]),
        ],
    ),
    "video": lambda: Modality(
        config=VideoAdapter.Config(
            size=(2, 4, 6), patch_size=(1, 2, 3), num_bands=2, position_extent="nominal"
        ),
        samples=randn((1, 3, 4, 3), (3, 3, 2, 6), (2, 3, 5, 4)),
        axes=(0, 2, 3),
        multiples=(1, 2, 3),
    ),
}

# By the decoder's registered name.
OUTPUTS: dict[str, Any] = {
    "classification": ClassificationDecoder.Config(num_classes=3),
    "dense": DenseDecoder.Config(grid=(2, 3), output_channels=2, num_bands=2),
    "next-token": NextTokenDecoder.Config(vocab_size=5),
    "pooled-classification": PooledClassificationDecoder.Config(num_classes=3),
    "regression": RegressionDecoder.Config(num_outputs=2, offset=(0.0, 1.0), scale=(1.0, 2.0)),
}

PAIRS = list(itertools.combinations(MODALITIES, 2))


def key(name: str) -> str:
    """The name of an input or output in the model."""
    return name.replace("-", "_")


def model(names: Sequence[str], outputs: Sequence[str] = tuple(OUTPUTS)) -> pio.PerceiverIO:
    made = pio.PerceiverIO(
        pio.PerceiverIOConfig(
            inputs={key(name): MODALITIES[name]().config for name in names},
            encoder=tiny_encoder(),
            outputs={key(name): OUTPUTS[name] for name in outputs},
        )
    ).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return made


def batch(columns: dict[str, Sequence[Tensor | None]]) -> dict[str, dict[str, Tensor]]:
    """What the model is called with, of samples by input name."""
    inputs, masks = {}, {}
    for name, samples in columns.items():
        modality = MODALITIES[name]()
        inputs[key(name)], mask = pad_ragged(samples, axes=modality.axes, multiples=modality.multiples)
        if mask is not None:
            masks[key(name)] = mask
    return {"inputs": inputs, "masks": masks}


def columns(names: Sequence[str]) -> dict[str, list[Tensor | None]]:
    torch.manual_seed(1)
    return {name: list(MODALITIES[name]().samples) for name in names}


def assert_same(together: pio.PerceiverIOOutput, index: int, alone: pio.PerceiverIOOutput) -> None:
    for name, one in {"latents": alone.latents, **alone.outputs}.items():
        all_of_them = together.latents if name == "latents" else together[name]
        torch.testing.assert_close(
            all_of_them[index], one[0], rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_all_adapters_and_decoders_are_here() -> None:
    for registry, known in ((ADAPTERS, MODALITIES), (DECODERS, OUTPUTS)):
        ours = {
            name for name in registry.names() if registry.get(name).__module__.startswith("perceiver_io.")
        }
        assert ours == set(known)


@pytest.mark.parametrize("names", [(name,) for name in MODALITIES] + PAIRS, ids="+".join)
@torch.no_grad()
def test_a_sample_in_a_padded_batch_is_as_alone(names: tuple[str, ...]) -> None:
    made, samples = model(names), columns(names)
    together = made(**batch(samples))
    for index in range(3):
        assert_same(together, index, made(**batch({name: [samples[name][index]] for name in names})))


@pytest.mark.parametrize("names", PAIRS, ids="+".join)
@torch.no_grad()
def test_a_sample_that_lacks_an_input_is_as_given_the_other_alone(names: tuple[str, str]) -> None:
    made, samples = model(names), columns(names)
    others = columns(names)
    samples[names[0]][1] = samples[names[1]][2] = None
    together = made(**batch(samples))
    assert_same(together, 1, made(**batch({names[1]: [others[names[1]][1]]})))
    assert_same(together, 2, made(**batch({names[0]: [others[names[0]][2]]})))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", MODALITIES)
@torch.no_grad()
def test_a_decoder_alone_takes_any_input(name: str, output: str) -> None:
    made = model([name], [output])
    result = made(**batch(columns([name])))
    assert list(result.outputs) == [key(output)]
    assert result[key(output)].shape[0] == 3 and result[key(output)].isfinite().all()


def test_saved_pairs_are_bit_equal_in_another_process(tmp_path: Path) -> None:
    for names, output in zip(
        PAIRS, itertools.cycle(OUTPUTS), strict=False
    ):  # one decoder each, in turn: it is faster
        made, arguments = model(names, [output]), batch(columns(names))
        with torch.no_grad():
            result = made(**arguments)
        folder = tmp_path / "+".join(names)
        made.save_pretrained(folder)
        torch.save(
            {"arguments": arguments, "outputs": {"latents": result.latents, **result.outputs}},
            folder / "expected.pt",
        )
    script = """
import sys
from pathlib import Path
import torch
import perceiver_io as pio
torch.set_num_threads(1)
folders = sorted(Path(sys.argv[1]).iterdir())
for folder in folders:
    saved = torch.load(folder / "expected.pt")
    with torch.no_grad():
        result = pio.from_pretrained(folder).eval()(**saved["arguments"])
    for name, value in {"latents": result.latents, **result.outputs}.items():
        assert torch.equal(value, saved["outputs"][name]), (folder.name, name)
print(len(folders))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(PAIRS)

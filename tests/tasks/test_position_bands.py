"""No preset of ours asks a dense output with frequencies that its training grid cannot tell from lower ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.position import axis_coordinates, fourier_features
from perceiver_io.running import Setup
from perceiver_io.tasks import depth_estimation as de
from perceiver_io.tasks import image_autoencoding as ia
from perceiver_io.tasks import multimodal_autoencoding as ma
from perceiver_io.tasks import optical_flow as of
from perceiver_io.tasks import semantic_segmentation as ss
from perceiver_io.tasks.dense.presets import IMAGE_MAPS
from perceiver_io.tasks.multimodal_autoencoding.presets import VARIANTS as AUTOENCODERS
from perceiver_io.tasks.optical_flow.presets import VARIANTS as FLOWS
from perceiver_io.tasks.semantic_segmentation.task import SemanticSegmentationTask

PRESETS: dict[str, Callable[[], PerceiverIOConfig]] = {
    **{f"segmentation {name}": lambda name=name: ss.config(variant=name) for name in IMAGE_MAPS},
    **{f"depth {name}": lambda name=name: de.config(variant=name, size=(48, 64)) for name in IMAGE_MAPS},
    **{f"image autoencoder {name}": lambda name=name: ia.config(variant=name) for name in ia.VARIANTS},
    **{f"flow {name}": lambda name=name: of.config(variant=name) for name in FLOWS},
    **{f"autoencoder {name}": lambda name=name: ma.config(variant=name) for name in AUTOENCODERS},
}
# As published: the sound's positions are as fine as its samples, though a query stands for sixteen of them.
EXEMPT = {f"autoencoder {name}": {"audio"} for name in ("kinetics", "kinetics_176", "kinetics_352")}


def trained_grids(config: PerceiverIOConfig) -> Iterator[tuple[str, DenseDecoder.Config, tuple[int, ...]]]:
    """Dense outputs with the grid of queries that they are trained on."""
    for name, part in config.outputs.items():
        if isinstance(part, DenseDecoder.Config):
            grid = part.grid
            if grid is None:
                source = config.inputs[part.follows]
                elements = source.grid(source.size)
                factors = part.upsampling or (1,) * len(elements)
                grid = tuple(size * factor for size, factor in zip(elements, factors, strict=True))
            yield name, part, grid


@pytest.mark.parametrize("name", PRESETS)
def test_bands_of_presets_are_below_the_grids_nyquist_frequency(name: str) -> None:
    outputs = list(trained_grids(PRESETS[name]()))
    assert outputs
    for output, part, grid in outputs:
        assert bool(part.bands_beyond(grid)) == (output in EXEMPT.get(name, ())), (output, grid)


@pytest.mark.parametrize("resolution", [8, 16, 17, 24, 30])
def test_bands_beyond_are_those_that_a_grid_takes_for_lower_ones(resolution: int) -> None:
    highest = resolution / 2
    lower = abs(16 - highest)  # what looks the same at 16 points
    for size in (16, 32):
        (x_I,) = axis_coordinates((size,), spacing="steps", dtype=torch.float64)
        features_IP = fourier_features(x_I[:, None], num_bands=2, max_resolution=(resolution,))
        alike = torch.allclose(features_IP[:, -1], torch.cos(math.pi * lower * x_I), atol=1e-6)
        assert alike == (size == 16 or lower == highest)
    part = DenseDecoder.Config(output_channels=1, grid=(16,), max_resolution=(resolution,), spacing="steps")
    assert part.bands_beyond() == ((0,) if lower < highest else ())
    assert part.bands_beyond((64,)) == ()
    with pytest.raises(ValueError, match="1 axes, got"):
        part.bands_beyond((4, 4))


def test_outputs_without_a_grid_or_without_bands() -> None:
    asked = {"output_channels": 1, "query_input": "image", "query_input_channels": 3}
    with pytest.raises(ValueError, match="no nominal grid"):
        DenseDecoder.Config(**asked, max_resolution=(9, 9)).bands_beyond()
    assert DenseDecoder.Config(**asked, position="none").bands_beyond((2, 2)) == ()


@pytest.mark.parametrize("resolution", [16, 17])
def test_a_training_says_that_there_will_be_stripes(
    resolution: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = ss.config(size=(16, 16), decoder={"max_resolution": (4, resolution)})
    recipe = SemanticSegmentationTask.recipe_class(dataset="digit-canvases")
    setup = Setup(
        recipe=recipe,
        data=None,
        model=ss.PerceiverIOForSemanticSegmentation(config),
        processor=ss.PerceiverIOImageProcessor(size=16),
    )
    SemanticSegmentationTask().collator(setup, train=True)
    assert (
        "trained on a grid of (16, 16), but asked with frequencies as for one of (4, 17)" in caplog.text
    ) == (resolution == 17)

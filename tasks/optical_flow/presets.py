"""Configurations of models of optical flow: the published one, a small one to train, and a tiny one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perceiver_io.adapters.optical_flow import FramePairAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import given, laid_over, variant_parts
from perceiver_io.tasks.dense.presets import SMALL_ENCODER, SMALL_QUERIES, SMALL_STEM
from perceiver_io.tasks.optical_flow.model import FLOW, FRAMES

__all__ = ["VARIANTS", "config"]

_Fields = dict[str, Any]
_Parts = tuple[_Fields, _Fields, _Fields]


def config(
    *,
    variant: str = "flow",
    size: tuple[int, int] | None = None,
    frames: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model of optical flow.

    The queries of the flow are the elements of the byte array: the features of each pixel and its position. So the
    decoder's channels and positions follow from the adapter's, unless `decoder` says otherwise. Where an element stands
    for several pixels, what a pixel's query is made of is interpolated between the elements.

    Args:
        variant: One of `VARIANTS`.
        size: Nominal height and width in pixels, the size of tiles; the variant's if None. For "small" a multiple of
            an element's side.
        frames: Fields of `FramePairAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown, or the size is not a multiple of an element's.
    """
    of_frames, of_encoder, of_decoder = variant_parts(VARIANTS, variant, of="flow model")
    adapter = laid_over(FramePairAdapter.Config, of_frames, given(size=size), frames)
    grid = adapter.grid(adapter.size)
    factors = tuple(side // elements for side, elements in zip(adapter.size, grid, strict=True))
    if any(side % elements for side, elements in zip(adapter.size, grid, strict=True)):
        raise ValueError(
            f"Frames of {adapter.size[0]}x{adapter.size[1]} pixels are {grid[0]}x{grid[1]} elements: choose a size "
            "that is a multiple of an element's."
        )
    of_adapter: _Fields = {
        "output_channels": 2,
        "query_input": FRAMES,
        "query_input_channels": adapter.feature_channels,
        "num_bands": adapter.num_bands,
        "max_resolution": adapter.max_resolution or grid,
        "include_coordinates": adapter.include_coordinates,
    }
    if factors != (1, 1):
        of_adapter["upsampling"] = factors
    return PerceiverIOConfig(
        inputs={FRAMES: adapter},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={FLOW: laid_over(DenseDecoder.Config, of_adapter, of_decoder, decoder)},
    )


def _flow() -> _Parts:
    """The published model: Sintel 1.81 (clean) and 2.42 (final), KITTI 4.98 pixels (Perceiver IO, section 4.2)."""
    adapter = {"size": (368, 496), "feature_channels": 64, "num_bands": 64}
    encoder = {
        "num_latents": 2048,
        "latent_channels": 512,
        "num_self_attends_per_block": 24,
        "num_self_attention_heads": 16,
        "cross_attention_init": "fan_in",
        "activation": "gelu_tanh",
    }
    # The output is divided by 100 and counts units of 20 pixels.
    return adapter, encoder, {"scale": 20 / 100, "activation": "gelu_tanh"}


def _tiny() -> _Parts:
    """For tests and demonstrations: 96x128 pixels, 32 latents, a fraction of a second a pair."""
    adapter = {"size": (96, 128), "feature_channels": 32, "num_bands": 8}
    encoder = {
        "num_latents": 32,
        "latent_channels": 64,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
    }
    return adapter, encoder, {}


def _small() -> _Parts:
    """For motion of a few pixels, to be trained on a processor: block matching is refined by convolutions."""
    return (
        {"size": (64, 64), **SMALL_STEM, "matching_radius": 3},
        dict(SMALL_ENCODER),
        {**SMALL_QUERIES, "scale": 2.0},
    )


VARIANTS: dict[str, Callable[[], _Parts]] = {"flow": _flow, "small": _small, "tiny": _tiny}
"""Presets by name: "flow" is the published one."""

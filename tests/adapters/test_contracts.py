"""The contract suite over every registered adapter; a new adapter adds its cases to CASES."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

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
from perceiver_io.registry import ADAPTERS
from perceiver_io.testing import ADAPTER_CHECKS, AdapterCase, ElementsAdapter


def image_case(
    *, size: tuple[int, int] = (4, 6), x_size: tuple[int, int] | None = None, **fields: Any
) -> AdapterCase:
    generator = torch.Generator().manual_seed(1)
    height, width = x_size or size
    x = torch.randn(2, fields.get("image_channels", 3), height, width, generator=generator)
    mask = torch.ones(2, height, width, dtype=torch.bool)
    mask[0, : height // 2] = False
    mask[1, :, : width // 2] = False
    config = ImageAdapter.Config(**{"size": size, "num_bands": 2, "position_channels": 3} | fields)
    return AdapterCase(adapter_class=ImageAdapter, config=config, x=x, mask=mask)


def elements_case() -> AdapterCase:
    mask = torch.tensor([[True, True, False], [False, True, True]])
    config = ElementsAdapter.Config(num_channels=4, num_content_channels=3)
    return AdapterCase(adapter_class=ElementsAdapter, config=config, x=torch.randn(2, 3, 4), mask=mask)


def text_case(
    *, length: int = 5, max_length: int = 12, dtype: torch.dtype = torch.int64, **fields: Any
) -> AdapterCase:
    config = TextAdapter.Config(vocab_size=7, max_length=max_length, num_channels=4, **fields)
    x = torch.randint(7, (2, length), dtype=dtype)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 3:] = mask[1, 0] = False
    return AdapterCase(
        adapter_class=TextAdapter, config=config, x=x, mask=mask, bad_values=(-1, 7, 2**31 - 1)
    )


def pixel_sequence_case(
    *, length: int = 5, size: tuple[int, ...] = (2, 3), dtype: torch.dtype = torch.int64
) -> AdapterCase:
    config = PixelSequenceAdapter.Config(vocab_size=7, size=size, num_channels=4)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 3:] = mask[1, 0] = False
    return AdapterCase(
        adapter_class=PixelSequenceAdapter,
        config=config,
        x=torch.randint(7, (2, length), dtype=dtype),
        mask=mask,
        bad_values=(-1, 7, 2**31 - 1),
    )


def frame_pair_case(*, size: tuple[int, int] = (4, 5), **fields: Any) -> AdapterCase:
    config = FramePairAdapter.Config(**{"size": (4, 5), "feature_channels": 4, "num_bands": 2} | fields)
    x = torch.randn(2, 2, config.image_channels, *size)
    mask = torch.ones(2, *size, dtype=torch.bool)
    mask[0, : size[0] // 2] = mask[1, 1, 2] = False
    return AdapterCase(adapter_class=FramePairAdapter, config=config, x=x, mask=mask, mask_axes=(3, 4))


def video_case(*, size: tuple[int, int, int] = (2, 4, 6), **fields: Any) -> AdapterCase:
    config = VideoAdapter.Config(**{"size": size, "patch_size": (1, 2, 3), "num_bands": 2} | fields)
    x = torch.randn(2, size[0], config.image_channels, *size[1:])
    mask = torch.ones(2, *size, dtype=torch.bool)
    mask[0, :, : size[1] // 2] = False
    mask[1, :, 1:, :3] = False
    return AdapterCase(adapter_class=VideoAdapter, config=config, x=x, mask=mask, mask_axes=(1, 3, 4))


def audio_case(*, num_samples: int = 12, **fields: Any) -> AdapterCase:
    config = AudioAdapter.Config(**{"num_samples": 12, "samples_per_patch": 4, "num_bands": 3} | fields)
    mask = torch.ones(2, num_samples, dtype=torch.bool)
    mask[0, 6:] = mask[1, :4] = False
    channels = [] if config.audio_channels == 1 else [config.audio_channels]
    x = torch.randn(2, *channels, num_samples)
    return AdapterCase(adapter_class=AudioAdapter, config=config, x=x, mask=mask)


def label_case(x: torch.Tensor, **fields: Any) -> AdapterCase:
    mask = torch.tensor([True, False, True])
    return AdapterCase(
        adapter_class=LabelAdapter, config=LabelAdapter.Config(num_classes=4), x=x, mask=mask, **fields
    )


def spectrogram_case(*, num_frames: int = 8, **fields: Any) -> AdapterCase:
    config = SpectrogramAdapter.Config(
        **{"size": (8, 6), "patch_size": (2, 3), "num_bands": 2, "position_channels": 3} | fields
    )
    mask = torch.ones(2, num_frames, dtype=torch.bool)
    mask[0, num_frames // 2 - 1 :] = mask[1, :4] = False
    x = torch.randn(2, num_frames, 6)
    return AdapterCase(adapter_class=SpectrogramAdapter, config=config, x=x, mask=mask)


def point_cloud_case(x: torch.Tensor, **fields: Any) -> AdapterCase:
    config = PointCloudAdapter.Config(**{"num_bands": 2} | fields)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    mask[0, 2:] = mask[1, 0] = False
    return AdapterCase(adapter_class=PointCloudAdapter, config=config, x=x, mask=mask)


def features_case(**fields: Any) -> AdapterCase:
    config = FeaturesAdapter.Config(
        **{"num_features": 3, "max_length": 10, "num_bands": 2, "position_channels": 4} | fields
    )
    mask = torch.tensor([[True, True, True, False, False], [False, True, False, True, True]])
    return AdapterCase(adapter_class=FeaturesAdapter, config=config, x=torch.randn(2, 5, 3), mask=mask)


def table_case(columns: tuple[Any, ...], rows: list[list[float]], **fields: Any) -> AdapterCase:
    config = TableAdapter.Config(columns=columns, num_channels=4, position_channels=3, num_frequencies=2)
    mask = torch.ones(len(rows), len(columns), dtype=torch.bool)
    mask[0, 1:] = mask[1, 0] = False
    return AdapterCase(adapter_class=TableAdapter, config=config, x=torch.tensor(rows), mask=mask, **fields)


def time_series_case(**fields: Any) -> AdapterCase:
    config = TimeSeriesAdapter.Config(
        **{"num_variables": 2, "time_range": (0.0, 10.0), "num_bands": 2} | fields
    )
    mask = torch.tensor([[True, True, True, False, False], [False, True, False, True, True]])
    times = torch.tensor([[0.0, 0.5, 2.0, 7.0, 12.0], [-1.0, 3.0, 3.0, 4.0, 9.0]])
    x = torch.cat([times[..., None], torch.randn(2, 5, 2)], dim=-1)
    return AdapterCase(adapter_class=TimeSeriesAdapter, config=config, x=x, mask=mask)


# By the adapter's registered name, then by what is special about the case.
CASES: dict[str, dict[str, Callable[[], AdapterCase]]] = {
    "audio": {
        "fourier": lambda: audio_case(),
        "longer-without-coordinates": lambda: audio_case(
            num_samples=16, max_resolution=3, include_coordinates=False
        ),
        "samples-alone": lambda: audio_case(samples_per_patch=1),
        "nominal": lambda: audio_case(position_extent="nominal"),
        "nominal-stereo-shorter": lambda: audio_case(
            audio_channels=2, num_samples=8, position_extent="nominal"
        ),
        "conv": lambda: audio_case(features="conv", feature_channels=5, position_extent="nominal"),
        "conv-stereo-longer": lambda: audio_case(
            features="conv", audio_channels=2, num_samples=24, samples_per_patch=6, position_extent="nominal"
        ),
    },
    "features": {
        "set": lambda: features_case(),
        "fourier": lambda: features_case(position="fourier", max_length=5),
        "learned": lambda: features_case(position="learned"),
    },
    "frame-pair": {
        "3x3": lambda: frame_pair_case(),
        "5x5-grey-other-size": lambda: frame_pair_case(size=(5, 3), neighbourhood=5, image_channels=1),
        "pixels-without-coordinates": lambda: frame_pair_case(
            neighbourhood=1, include_coordinates=False, max_resolution=(8, 8)
        ),
        "nominal": lambda: frame_pair_case(position_extent="nominal"),
        "conv-stem": lambda: frame_pair_case(features="conv_stem", size=(9, 10)),
        "block-matching": lambda: frame_pair_case(features="conv_stem", size=(9, 10), matching_radius=2),
        "conv-stem-nominal": lambda: frame_pair_case(
            features="conv_stem",
            num_convolutions=1,
            num_residual_convolutions=2,
            size=(8, 6),
            position_extent="nominal",
        ),
        "block-matching-nominal": lambda: frame_pair_case(
            features="conv_stem", size=(8, 8), matching_radius=2, position_extent="nominal"
        ),
    },
    "image": {
        "pixels-fourier": lambda: image_case(),
        "grey-without-coordinates": lambda: image_case(image_channels=1, include_coordinates=False),
        "patches-fourier-projected": lambda: image_case(
            features="patches", patch_size=2, position_projection=5
        ),
        "patches-learned-added": lambda: image_case(
            features="patches", patch_size=2, position="learned", position_projection=12, combine="add"
        ),
        "conv1x1-learned": lambda: image_case(features="conv1x1", feature_channels=4, position="learned"),
        "conv-fourier": lambda: image_case(features="conv", feature_channels=4, size=(9, 10)),
        "conv-symmetric": lambda: image_case(
            features="conv", feature_channels=4, size=(14, 17), conv_padding="symmetric", position="learned"
        ),
        "conv-stem": lambda: image_case(features="conv_stem", feature_channels=8, size=(9, 10)),
        "conv-stem-nominal": lambda: image_case(
            features="conv_stem",
            feature_channels=4,
            num_convolutions=2,
            size=(8, 12),
            position_extent="nominal",
        ),
        "conv-stem-residual": lambda: image_case(
            features="conv_stem",
            feature_channels=4,
            num_convolutions=2,
            num_residual_convolutions=2,
            size=(8, 12),
            position_extent="nominal",
        ),
        "pixels-without-positions": lambda: image_case(position="none"),
        "patches-nominal": lambda: image_case(features="patches", patch_size=2, position_extent="nominal"),
        "learned-nominal": lambda: image_case(
            position="learned", position_extent="nominal", size=(8, 12), x_size=(4, 6)
        ),
        "conv-nominal": lambda: image_case(
            features="conv", feature_channels=4, size=(8, 12), position_extent="nominal"
        ),
    },
    "label": {
        "probabilities": lambda: label_case(torch.rand(3, 4)),
        "indices": lambda: label_case(torch.tensor([3, 1, 0]), bad_values=(-1, 4)),
    },
    "pixel-sequence": {
        "start-of-an-image": lambda: pixel_sequence_case(),
        "whole-colour-image": lambda: pixel_sequence_case(length=13, size=(2, 2, 3), dtype=torch.int32),
    },
    "point-cloud": {
        "3-axes": lambda: point_cloud_case(torch.randn(2, 5, 3)),
        "2-axes-with-features-in-a-range": lambda: point_cloud_case(
            torch.randn(2, 6, 5), num_axes=2, num_features=3, minimum=(-4, 0), maximum=(4, 1)
        ),
        "all-in-one-place": lambda: point_cloud_case(torch.ones(2, 4, 1), num_axes=1, max_resolution=(7,)),
    },
    "spectrogram": {
        "patches": lambda: spectrogram_case(),
        "patches-of-all-bands": lambda: spectrogram_case(patch_size=None),
        "patches-input-extent-longer": lambda: spectrogram_case(
            num_frames=12, position_extent="input", max_resolution=(5, 5), include_coordinates=False
        ),
        "learned": lambda: spectrogram_case(position="learned", size=(16, 6)),
        "learned-input-extent": lambda: spectrogram_case(position="learned", position_extent="input"),
        "conv": lambda: spectrogram_case(features="conv", patch_size=None, feature_channels=4, num_frames=16),
        "conv-without-positions": lambda: spectrogram_case(
            features="conv", patch_size=None, feature_channels=3, position="none"
        ),
    },
    "table": {
        "numbers": lambda: table_case(
            (("number", 0.0, 1.0), ("number", 5.0, 2.5)), [[0.3, 4.0], [-1.5, 9.0], [0.0, 5.0]]
        ),
        "categories": lambda: table_case(
            (("category", 2), ("category", 5)), [[0.0, 1.0], [1.0, 3.0]], bad_values=(-1.0, 5.0, 0.5)
        ),
        "numbers-and-categories": lambda: table_case(
            (("category", 3), ("number", -2.0, 0.5), ("category", 2), ("number", 0.0, 1.0)),
            [[2.0, -2.5, 1.0, 0.1], [0.0, -1.0, 0.0, 3.0]],
        ),
    },
    "text": {
        "int64": lambda: text_case(),
        "int32-half-length": lambda: text_case(length=6, dtype=torch.int32),
        "fourier": lambda: text_case(position="fourier", num_bands=2, max_length=6),
        "conv": lambda: text_case(features="conv", kernel_size=3),
        "sinusoidal": lambda: text_case(position="sinusoidal"),
        "no-position": lambda: text_case(position="none"),
        "learned-of-real-tokens": lambda: text_case(counts_real=True),
        "fourier-of-real-tokens": lambda: text_case(position="fourier", num_bands=2, counts_real=True),
        "conv-narrow-fourier-full-length": lambda: text_case(
            features="conv",
            embedding_channels=3,
            num_convolutions=1,
            position="fourier",
            num_bands=2,
            length=6,
            max_length=6,
        ),
    },
    "time-series": {
        "irregular": lambda: time_series_case(),
        "fine": lambda: time_series_case(max_resolution=9, time_range=(-1.0, 12.0)),
    },
    "video": {
        "space": lambda: video_case(),
        "time-too-without-coordinates": lambda: video_case(
            size=(4, 4, 2), patch_size=(2, 2, 1), include_coordinates=False, max_resolution=(2, 2, 2)
        ),
        "grey-pixels": lambda: video_case(patch_size=(1, 1, 1), image_channels=1),
        "nominal": lambda: video_case(position_extent="nominal"),
        "conv": lambda: video_case(features="conv", patch_size=(1, 4, 4), feature_channels=3, size=(2, 8, 8)),
        "conv-nominal": lambda: video_case(
            features="conv",
            patch_size=(1, 4, 4),
            feature_channels=3,
            size=(2, 8, 8),
            position_extent="nominal",
        ),
    },
}


@pytest.mark.parametrize("check", ADAPTER_CHECKS.values(), ids=ADAPTER_CHECKS)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{adapter}-{name}")
        for adapter, cases in CASES.items()
        for name, case in cases.items()
    ]
    + [pytest.param(elements_case, id="testing-elements")],
)
def test_contract(case: Callable[[], AdapterCase], check: Callable[[AdapterCase], None]) -> None:
    check(case())


def test_every_registered_adapter_has_cases() -> None:
    # Plug-ins that happen to be installed or registered by other tests answer for themselves.
    ours = {name for name in ADAPTERS.names() if ADAPTERS.get(name).__module__.startswith("perceiver_io.")}
    assert ours == set(CASES)
    for name, cases in CASES.items():
        assert {case().adapter_class for case in cases.values()} == {ADAPTERS.get(name)}


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("adapter", CASES)
def test_traces_whole(adapter: str, masked: bool) -> None:
    """Without a graph break, as `torch.compile` of a whole model needs it."""
    case = next(iter(CASES[adapter].values()))()
    module, mask = case.build().eval(), case.mask if masked else None
    torch._dynamo.reset()
    byte_array = torch.compile(module, fullgraph=True, backend="eager")(case.x, mask)
    expected = module(case.x, mask)
    torch.testing.assert_close(byte_array.values, expected.values)
    assert byte_array.grid == expected.grid
    assert (byte_array.mask is None) == (expected.mask is None)
    torch._dynamo.reset()

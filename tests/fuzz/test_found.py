"""What the fuzz tests of the computing part found, each as the plain case that it was reduced to.

The comment beside each says what happened before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fuzz.decoding_models import model
from perceiver_io.adapters import (
    AudioAdapter,
    ImageAdapter,
    LabelAdapter,
    PixelSequenceAdapter,
    PointCloudAdapter,
    TableAdapter,
    TextAdapter,
    TimeSeriesAdapter,
)
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.block_matching import matched_motion
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.byte_array import ByteArray
from perceiver_io.decoder import Encoded
from perceiver_io.drawn_points import draw_points
from perceiver_io.input_tools import bool_mask
from perceiver_io.points import Points
from perceiver_io.ragged import pad_ragged
from perceiver_io.resampler import PerceiverResampler
from tests.causal.models import small_model

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

IMAGE = ImageAdapter(ImageAdapter.Config(size=(4, 4), num_bands=1))
TEXT = TextAdapter(TextAdapter.Config(vocab_size=7, max_length=4, num_channels=4))
PIXELS = PixelSequenceAdapter(PixelSequenceAdapter.Config(vocab_size=7, size=(2, 3), num_channels=4))
LABEL = LabelAdapter(LabelAdapter.Config(num_classes=2))
CLOUD = PointCloudAdapter(PointCloudAdapter.Config(num_bands=1, scale=1e-30))
TABLE = TableAdapter(TableAdapter.Config(columns=(("number", 5.0, 1e-40),), num_channels=4))
SERIES = TimeSeriesAdapter(TimeSeriesAdapter.Config(num_variables=1, time_range=(0.0, 1.0), num_bands=1))
LOUD = AudioAdapter(AudioAdapter.Config(num_samples=4, samples_per_patch=2, num_bands=1, scale=1e30))
PICTURE, MASK = torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
IDS, SEEN = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)


def image_model(**arguments: Any) -> Any:
    """Decodes an encoded image."""
    encoded = model("image").encode({"image": torch.zeros(1, 1, 4, 6)})
    return model("image").decode(arguments.pop("encoded", encoded), **arguments)


def causal(*args: Any, **arguments: Any) -> Any:
    return small_model("rotary")(*args, **arguments)


REFUSED: dict[str, Callable[[], Any]] = {
    # AttributeError, TypeError or RuntimeError: only whole models checked that inputs are plain tensors.
    "a list": lambda: IMAGE(PICTURE.tolist()),
    "an array": lambda: IMAGE(PICTURE.numpy()),
    "nothing": lambda: LABEL(None),  # type: ignore[arg-type]
    "sparse": lambda: IMAGE(PICTURE.to_sparse()),
    "nested": lambda: TEXT(torch.nested.nested_tensor([IDS[0], IDS[1]])),
    "a mask that is a list": lambda: IMAGE(PICTURE, MASK.tolist()),
    "a mask that is sparse": lambda: IMAGE(PICTURE, MASK.to_sparse()),
    "a mask that is nested": lambda: bool_mask(torch.nested.nested_tensor(list(SEEN)), name="mask"),
    "a sample that is a list": lambda: pad_ragged([torch.ones(2), [1.0, 2.0]]),  # type: ignore[list-item]
    "known points that are a list": lambda: draw_points([[True]], 1),  # type: ignore[arg-type]
    "values that are a list": lambda: ByteArray(values=[[[1.0]]], num_content_channels=1),  # type: ignore[arg-type]
    # NotImplementedError: nothing is computed in 8 bits.
    "8 bits": lambda: IMAGE(PICTURE.to(torch.float8_e4m3fn), MASK),
    # Taken for ids, but only with a mask, which made integers of them.
    "true and false for tokens": lambda: TEXT(SEEN, SEEN),
    "true and false for pixels": lambda: PIXELS(SEEN, SEEN),
    "true and false for a label": lambda: LABEL(SEEN[0], SEEN[0]),
    # Answered with elements of 1e30 and more, or infinite ones, of which the encoder made NaN.
    "a cloud that is scaled up": lambda: CLOUD(torch.ones(1, 2, 3)),
    "a row that is scaled up": lambda: TABLE(torch.ones(1, 1)),
    "a sound that is scaled up": lambda: LOUD(torch.ones(1, 4)),
    "a late time": lambda: SERIES(torch.tensor([[[1e20, 0.0]]])),
    "a cloud beyond half precision": lambda: PointCloudAdapter(PointCloudAdapter.Config(scale=1e-3))(
        torch.full((1, 1, 3), 100.0, dtype=torch.float16)
    ),
    "values that are integers": lambda: ByteArray(values=IDS[None], num_content_channels=1),
    # "RuntimeError: Boolean value of Tensor is ambiguous", "'int' object is not iterable", "not a mapping".
    "a tensor in place of masks": lambda: model("image")({"image": torch.zeros(1, 1, 4, 6)}, torch.ones(2)),
    "names that are numbers": lambda: model("image")({5: 1, "z": 2}),  # type: ignore[dict-item]
    "a tensor in place of points": lambda: image_model(points=torch.ones(2)),
    "a number in place of grids": lambda: image_model(grids=5),
    "a number in place of outputs": lambda: image_model(outputs=5),
    "outputs that are lists": lambda: image_model(outputs=[["label"]]),
    "text in place of conditions": lambda: causal(IDS, conditions="x"),
    # "'<' not supported between …", or taken: 1.5 queries at once, a grid of NaN, one of True.
    "a chunk of text": lambda: image_model(chunk_size="3"),
    "a chunk and a half": lambda: image_model(chunk_size=1.5),
    "a budget of many": lambda: image_model(memory_budget=torch.ones(2)),
    "a grid of None": lambda: image_model(grids={"fourier": (2, None)}),
    "a grid of text": lambda: image_model(grids={"fourier": "23"}),
    "a grid of True": lambda: image_model(grids={"fourier": (2, True)}),
    "maps of text": lambda: model("image").attention_maps({"image": torch.zeros(1, 1, 4, 6)}, latents=["x"]),  # type: ignore[list-item]
    "maps of a half": lambda: model("image").attention_maps(
        {"image": torch.zeros(1, 1, 4, 6)}, latents=[0.5]
    ),  # type: ignore[list-item]
    "latents by name": lambda: causal(IDS, num_latents="x"),
    "a schedule of text": lambda: small_model("rotary").latent_schedule(prompt_latents="x"),  # type: ignore[arg-type]
    "so many points": lambda: draw_points(SEEN, "2"),  # type: ignore[arg-type]
    "dropout of text": lambda: PerceiverResampler(4, 2, 1, num_heads=1, dropout="0.1"),  # type: ignore[arg-type]
    "no channels": lambda: PerceiverResampler(None, 2, 1, num_heads=1),  # type: ignore[arg-type]
    # AttributeError, or layers that complain of shapes.
    "no encoded batch": lambda: image_model(encoded=torch.ones(1, 3, 8)),
    "latents of another model": lambda: image_model(encoded=Encoded(latents=torch.ones(1, 3, 7))),
    # Taken: of -1 logits all but the first were kept, and rotary models took any positions.
    "less than no logits": lambda: causal(IDS, logits_to_keep=-1),
    "positions that are true": lambda: causal(IDS, position_ids=SEEN),
    "positions below 0": lambda: causal(IDS, position_ids=IDS - 1),
    "labels that are text": lambda: causal(IDS, labels="x"),
    # TypeError, NotImplementedError, OverflowError.
    "8 bits for a picture": lambda: PerceiverIOImageProcessor().prepare(PICTURE[0].to(torch.float8_e4m3fn)),
    "no memory for a picture": lambda: PerceiverIOImageProcessor().prepare(PICTURE[0].byte().to("meta")),
    "no memory for a sound": lambda: PerceiverIOFeatureExtractor().prepare(
        torch.ones(9, device="meta"), sampling_rate=16000
    ),
    "a sparse cloud": lambda: PointCloudProcessor().prepare(torch.ones(2, 3).to_sparse()),
    "an integer beyond floats": lambda: TableProcessor.fitted([{"a": 1}, {"a": 2}]).prepare({"a": 10**400}),
    # NaN, infinities: squares that overflow.
    "a loud sound": lambda: PerceiverIOFeatureExtractor(features="log-mel").prepare(
        torch.full((9000,), 1e20), sampling_rate=16000
    ),
    "a cloud beyond float32": lambda: PointCloudProcessor(normalize="none").prepare([[1e300, 0.0, 0.0]]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_is_refused(case: str) -> None:
    with pytest.raises(ValueError) as error:
        REFUSED[case]()
    assert 10 < len(str(error.value)) < 600


def test_views_of_negatives_are_tensors_like_others() -> None:
    """`new_tensor` of one raises "DispatchKey Negative doesn't correspond to a device"."""
    x = torch.randn(2, 3, 3)
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg() and torch.equal(view, x)
    for adapter, part in (
        (PointCloudAdapter(PointCloudAdapter.Config(num_bands=1)), slice(None)),
        (TableAdapter(TableAdapter.Config(columns=(("number", 0.0, 1.0),) * 3, num_channels=4)), 0),
    ):
        rows = (slice(None), part) if isinstance(part, int) else part
        assert torch.equal(adapter(view[rows]).values, adapter(x[rows]).values)


def test_what_a_row_lacks_has_no_gradient_of_its_scale() -> None:
    """A number that is missing counted as 0, which may be infinitely many scales from the mean."""
    rows = torch.tensor([[math.nan], [5.0]])
    TABLE.zero_grad()
    TABLE(rows).values.sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in TABLE.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blocks_are_matched_in_half_precision(dtype: torch.dtype) -> None:
    """Differences were rounded by as much as tells one shift from another: found motion was noise."""
    generator = torch.Generator().manual_seed(0)
    first = (torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1).to(dtype)
    second = (torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1).to(dtype)  # nothing fits well
    exact, half = (
        matched_motion(first.float(), second.float(), radius=2),
        matched_motion(first, second, radius=2),
    )
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < 0.02


def test_points_may_have_a_gradient() -> None:
    """Their bounds were looked at as numbers, of which PyTorch warned."""
    points = (torch.rand(4, 2) * 2 - 1).requires_grad_()
    assert Points.parse(points, (3, 4), name="x").num_points == 4


def test_sizes_of_numpy_are_sizes() -> None:
    """A comparison of NumPy was no bool to a check of symbols."""
    import numpy as np

    grid = (np.int64(2), np.int64(3))
    found = image_model(grids={"learned": grid}, chunk_size=np.int64(2))["learned"]
    assert torch.equal(found, image_model(grids={"learned": (2, 3)}, chunk_size=2)["learned"])

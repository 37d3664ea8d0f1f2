"""Point clouds to one place and size: checked by geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io.adapters.cloud_processor import PointCloudProcessor


def cloud(num_points: int = 50, columns: int = 3) -> torch.Tensor:
    return torch.randn(num_points, columns, generator=torch.Generator().manual_seed(0))


def test_place_and_size_do_not_matter() -> None:
    processor = PointCloudProcessor()
    there = processor.prepare(cloud())
    assert there.dtype == torch.float32
    torch.testing.assert_close(there.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert float(there.norm(dim=1).max()) == pytest.approx(1)
    moved = cloud().double() * 7 + torch.tensor([5e6, -3e5, 40])
    torch.testing.assert_close(processor.prepare(moved), there)
    plain = PointCloudProcessor(normalize="none").prepare(cloud())
    assert torch.equal(plain, cloud())


def test_features_are_left_as_they_are() -> None:
    points = cloud(columns=6)
    prepared = PointCloudProcessor(num_features=2).prepare(points)
    assert torch.equal(prepared[:, 3:], points[:, 3:5])
    flat = PointCloudProcessor(num_coordinates=2, normalize="none").prepare(points)
    assert torch.equal(flat, points[:, :2])
    with pytest.raises(ValueError, match="3 columns, expected 3 coordinates and 1 features"):
        PointCloudProcessor(num_features=1).prepare(cloud())


def test_points_in_one_place_or_plane_are_fine() -> None:
    processor = PointCloudProcessor()
    assert torch.equal(processor.prepare([[2.0, 3.0, 4.0]] * 5), torch.zeros(5, 3))
    assert torch.equal(processor.prepare(np.ones((1, 3))), torch.zeros(1, 3))
    plane = cloud()
    plane[:, 2] = 4
    prepared = processor.prepare(plane)
    assert prepared.isfinite().all() and not prepared[:, 2].any()


def test_too_many_points_are_chosen_from_evenly_or_at_random() -> None:
    processor = PointCloudProcessor(max_points=10, normalize="none")
    points = cloud()
    assert torch.equal(processor.prepare(points), points[::5])
    drawn = processor.prepare(points, generator=torch.Generator().manual_seed(1))
    rows = {tuple(row) for row in points.tolist()}
    assert len(drawn) == 10 and {tuple(row) for row in drawn.tolist()} < rows
    assert torch.equal(drawn, processor.prepare(points, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, processor.prepare(points, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(processor.prepare(points[:7]), points[:7])
    assert torch.equal(processor.prepare(points[:13])[[0, -1]], points[[0, 11]])


def test_batches_are_padded_and_masked() -> None:
    processor = PointCloudProcessor(normalize="none")
    batch, mask = processor.collate([cloud(4), None, cloud(6)])
    assert batch.shape == (3, 6, 3) and mask is not None and mask.sum(1).tolist() == [4, 0, 6]
    assert torch.equal(batch[0, :4], cloud(4)) and not batch[0, 4:].any()


def test_files_are_clouds_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", cloud().numpy())
    processor = PointCloudProcessor()
    for value in (tmp_path / "a.npy", str(tmp_path / "a.npy"), (tmp_path / "a.npy").read_bytes()):
        assert torch.equal(processor.prepare(value), processor.prepare(cloud()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, 3)), "no points"),
        ([], r"\(0,\)"),
        (np.zeros(3), "expected real numbers"),
        (np.full((2, 3), np.nan), "Point 0 of the cloud is NaN"),
        ([[0.0, 1.0, 2.0], [0.0, 1.0]], "expected a point cloud"),
        (None, "expected a point cloud"),
    ],
)
def test_what_is_no_cloud_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointCloudProcessor().prepare(value)


def test_settings_are_saved_and_strict() -> None:
    processor = PointCloudProcessor(num_features=3, max_points=9)
    assert PointCloudProcessor.from_dict(processor.to_dict()) == processor
    with pytest.raises(ValueError, match="unknown keys"):
        PointCloudProcessor.from_dict({"points": 3})
    with pytest.raises(ValueError, match="0 or more"):
        PointCloudProcessor(num_features=-1)

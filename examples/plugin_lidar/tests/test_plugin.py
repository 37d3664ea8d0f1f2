"""What the plug-in promises: pytest, with the plug-in installed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from perceiver_io_lidar.adapter import LidarAdapter
from perceiver_io_lidar.scenes import HEIGHT, KINDS, sweep
from perceiver_io_lidar.task import LidarClassificationTask

import perceiver_io as pio
from perceiver_io.testing import ADAPTER_CHECKS, AdapterCase
from perceiver_io.testing.tasks import TASK_CHECKS, TaskCase


@pytest.mark.parametrize("check", ADAPTER_CHECKS.values(), ids=ADAPTER_CHECKS)
def test_adapter(check):
    mask = torch.tensor([[True, True, True, False], [True, False, True, True]])
    config = LidarAdapter.Config(num_bands=2)
    x = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    check(AdapterCase(adapter_class=LidarAdapter, config=config, x=x, mask=mask))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("street")
    np.save(folder / "sweep.npy", sweep("car", np.random.default_rng(1)))
    settings = {
        "dataset": "street",
        "variant": "nano",
        "batch_size": 8,
        "train_fraction": 0.05,
        "label_smoothing": 0.0,
        "lidar": {"scaling": 0.0, "jitter": 0.0, "drop_points": 0.0},
        "model": {"encoder": {"dropout": 0.0, "num_latents": 4}},
    }
    inputs = [str(folder / "sweep.npy")]
    return TaskCase(task_class=LidarClassificationTask, settings=settings, inputs=inputs, folder=folder)


@pytest.mark.parametrize("check", TASK_CHECKS.values(), ids=TASK_CHECKS)
def test_task(check, case):
    check(case)


@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_on_the_ground_or_where_the_object_may_be(kind):
    points = sweep(kind, np.random.default_rng(2))
    assert points.shape[1] == 4 and np.isfinite(points).all()
    assert 0 < points[:, 3].min() and points[:, 3].max() < 1
    height = points[:, 2] + HEIGHT
    radius = max(np.hypot(length, width) / 2 for length, width, _, _ in KINDS[kind])
    above = points[height > 0.1]
    assert len(above) and above[:, 2].max() + HEIGHT < max(box[3] for box in KINDS[kind]) + 0.05
    assert height.min() > -0.05 and np.ptp(above[:, :2], axis=0).max() < 2 * radius + 0.1


def test_a_saved_model_says_what_it_needs(tmp_path: Path):
    config = pio.PerceiverIOConfig(
        inputs={"lidar": LidarAdapter.Config()},
        encoder=pio.EncoderConfig(num_latents=2, latent_channels=8, num_self_attention_heads=2),
        outputs={"label": pio.ClassificationDecoder.Config(num_classes=3)},
    )
    pio.PerceiverIO(config).save_pretrained(tmp_path)
    assert '"provided_by": "perceiver-io-lidar 0.1.0"' in (tmp_path / "config.json").read_text()

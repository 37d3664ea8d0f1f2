"""What all tests share: no network, and the same random numbers whatever runs before."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tests' tensors are too small to share, and pytest-xdist fills the cores
settings.register_profile("perceiver-io", deadline=None, derandomize=True, database=None)
settings.load_profile("perceiver-io")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)

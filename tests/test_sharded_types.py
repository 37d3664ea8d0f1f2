"""The model computes in one type, whatever its inputs say: converted, under autocast, or sharded (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from perceiver_io import DenseDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter

INDICES = torch.tensor([2, 0])


def model(*inputs: str) -> PerceiverIO:
    """A model whose inputs may all be integers, and which makes queries of them."""
    known = {
        "image": ImageAdapter.Config(size=(4, 6), num_bands=2, features="conv1x1", feature_channels=4),
        "label": LabelAdapter.Config(num_classes=3),
    }
    return PerceiverIO(
        PerceiverIOConfig(
            inputs={name: known[name] for name in inputs},
            encoder=EncoderConfig(
                num_latents=3, latent_channels=8, num_self_attends_per_block=1, num_self_attention_heads=2
            ),
            outputs={
                "y": DenseDecoder.Config(
                    output_channels=2,
                    query_input="label",
                    query_input_channels=3,
                    num_bands=2,
                    max_resolution=(4,),
                )
            },
        )
    )


def batch(*inputs: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    known = {"image": torch.randn(2, 3, 4, 6).to(dtype), "label": INDICES}
    return {name: known[name] for name in inputs}


def encoded_types(perceiver: PerceiverIO) -> list[torch.dtype]:
    """Fills with the type of the elements that the encoder attends to, at each pass."""
    seen: list[torch.dtype] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[1].dtype)

    perceiver.encoder.cross_attends[0].register_forward_pre_hook(record)
    return seen


@pytest.mark.parametrize("inputs", [("label",), ("image", "label")], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_indices_become_elements_of_the_models_type(dtype: torch.dtype, inputs: tuple[str, ...]) -> None:
    perceiver = model(*inputs).to(dtype)
    seen = encoded_types(perceiver)
    encoded = perceiver.encode(batch(*inputs, dtype=dtype))
    assert seen == [dtype]
    assert {part.values.dtype for part in encoded.byte_arrays.values()} == {dtype}
    assert perceiver.decode(encoded)["y"].dtype == dtype


@pytest.mark.parametrize("inputs", [("label",), ("image", "label")], ids=str)
def test_autocast_chooses_the_types_of_products(inputs: tuple[str, ...]) -> None:
    perceiver, given = model(*inputs).eval(), batch(*inputs)
    expected = perceiver(given)["y"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = perceiver(given)["y"]
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("sharded", ["whole", "blocks", "encoder", "adapters"])
def test_sharded_models_compute_in_the_type_of_their_policy(sharded: str, mesh: DeviceMesh) -> None:
    perceiver = model("image", "label")
    parts = {
        "whole": [],
        "blocks": perceiver.encoder.blocks,
        "encoder": [perceiver.encoder],
        "adapters": [perceiver.adapters["image"], perceiver.packer],
    }
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for part in [*parts[sharded], perceiver]:
        fully_shard(part, mesh=mesh, mp_policy=policy)
    seen = encoded_types(perceiver)
    for inputs in (("image", "label"), ("label",)):
        perceiver(batch(*inputs))["y"].float().sum().backward()
    assert seen == [torch.bfloat16] * 2
    assert all(parameter.grad is not None for parameter in perceiver.parameters())

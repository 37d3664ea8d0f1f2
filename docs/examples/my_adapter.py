"""A new modality from nothing: LiDAR scans, classified by shape. Run it: python docs/examples/my_adapter.py.

Shape legend: B batch, M points, C channels of the byte array.
"""

# --8<-- [start:imports]
from __future__ import annotations

import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io.input_tools import (
    beside,
    check_finite,
    check_floating,
    check_mask,
    check_positive,
    check_shape,
)
from perceiver_io.position import fourier_features
from perceiver_io.testing import AdapterCase, check_adapter

# --8<-- [end:imports]


# --8<-- [start:config]
@pio.register_adapter("lidar")
class LidarAdapter(pio.InputAdapter):
    """Turns LiDAR scans into byte arrays: how strongly a point reflects, beside where it lies.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(pio.ComponentConfig):
        """Settings of the adapter.

        Attributes:
            max_range: Distance in metres that becomes the coordinate 1.
            num_bands: Frequencies per axis of the Fourier positions.
            resolution: How many cells to tell apart along an axis; sets the highest frequency.
        """

        max_range: float = 50.0
        num_bands: int = 8
        resolution: int = 32

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_bands", "resolution")
            if self.max_range <= 0:
                raise ValueError(f"max_range must be a positive distance in metres, got {self.max_range}.")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_content_channels = 1  # the intensity
        self.num_channels = 1 + 3 * (2 * config.num_bands + 1)  # and x, y, z with their sines and cosines

    # --8<-- [end:config]

    # --8<-- [start:forward]
    def forward(self, x: Tensor, mask: Tensor | None = None) -> pio.ByteArray:
        """Makes one element of each point.

        Args:
            x: (B, M, 4) points: x, y and z in metres, intensity from 0 to 1.
            mask: (B, M) bool, True where there is a point.

        Raises:
            ValueError: The shape or type does not fit, the batch is empty, or a real point is not finite.
        """
        check_shape(x, ("batch", "points", 4), name="Scans", advice="A point is x, y, z and intensity.")
        check_floating(x, name="Scans", advice="Distances are in metres: convert them with `.float()`.")
        check_mask(mask, x.shape[:2], x=x, name="scans")
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0)  # what is masked may be anything, even NaN
        check_finite(x, name="The batch of scans")
        position = fourier_features(
            x[..., :3] / self.config.max_range,
            num_bands=self.config.num_bands,
            max_resolution=(self.config.resolution,) * 3,
        )
        return pio.ByteArray(
            values=beside(x[..., 3:], position),  # content first
            mask=mask,
            grid=None,  # points are a set: they have no rows and columns
            num_content_channels=self.num_content_channels,
        )

    # --8<-- [end:forward]


# --8<-- [start:data]
SHAPES = ("ball", "pole", "wall")


def make_scans(num_scans: int, *, num_points: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Draws noisy balls, poles and walls, each scan with another number of points; returns scans, mask, labels."""
    labels = torch.randint(len(SHAPES), (num_scans,))
    around, up, side = torch.rand(3, num_scans, num_points) * 2 - 1
    ball = torch.nn.functional.normalize(torch.randn(num_scans, num_points, 3), dim=-1)
    pole = torch.stack([0.3 * (torch.pi * around).cos(), 0.3 * (torch.pi * around).sin(), up], dim=-1)
    wall = torch.stack([torch.zeros_like(up), side, up], dim=-1)
    surfaces = torch.stack([ball, pole, wall])[labels, torch.arange(num_scans)]
    points = 2 * surfaces + 0.05 * torch.randn_like(surfaces)
    scans = torch.cat([points, torch.rand(num_scans, num_points, 1)], dim=-1)
    counts = torch.randint(num_points // 2, num_points + 1, (num_scans, 1))
    return scans, torch.arange(num_points) < counts, labels


# --8<-- [end:data]


# --8<-- [start:model]
def build_model() -> pio.PerceiverIO:
    """Puts the adapter, an encoder and the classification decoder together."""
    config = pio.PerceiverIOConfig(
        inputs={"scan": LidarAdapter.Config(max_range=4.0)},
        encoder=pio.EncoderConfig(
            num_latents=8,
            latent_channels=32,
            num_self_attends_per_block=2,
            num_self_attention_heads=4,
        ),
        outputs={"shape": pio.ClassificationDecoder.Config(num_classes=len(SHAPES))},
        id2label=dict(enumerate(SHAPES)),
    )
    return pio.PerceiverIO(config)


# --8<-- [end:model]


# --8<-- [start:train]
def train(model: pio.PerceiverIO, *, num_steps: int = 80) -> None:
    """Trains with a plain PyTorch loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(num_steps):
        scans, mask, labels = make_scans(32)
        logits = model({"scan": scans}, masks={"scan": mask})["shape"]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: pio.PerceiverIO, scans: Tensor, mask: Tensor, labels: Tensor) -> float:
    """Returns the part of the scans whose shape the model names."""
    logits = model.eval()({"scan": scans}, masks={"scan": mask})["shape"]
    return (logits.argmax(dim=-1) == labels).float().mean().item()


# --8<-- [end:train]


# --8<-- [start:contract]
def check_contract() -> None:
    """Runs the contract suite on the adapter: every promise that the rest of the toolkit relies on."""
    scans, _, _ = make_scans(2, num_points=5)
    mask = torch.tensor([[True, True, True, False, False], [True, True, False, True, True]])
    check_adapter(
        AdapterCase(
            adapter_class=LidarAdapter,
            config=LidarAdapter.Config(max_range=4.0, num_bands=2, resolution=8),
            x=scans,
            mask=mask,
        )
    )


# --8<-- [end:contract]


# --8<-- [start:main]
def main() -> None:
    """Checks the adapter, trains with it, saves, and loads again."""
    torch.manual_seed(0)
    check_contract()
    print("the contract holds")

    model = build_model()
    held_out = make_scans(200)
    print(f"accuracy before training: {accuracy(model, *held_out):.0%}")
    train(model)
    print(f"accuracy after training:  {accuracy(model, *held_out):.0%}")

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # config.json and model.safetensors
        twin = pio.from_pretrained(folder)
    scans, mask, _ = held_out
    before, after = (one.eval()({"scan": scans}, {"scan": mask})["shape"] for one in (model, twin))
    assert torch.equal(before, after)
    print("the loaded model gives the same logits")


if __name__ == "__main__":
    main()
# --8<-- [end:main]

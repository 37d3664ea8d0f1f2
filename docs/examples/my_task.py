"""A task of one's own: the temperature where nobody measures, from weather stations scattered around.

    perceiver-io train weather-stations --output-dir runs/weather

Shape legend: B batch, M stations, C channels of the byte array.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io import input_tools as tools
from perceiver_io.cli import main
from perceiver_io.data import Splits, split_rows
from perceiver_io.position import fourier_features
from perceiver_io.running import TrainingRecipe
from perceiver_io.tasks.regression import RegressionTask


# --8<-- [start:adapter]
@pio.register_adapter("weather-stations")
class StationsAdapter(pio.InputAdapter):
    """Turns stations, (B, M, 3) of x and y in [-1, 1] and the temperature, into a set of M elements."""

    @dataclass(frozen=True, kw_only=True)
    class Config(pio.ComponentConfig):
        """How finely places are told apart along each axis."""

        num_bands: int = 6
        resolution: int = 12

        def __post_init__(self) -> None:
            super().__post_init__()
            tools.check_positive(self, "num_bands", "resolution")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_content_channels = 1
        self.num_channels = 1 + 2 * (2 * config.num_bands + 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> pio.ByteArray:
        """Makes one element of each station; the mask is (B, M), True where there is one."""
        tools.check_shape(x, ("batch", "stations", 3), name="Stations", advice="Give x, y and temperature.")
        tools.check_floating(x, name="Stations", advice="Convert them with .float().")
        tools.check_mask(mask, x.shape[:2], x=x, name="stations")
        x = x if mask is None else torch.where(mask[..., None], x, 0)
        tools.check_finite(x, name="The batch of stations")
        c = self.config
        place_BMC = fourier_features(x[..., :2], num_bands=c.num_bands, max_resolution=(c.resolution,) * 2)
        content_BM1 = (x[..., 2:] - 12) / 10  # of about unit variance
        return pio.ByteArray(values=tools.beside(content_BM1, place_BMC), mask=mask, num_content_channels=1)


# --8<-- [end:adapter]


# --8<-- [start:recipe]
@dataclass(kw_only=True)
class StationsRecipe(TrainingRecipe):
    """What a run is made of, besides what every run is made of."""

    num_maps: int = field(default=5000, metadata={"help": "How many weather maps are made up."})
    num_epochs: int = 12
    num_threads: int | None = 1
    best_metric: str = "mae"


# --8<-- [end:recipe]


# --8<-- [start:data]
def made_up_maps(number: int) -> list[dict[str, Any]]:
    """Makes smooth fields, each measured at 8 to 24 places; what is asked for is the temperature at (0, 0)."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for count in torch.randint(8, 25, (number,), generator=generator).tolist():
        waves, phases = torch.randn(2, 3, generator=generator), math.tau * torch.rand(3, generator=generator)
        places = torch.rand(count, 2, generator=generator) * 2 - 1
        celsius = 12 + 5 * (places @ waves + phases).sin().sum(1, keepdim=True)
        stations = torch.cat([places, celsius], dim=1)
        rows.append({"stations": stations, "celsius": 12 + 5 * phases.sin().sum().item()})
    return rows


# --8<-- [end:data]


# --8<-- [start:task]
@pio.register_task("weather-stations")
class WeatherStationsTask(RegressionTask):
    """The temperature at a place, from stations around it."""

    recipe_class = StationsRecipe

    def data(self, recipe: StationsRecipe) -> Splits:
        """Makes the maps up, and splits them."""
        return split_rows(made_up_maps(recipe.num_maps), recipe, seed=recipe.seed)

    def config(self, recipe: StationsRecipe, data: Splits) -> pio.PerceiverIOConfig:
        """A small model, with what the recipe sets laid over it."""
        settings = recipe.model_settings
        encoder = {"num_latents": 16, "latent_channels": 64, "num_self_attends_per_block": 2}
        encoder |= {"num_cross_attention_heads": 4, "cross_attention_qk_channels": 64}
        celsius = {"offset": (12.0,), "scale": (6.0,), **settings.output("celsius")}
        return pio.PerceiverIOConfig(
            inputs={"stations": StationsAdapter.Config.from_dict(settings.input("stations"))},
            encoder=pio.EncoderConfig.from_dict({**encoder, **settings.encoder}),
            outputs={"celsius": pio.RegressionDecoder.Config.from_dict(celsius)},
        )

    def collate(self, rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
        """Pads the stations of each map to the most of the batch, and masks the padding."""
        stations = [row["stations"] for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(stations, batch_first=True)
        real = torch.arange(padded.shape[1]) < torch.tensor([[len(one)] for one in stations])
        batch = {"inputs": {"stations": padded}, "masks": {"stations": real}}
        known = [row["celsius"] for row in rows if "celsius" in row]
        return {**batch, "labels": torch.tensor(known)} if known else batch

    def read(self, file: str) -> dict[str, Any]:
        """Reads one map: a JSON list of [x, y, temperature]."""
        try:
            stations = torch.tensor(json.loads(Path(file).read_text()), dtype=torch.float32)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} must be a JSON list of [x, y, temperature], got: {error}.") from error
        tools.check_shape(stations, ("stations", 3), name="Stations", advice="Give x, y and temperature.")
        return {"stations": stations}


# --8<-- [end:task]

if __name__ == "__main__":
    raise SystemExit(main())

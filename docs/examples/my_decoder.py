"""A decoder that uses an input beside the latents, and says so. Run it: python docs/examples/my_decoder.py.

Shape legend: B batch, N latents, D latent channels, V numbers.
"""

# --8<-- [start:decoder]
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io.testing import DecoderCase, check_decoder


@pio.register_decoder("mean")
class MeanDecoder(pio.Decoder):
    """Numbers out of the mean latent and, if wanted, the mean element of an input.

    Args:
        config: The settings.
        parts: D.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(pio.DecoderConfig):
        """Settings of the decoder.

        Attributes:
            num_outputs: V.
            context: Input whose mean element goes in, too; none if None.
            context_channels: How many of the first channels of its elements.
        """

        num_outputs: int
        context: str | None = None
        context_channels: int = 0

        def needs(self) -> pio.DecoderNeeds:
            """Returns the input that is named here; the model checks that it is there and wide enough."""
            return pio.DecoderNeeds(
                elements={} if self.context is None else {self.context: self.context_channels}
            )

    def __init__(self, config: Config, parts: pio.DecoderParts) -> None:
        super().__init__()
        self.config = config
        self.output = torch.nn.Linear(parts.latent_channels + config.context_channels, config.num_outputs)

    def forward(self, encoded: pio.Encoded, request: pio.DecoderRequest = pio.WHOLE_OUTPUT) -> Tensor:
        """Returns (B, V)."""
        x_BD = encoded.latents.mean(dim=1)
        if self.config.context is not None:
            values_BMC = encoded.byte_arrays[self.config.context].values
            x_BD = torch.cat([x_BD, values_BMC[..., : self.config.context_channels].mean(dim=1)], dim=-1)
        return self.output(x_BD)


# --8<-- [end:decoder]


def main() -> None:
    """Runs the contract suite on it: a decoder that uses what it does not declare fails."""
    torch.manual_seed(0)
    image = pio.ByteArray(values=torch.randn(2, 6, 5), grid=(2, 3), num_content_channels=3)
    check_decoder(
        DecoderCase(
            decoder_class=MeanDecoder,
            config=MeanDecoder.Config(num_outputs=4, context="image", context_channels=3),
            encoded=pio.Encoded(latents=torch.randn(2, 3, 8), byte_arrays={"image": image}),
            output_shape=(4,),
        )
    )
    print("the contract holds")


if __name__ == "__main__":
    main()

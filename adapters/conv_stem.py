"""Several convolutions in front of an image, each of which halves it.

Shape legend: B batch, F image channels, H height, W width, C feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_io.input_tools import element_mask

__all__ = ["STEM_CHANNELS", "ConvStem", "check_widths"]

STEM_CHANNELS = 128
"""Width of the last convolution unless another is given."""


def check_widths(num_channels: int, *, num_convolutions: int) -> None:
    """Checks that a width can be halved for each convolution before the last.

    Raises:
        ValueError: It cannot.
    """
    factor = 2 ** (num_convolutions - 1)
    if num_channels % factor:
        raise ValueError(
            f"feature_channels {num_channels} cannot be halved {num_convolutions - 1} times, as {num_convolutions} "
            f"convolutions need it. Choose a multiple of {factor}."
        )


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2, each with batch norm and ReLU, each twice as wide as the one before.

    Nothing in the Perceiver papers: Xiao et al., 2021, "Early convolutions help transformers see better". A few hundred
    images are enough to learn these, where attention to pixels or patches learns them by heart. Residual ones that
    halve nothing may follow: then elements see more of what is around them, and are as many as before.

    Args:
        image_channels: F.
        num_channels: C, the width of the last one; a multiple of 2 to the power of the others' number.
        num_convolutions: How many halve the image.
        num_residual: How many follow that do not.
    """

    def __init__(
        self, image_channels: int, num_channels: int, *, num_convolutions: int, num_residual: int = 0
    ) -> None:
        super().__init__()
        widths = [num_channels >> halving for halving in reversed(range(num_convolutions))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)
            for before, after in zip([image_channels, *widths], widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.residual_convolutions = nn.ModuleList(
            nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1, bias=False)
            for _ in range(num_residual)
        )
        self.residual_norms = nn.ModuleList(nn.BatchNorm2d(num_channels) for _ in range(num_residual))

    def forward(self, x_BFHW: Tensor, mask_BHW: Tensor | None = None) -> Tensor:
        """(B, F, H, W) -> (B, C, rows, columns), with the rows and columns of `ImageAdapter.Config.grid`.

        Args:
            x_BFHW: The images, zero where they are masked.
            mask_BHW: True where a pixel is real. What a convolution makes of masked pixels, the next one does not see.
        """
        x_BCHW = x_BFHW
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BCHW = norm(convolution(x_BCHW)).relu()
            if mask_BHW is not None:
                mask_BHW = element_mask(mask_BHW, x_BCHW.shape[2:]).unflatten(1, x_BCHW.shape[2:])
                x_BCHW = torch.where(mask_BHW[:, None], x_BCHW, 0)
        for convolution, norm in zip(self.residual_convolutions, self.residual_norms, strict=True):
            x_BCHW = x_BCHW + norm(convolution(x_BCHW)).relu()
            if mask_BHW is not None:
                x_BCHW = torch.where(mask_BHW[:, None], x_BCHW, 0)
        return x_BCHW

"""The convolution and the max-pool in front of images and of frames, which make one element of 4x4 pixels.

Shape legend: B batch, F image channels, H height, W width, C feature channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_io.input_tools import element_mask

__all__ = ["DownsamplingConvolution"]


class DownsamplingConvolution(nn.Module):
    """7x7 convolution of stride 2, batch norm, ReLU, 3x3 max-pool of stride 2, as the original release has it.

    Args:
        image_channels: F.
        num_channels: C.
        padding: "same", both pad as TensorFlow's 'SAME': the odd pixel of padding goes to the right and the bottom.
            "symmetric", the convolution by 3 on every side and the max-pool not at all.
    """

    def __init__(
        self, image_channels: int, num_channels: int, *, padding: Literal["same", "symmetric"] = "same"
    ) -> None:
        super().__init__()
        self.padding = padding
        self.convolution = nn.Conv2d(image_channels, num_channels, kernel_size=7, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(num_channels, eps=1e-5)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def forward(self, x_BFHW: Tensor, mask_BHW: Tensor | None = None) -> Tensor:
        """(B, F, H, W) -> (B, C, rows, columns), with the rows and columns of `ImageAdapter.Config.grid`.

        Args:
            x_BFHW: The images, zero where they are masked.
            mask_BHW: True where a pixel is real. With "same", what the convolution makes of masked pixels is not
                pooled; with "symmetric" it is, as `transformers` has it.
        """
        same = self.padding == "same"
        padded_BFHW = (
            _pad_same(x_BFHW, kernel_size=7, stride=2) if same else nn.functional.pad(x_BFHW, [3] * 4)
        )
        x_BCHW = self.norm(self.convolution(padded_BFHW)).relu()
        if same and mask_BHW is not None:
            rows_columns = x_BCHW.shape[2:]
            real_BHW = element_mask(mask_BHW, rows_columns).unflatten(1, rows_columns)
            x_BCHW = torch.where(real_BHW[:, None], x_BCHW, 0)
        # After the ReLU zeros are the least value, so that padding with them leaves every maximum as it is.
        return self.pool(_pad_same(x_BCHW, kernel_size=3, stride=2) if same else x_BCHW)


def _pad_same(x_BCHW: Tensor, *, kernel_size: int, stride: int) -> Tensor:
    padding: list[int] = []
    for size in reversed(x_BCHW.shape[2:]):
        total = kernel_size - stride + -size % stride
        padding += [total // 2, total - total // 2]
    return nn.functional.pad(x_BCHW, padding)

"""Labels: a class, or the probabilities of all classes, as one element.

Shape legend: B batch, K classes; one element of K channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import (
    check_finite,
    check_floating,
    check_indices,
    check_mask,
    check_positive,
    check_shape,
)
from perceiver_io.registry import register_adapter

__all__ = ["LabelAdapter"]


@register_adapter("label")
class LabelAdapter(InputAdapter):
    """Makes one element of each sample's label (Perceiver IO, section 4.3 on multimodal autoencoding).

    A label is K numbers, one-hot or probabilities (all zeros where it is not known), or an index, which becomes
    one-hot. A mask is (B,), True where a label is real; a masked label becomes zeros.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_classes: K.
        """

        num_classes: int

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_classes")

    num_elements = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_channels = self.num_content_channels = config.num_classes

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Makes elements of a batch of labels.

        Args:
            x: (B, K) floating-point labels, or (B,) int64 or int32 class indices.
            mask: (B,) bool, True where a label is real.

        Raises:
            ValueError: The shape or type does not fit, the batch is empty, a real index is no class, or a real label
                is NaN.
        """
        of_numbers = isinstance(x, Tensor) and x.ndim > 1
        values_BK = self._from_numbers(x, mask) if of_numbers else self._from_indices(x, mask)
        return ByteArray(
            values=values_BK[:, None],
            mask=None if mask is None else mask[:, None],
            grid=(1,),
            num_content_channels=self.num_content_channels,
        )

    def _from_indices(self, x: Tensor, mask_B: Tensor | None) -> Tensor:
        num_classes = self.config.num_classes
        advice = f"Or give (batch, {num_classes}) floating-point labels."
        check_shape(x, ("batch",), name="Class indices", advice=advice)
        check_mask(mask_B, x.shape[:1], x=x, name="labels")
        check_indices(x, count=num_classes, name="Class indices", advice=advice, mask=mask_B)
        hot_BK = x[:, None] == torch.arange(num_classes, device=x.device)
        if mask_B is not None:
            hot_BK = hot_BK & mask_B[:, None]
        return hot_BK.to(torch.get_default_dtype())  # the model converts it to its own type

    def _from_numbers(self, x: Tensor, mask_B: Tensor | None) -> Tensor:
        advice = "Or give (batch,) int64 class indices."
        check_shape(x, ("batch", self.config.num_classes), name="Labels", advice=advice)
        check_mask(mask_B, x.shape[:1], x=x, name="labels")
        check_floating(x, name="Labels of one number per class", advice=f"Call `.float()` on them. {advice}")
        values_BK = x if mask_B is None else torch.where(mask_B[:, None], x, 0)
        check_finite(values_BK, name="The batch of labels")
        return values_BK

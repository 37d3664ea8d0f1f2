"""What models with one dense output have in common, whatever it is of, and those whose one input is an image.

Shape legend: B batch, O points, V values of an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.layer_outputs import PLAIN_OUTPUT
from perceiver_io.single_output import SingleOutputModel
from perceiver_io.tasks.dense.presets import IMAGE

__all__ = ["DenseImageModel", "DenseModel"]


class DenseModel(SingleOutputModel):
    """A Perceiver IO whose one output has values for each element of a grid, decoded wholly or at some points.

    A subclass adds `forward`, with the loss and the names of its field. It takes `points` in training, so that a step
    costs as much as the points, however large the output is; and `grid`, for an output of another resolution.

    Args:
        config: A configuration whose one output is of a `DenseDecoder`.

    Raises:
        ValueError: The output is another one, or there are several.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            if not isinstance(part, DenseDecoder.Config):
                raise ValueError(
                    f"The output of a {type(self).__name__} is a DenseDecoder.Config, got "
                    f"{type(part).__qualname__}."
                )
        super().__init__(config)

    @property
    def output_size(self) -> tuple[int, ...] | None:
        """Nominal size of each axis of the output; None where it follows an input's."""
        grid: tuple[int, ...] | None = self.config.outputs[self.output_name].grid
        return grid

    def _decoded(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None] | None,
        *,
        points: Tensor | None,
        grid: Sequence[int] | None,
    ) -> Tensor:
        """The whole output, of the grid if there is one; or (B, O, V) at points."""
        if points is not None and grid is not None:
            raise ValueError("points and grid exclude each other: points lie on the output's own grid.")
        name = self.output_name
        if grid is None:
            asked = None if points is None else {name: points}
            return self.perceiver(inputs, self._masks(masks), points=asked, **PLAIN_OUTPUT)[name]
        encoded = self.perceiver.encode(inputs, self._masks(masks))
        return self.perceiver.decode(encoded, grids={name: tuple(grid)})[name]


class DenseImageModel(DenseModel):
    """A `DenseModel` whose one input is an image, called `pixel_values` as `transformers` does."""

    main_input_name = "pixel_values"
    arguments = {IMAGE: ("pixel_values", "pixel_mask")}  # noqa: RUF012 - a ClassVar of the base class

    def attention_maps(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            pixel_values: As `forward`.
            pixel_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({IMAGE: pixel_values}, {IMAGE: pixel_mask}, latents)

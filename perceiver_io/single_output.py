"""What models with any named inputs and one output have in common, whatever the output is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel

__all__ = ["SingleOutputModel"]


class SingleOutputModel(PerceiverIOPreTrainedModel):
    """A Perceiver IO with any inputs and one output. A subclass adds `forward`, with the loss.

    Args:
        config: A configuration with one output.

    Attributes:
        output_name: The name of the output.

    Raises:
        ValueError: There are several outputs.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        if len(config.outputs) != 1:
            raise ValueError(
                f"A {type(self).__name__} has one output, got the outputs {list(config.outputs)}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        (self.output_name,) = config.outputs
        self.post_init()

    def attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self.perceiver.attention_maps(inputs, masks, latents=latents)

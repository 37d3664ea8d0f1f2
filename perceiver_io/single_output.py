"""What models with any named inputs and one output have in common, whatever the output is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import bool_mask
from perceiver_io.layer_outputs import PLAIN_OUTPUT
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel

__all__ = ["Arguments", "SingleOutputModel"]

Arguments = Mapping[str, tuple[str, str]]


class SingleOutputModel(PerceiverIOPreTrainedModel):
    """A Perceiver IO with one output. A subclass adds `forward`, with the loss, and `attention_maps`.

    Args:
        config: A configuration with one output, and with the inputs that `arguments` names, if there are any.

    Attributes:
        arguments: For models of a field whose `forward` calls its inputs by names of its own: by input, the argument
            that takes it and the one that takes its mask. Empty for models whose inputs are given by name.
        output_name: The name of the output.

    Raises:
        ValueError: There are several outputs, or the inputs are others.
    """

    arguments: ClassVar[Arguments] = {}

    def __init__(self, config: PerceiverIOConfig) -> None:
        if len(config.outputs) != 1:
            raise ValueError(
                f"A {type(self).__name__} has one output, got the outputs {list(config.outputs)}."
            )
        if self.arguments and set(config.inputs) != set(self.arguments):
            raise ValueError(
                f"A {type(self).__name__} has the input {', '.join(map(repr, self.arguments))}, got the inputs "
                f"{list(config.inputs)}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        (self.output_name,) = config.outputs
        self.post_init()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `torch.nn.Module`; also takes `inputs` and `masks` by name, as a `PerceiverIOProcessor` makes them."""
        for place, kind in enumerate(("inputs", "masks") if self.arguments else ()):
            for name, value in (kwargs.pop(kind, None) or {}).items():
                if name not in self.arguments:
                    raise ValueError(f"The model has no input {name!r}; it has {list(self.arguments)}.")
                kwargs[self.arguments[name][place]] = value
        return super().__call__(*args, **kwargs)

    def _output(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor | None] | None) -> Tensor:
        """The output of a batch."""
        return self.perceiver(inputs, self._masks(masks), **PLAIN_OUTPUT)[self.output_name]

    def _attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None] | None,
        latents: Iterable[int] | None,
    ) -> list[AttentionMap]:
        """The map of each cross-attend."""
        return self.perceiver.attention_maps(inputs, self._masks(masks), latents=latents)

    def _masks(self, masks: Mapping[str, Tensor | None] | None) -> dict[str, Tensor]:
        """The masks that were given, as bool: those of a field may be integers, as its processors make them."""
        given = {name: mask for name, mask in (masks or {}).items() if mask is not None}
        if not self.arguments:
            return given
        return {name: bool_mask(mask, name=self.arguments[name][1]) for name, mask in given.items()}

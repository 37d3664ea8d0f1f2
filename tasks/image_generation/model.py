"""A Perceiver AR that draws images, value by value.

Shape legend: B batch, T tokens, F image channels, H height, W width, R rows, V values of an image.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.pixel_tokens import PixelTokens
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import check_indices, check_shape
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.image_generation.windows import whole_windows

__all__ = ["LABEL", "PerceiverARForImageGeneration"]

LABEL = "label"
"""The condition that says of which class an image is."""


class PerceiverARForImageGeneration(PerceiverARForCausalLM):
    """A Perceiver AR over the values of images in raster order, and what class they are of, if it knows classes.

    Tokens are those of `PixelTokens`: a start token, then the levels row by row, the channels of a pixel one after the
    other. A class stands before them as a condition; without one any image may follow.

    Args:
        config: A configuration such as `config` of this package makes. Classes without names are called LABEL_0,
            LABEL_1, and so on.

    Raises:
        ValueError: The tokens are not those of pixels, or there are other conditions than a label.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        adapter = config.inputs[self.sequence]
        if not isinstance(adapter, PixelSequenceAdapter.Config):
            raise ValueError(
                f"A {type(self).__name__} continues pixels: the input {self.sequence!r} needs a "
                f"PixelSequenceAdapter.Config, got {type(adapter).__qualname__}."
            )
        others = [name for name in config.inputs if name != self.sequence]
        label = config.inputs.get(LABEL)
        if others not in ([], [LABEL]) or (others and not isinstance(label, LabelAdapter.Config)):
            raise ValueError(
                f"Beside the pixels there may be the input {LABEL!r}, with a LabelAdapter.Config, got {others}."
            )
        self.tokens = PixelTokens.of_grid(adapter.size, adapter.vocab_size, adapter.num_special_tokens)
        self.num_classes = label.num_classes if isinstance(label, LabelAdapter.Config) else 0
        if self.num_classes:
            config.name_classes(self.num_classes)

    @torch.no_grad()
    def generate_images(
        self,
        num_images: int | None = None,
        *,
        labels: int | Sequence[int] | Tensor | None = None,
        start: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draws images: of classes, of any class, or such as begin with given rows.

        Every value is drawn from what the model says of it, but special tokens never are.

        Args:
            num_images: B; if None, as many as there are labels or starts, or one.
            labels: The class of each image, or of all; -1 for any class. If None, all are of any.
            start: (B, F, R, W) levels of the first rows, or (1, F, R, W) for all images alike.
            temperature: What the logits are divided by; 0 takes the most probable level.
            top_k: Draw among so many most probable levels only; all if None.
            top_p: Draw among the most probable levels that make up this probability only; all if None.
            generator: Random numbers follow from it, and PyTorch's global generator stays as it is; if None, they are
                that one's.
            **options: More of `generate`, such as `refill_latents`.

        Returns:
            (B, F, H, W) int64 levels; `PixelSequenceProcessor.to_pil` makes pictures of them.

        Raises:
            ValueError: The numbers of images, labels and starts differ, a label is no class or the model has none, the
                start is no part of an image of the model's size, or a setting is out of range.
        """
        tokens = self.tokens
        if temperature < 0 or not math.isfinite(temperature):
            raise ValueError(f"temperature is {temperature}, expected 0 or more.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected 1 or more.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, expected more than 0, 1 at most.")
        labels_B = None if labels is None else torch.as_tensor(labels, device=self.device)
        if labels_B is not None and labels_B.ndim == 0:
            labels_B = labels_B[None]
        counts = {
            "num_images": num_images,
            "labels": None if labels_B is None else len(labels_B),
            "start": None if start is None else len(start),
        }
        batch = max((count for count in counts.values() if count is not None), default=1)
        wrong = [
            name
            for name, count in counts.items()
            if count not in (None, batch) and (name == "num_images" or count != 1)
        ]
        if wrong or batch < 1:
            raise ValueError(
                f"The numbers of images, labels and starts must be the same, 1 or more, got {counts}. One label or "
                "start is that of all images."
            )
        if start is None:
            ids_BT = torch.full((batch, 1), tokens.start_id, device=self.device)
        else:
            ids_BT = tokens.to_ids(start.to(self.device)).expand(batch, -1)
        missing = tokens.length - ids_BT.shape[1]
        if not missing:
            return tokens.to_levels(ids_BT)
        drawn = {"do_sample": True, "temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
        with _random_numbers(generator, self.device):
            ids_BT = self.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                **self.label_condition(labels_B, batch),
                **(drawn if temperature else {"do_sample": False}),
                max_new_tokens=missing,
                min_new_tokens=missing,
                suppress_tokens=list(range(tokens.num_special_tokens)),
                **{"prompt_latents": self._prompt_latents(ids_BT.shape[1]), **options},
            )
        return tokens.to_levels(ids_BT)

    @torch.no_grad()
    def bits_per_value(self, levels: Tensor, labels: Sequence[int] | Tensor | None = None) -> Tensor:
        """Returns how many bits a value of each image takes: minus the binary logarithm of its probability, on average.

        Args:
            levels: (B, F, H, W) whole numbers, as the processor makes them.
            labels: The class of each image, -1 for any; if None, all are of any.

        Returns:
            (B,) float32.

        Raises:
            ValueError: The images are of another size than the model's, or the labels do not fit.
        """
        height, width = self.tokens.size
        advice = "The processor brings images to this size."
        check_shape(levels, ("batch", self.tokens.num_channels, height, width), name="Levels", advice=advice)
        ids_BT = self.tokens.to_ids(levels.to(self.device))
        condition = self.label_condition(
            None if labels is None else torch.as_tensor(labels, device=self.device), len(ids_BT)
        )
        nats_B = torch.zeros(len(ids_BT), device=self.device)
        for window in whole_windows(ids_BT[0].cpu(), self.num_latents):
            read_BT = ids_BT[:, : len(window.tokens)]
            logits_BNV = self(read_BT, **condition).logits[:, -1 - window.num_predicted : -1]
            targets_BN = read_BT[:, -window.num_predicted :]
            nats_B += cross_entropy(logits_BNV.float().mT, targets_BN, reduction="none").sum(1)
        return nats_B / (math.log(2) * (self.tokens.length - 1))

    def label_condition(self, labels: Tensor | None, batch_size: int) -> dict[str, Any]:
        """Returns the arguments of `forward` that say of which class images are.

        Args:
            labels: (B,) class indices, -1 for any; or one for all; None if all are of any.
            batch_size: B.

        Raises:
            ValueError: There are no such classes.
        """
        if labels is None:
            return {}
        if not self.num_classes:
            raise ValueError("The model knows no classes: it was trained without labels. Leave them out.")
        check_shape(labels, ("batch",), name="Labels", advice="One class index for each image.")
        if len(labels) not in (1, batch_size):
            raise ValueError(
                f"There are {len(labels)} labels for {batch_size} images, expected one for each."
            )
        is_known_B = labels != -1
        names = (
            "" if self.config.id2label is None else f" Classes: {list(self.config.id2label.values())!r:.200}."
        )
        check_indices(
            torch.where(is_known_B, labels, 0),
            count=self.num_classes,
            name="Labels",
            advice=f"-1 stands for any class.{names}",
        )
        labels_B = torch.where(is_known_B, labels, 0).expand(batch_size)
        if not is_known_B.any():
            return {}
        arguments: dict[str, Any] = {"conditions": {LABEL: labels_B}}
        if not is_known_B.all():
            arguments["condition_masks"] = {LABEL: is_known_B.expand(batch_size)}
        return arguments

    def _prompt_latents(self, prompt_length: int) -> int:
        """As many as there are tokens, where all of an image can have one; else so few that there is room for more."""
        if self.tokens.length - 1 <= self.num_latents:
            return min(prompt_length, self.num_latents)
        return max(1, min(prompt_length, self.num_latents // 2))


@contextlib.contextmanager
def _random_numbers(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Lets all random numbers within the block follow from a generator's next one."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield

"""Models that continue bytes, run in one way: this package's Perceiver AR, krasserm's, and GPT-2 of `transformers`."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import perceiver_io as pio
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.causal import CausalEncoderConfig, LatentCache
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.krasserm import load_krasserm, save_krasserm
from perceiver_io.tasks.autoregressive.presets import TOKENS

__all__ = ["CLOCKS", "SIDES", "VOCABULARY", "Krasserm", "Side", "Size", "write_model"]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VOCABULARY = 262  # bytes and six special tokens


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a Perceiver AR measures.

    Attributes:
        context: The most tokens that it reads.
        num_latents: N.
        channels: Width of everything.
        num_self_attends: Blocks after the cross-attend.
        num_heads: Of each attention.
    """

    context: int
    num_latents: int
    channels: int
    num_self_attends: int
    num_heads: int


def write_model(size: Size, folder: str) -> None:
    """Writes a model that both implementations load: his `perceiver-ar-clm-base`, rotary, of another size.

    Norms and biases are random too, the cross-attend looks at some tokens more than at others, and all layers have a
    say in the outputs, so that equal outputs mean something.
    """
    adapter = TextAdapter.Config(
        vocab_size=VOCABULARY,
        max_length=size.context,
        num_channels=size.channels,
        position="none",
        counts_real=True,
    )
    encoder = CausalEncoderConfig(
        sequence=TOKENS,
        max_length=size.context,
        num_latents=size.num_latents,
        latent_channels=size.channels,
        num_self_attends=size.num_self_attends,
        num_heads=size.num_heads,
        rotary_fraction=1.0,
        num_rotary_self_attends=1,
        latent_keys="query_norm",
        biases="cross_attend_output",
    )
    decoder = pio.NextTokenDecoder.Config(vocab_size=VOCABULARY, bias=False, tied_to=TOKENS)
    model = PerceiverARForCausalLM(
        pio.PerceiverIOConfig(inputs={TOKENS: adapter}, encoder=encoder, outputs={TOKENS: decoder})
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "cross_attend.attention.query" in name or "cross_attend.attention.key" in name:
                parameter.mul_(2)
            elif ".output." in name:
                parameter.mul_(4)
    save_krasserm(model, folder)


class Side(ABC):
    """One of the models, in evaluation mode.

    Args:
        folder: Where its weights are, if it does not draw its own.
        size: Its size.
        clock: What tells the time.

    Attributes:
        model: The model.
    """

    model: Any

    def __init__(self, folder: str, size: Size, clock: Callable[[], float]) -> None:
        self.folder, self.size, self.clock = folder, size, clock
        self.model = self.made()

    @abstractmethod
    def made(self) -> nn.Module:
        """Returns the model."""

    @abstractmethod
    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        """Returns what follows each of the last tokens, (B, latents, V), without a cache."""

    @abstractmethod
    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        """Reads a prompt into a new cache; returns what follows its last tokens."""

    @abstractmethod
    def steps(self, ids_BT: Tensor, num_latents: int) -> Iterator[Tensor]:
        """Yields what follows the last token, (B, V), of a prompt and then of each token that is chosen.

        Args:
            ids_BT: The prompt.
            num_latents: How many latents read it.
        """

    def generate(self, ids_BT: Tensor, num_latents: int, count: int) -> tuple[list[list[int]], list[float]]:
        """Continues prompts greedily, with a cache.

        Args:
            ids_BT: The prompts.
            num_latents: How many latents read them.
            count: Tokens to add.

        Returns:
            The tokens of each prompt, and the time at which each was there.
        """
        tokens, times = [], []
        self.chosen_B1 = ids_BT[:, :0]
        for logits_BV in islice(self.steps(ids_BT, num_latents), count):
            self.chosen_B1 = logits_BV.argmax(dim=-1, keepdim=True)
            tokens.append(self.chosen_B1.flatten().tolist())
            times.append(self.clock())
        return [list(row) for row in zip(*tokens, strict=True)], times


class Ours(Side):
    def made(self) -> nn.Module:
        return load_krasserm(self.folder).eval()

    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, num_latents=num_latents).logits
        return found

    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, past_key_values=self._cache(num_latents)).logits
        return found

    def steps(self, ids_BT: Tensor, num_latents: int) -> Iterator[Tensor]:
        cache = self._cache(num_latents)
        while True:
            yield self.model(ids_BT, past_key_values=cache, logits_to_keep=1).logits[:, -1]
            ids_BT = self.chosen_B1

    def _cache(self, num_latents: int) -> LatentCache:
        schedule = self.model.latent_schedule(prompt_latents=num_latents)
        return LatentCache(self.model.perceiver.encoder.num_layers, schedule)


class Krasserm(Side):
    """His classes. What a step is given, and what his cache forgets before it, is `prepare_inputs_for_generation`.

    The length of the prefix is carried over from step to step, as his documentation has it.
    """

    def made(self) -> nn.Module:
        _import_krasserm()
        from perceiver.model.core.config import CausalSequenceModelConfig
        from perceiver.model.core.huggingface import PerceiverCausalSequenceModel
        from perceiver.model.core.modules import CausalSequenceModel

        folder = Path(self.folder)
        values = json.loads((folder / "config.json").read_text())["model_config"]
        model: nn.Module = PerceiverCausalSequenceModel(transformers.PretrainedConfig())
        model.backend_model = CausalSequenceModel(CausalSequenceModelConfig.create(**values))
        model.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
        return model.eval()

    def in_float64(self) -> None:
        """Makes the model exact, the frequencies of its positions too, which a checkpoint has in float32."""
        self.model.double()
        positions = self.model.backend_model.input_adapter.frq_pos_encoding
        rotated = 2 * positions.inv_freq.numel()
        exponents = (
            torch.arange(0, rotated, 2, dtype=torch.float64, device=positions.inv_freq.device) / rotated
        )
        positions.inv_freq = 10_000.0**-exponents

    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, prefix_len=ids_BT.shape[1] - num_latents).logits
        return found

    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        prefix = ids_BT.shape[1] - num_latents
        found: Tensor = self.model(ids_BT, prefix_len=prefix, use_cache=True).logits
        return found

    def steps(self, ids_BT: Tensor, num_latents: int) -> Iterator[Tensor]:
        prefix, cache = ids_BT.shape[1] - num_latents, None
        while True:
            inputs = self.model.prepare_inputs_for_generation(
                ids_BT, past_key_values=cache, prefix_len=prefix, use_cache=True
            )
            output = self.model(**inputs)
            prefix, cache = output.prefix_len, output.past_key_values
            yield output.logits[:, -1]
            ids_BT = torch.cat([ids_BT, self.chosen_B1], dim=1)


class GPT2(Side):
    """`GPT2LMHeadModel` with random weights, as wide, and with as many blocks: one stands for the cross-attend.

    It has no latents: each token is one.
    """

    def made(self) -> nn.Module:
        size = self.size
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=size.context + 1,
            n_embd=size.channels,
            n_layer=1 + size.num_self_attends,
            n_head=size.num_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
        return transformers.GPT2LMHeadModel(config).eval()

    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, use_cache=False).logits
        return found

    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, use_cache=True, logits_to_keep=1).logits
        return found

    def steps(self, ids_BT: Tensor, num_latents: int) -> Iterator[Tensor]:
        cache = None
        while True:
            output = self.model(ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            yield output.logits[:, -1]
            ids_BT = self.chosen_B1


SIDES: dict[str, Any] = {"ours": Ours, "krasserm": Krasserm, "gpt2": GPT2}


def _import_krasserm() -> None:
    """Makes his modules importable without what they import but do not call here."""
    if importlib.util.find_spec("perceiver") is None:
        raise SystemExit(
            "krasserm's implementation is missing. Install it where it is not in the way of other packages:\n"
            "    pip install --no-deps --ignore-requires-python --target FOLDER perceiver-io==0.11.0\n"
            "and run this again with PYTHONPATH=FOLDER. It needs einops besides."
        )
    if "fairscale" not in sys.modules and importlib.util.find_spec("fairscale") is None:
        # Of it he imports one wrapper, for checkpoints of activations, which are off.
        parent, module = ModuleType("fairscale"), ModuleType("fairscale.nn")
        module.checkpoint_wrapper = None  # type: ignore[attr-defined]
        parent.nn = module  # type: ignore[attr-defined]
        sys.modules.update({"fairscale": parent, "fairscale.nn": module})

"""Models that continue bytes, run in one way: this package's Perceiver AR, krasserm's, and GPT-2 of `transformers`."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.generation.streamers import BaseStreamer

import perceiver_io as pio
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.causal import CausalEncoderConfig, LatentCache
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.krasserm import load_krasserm, save_krasserm
from perceiver_io.tasks.autoregressive.presets import TOKENS

__all__ = ["CLOCKS", "SIDES", "VOCABULARY", "Side", "Size", "write_model"]

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

    Norms and biases are random too, and the cross-attend looks at some tokens more than at others, so that equal
    outputs say something.
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
    def generate(self, ids_BT: Tensor, num_latents: int, count: int) -> tuple[list[int], list[float]]:
        """Continues one prompt greedily, with a cache.

        Args:
            ids_BT: The prompt, (1, T).
            num_latents: How many latents read it.
            count: Tokens to add.

        Returns:
            The tokens, and the time at which each was there.
        """


class Ours(Side):
    def made(self) -> nn.Module:
        return load_krasserm(self.folder).eval()

    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, num_latents=num_latents).logits
        return found

    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        schedule = self.model.latent_schedule(prompt_latents=num_latents)
        cache = LatentCache(self.model.perceiver.encoder.num_layers, schedule)
        found: Tensor = self.model(ids_BT, past_key_values=cache).logits
        return found

    def generate(self, ids_BT: Tensor, num_latents: int, count: int) -> tuple[list[int], list[float]]:
        return _generate(self, ids_BT, count, prompt_latents=num_latents)


class Krasserm(Side):
    """His classes. His `generate` needs a `transformers` 4 of its time, so his steps run in a bare loop here.

    What each step is given, and what his cache forgets before it, is his `prepare_inputs_for_generation`; the length of
    the prefix is carried over from step to step, as his documentation has it.
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

    def logits(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        found: Tensor = self.model(ids_BT, prefix_len=ids_BT.shape[1] - num_latents).logits
        return found

    def read(self, ids_BT: Tensor, num_latents: int) -> Tensor:
        prefix = ids_BT.shape[1] - num_latents
        found: Tensor = self.model(ids_BT, prefix_len=prefix, use_cache=True).logits
        return found

    def generate(self, ids_BT: Tensor, num_latents: int, count: int) -> tuple[list[int], list[float]]:
        tokens, times = [], []
        prefix, cache = ids_BT.shape[1] - num_latents, None
        for _ in range(count):
            inputs = self.model.prepare_inputs_for_generation(
                ids_BT, past_key_values=cache, prefix_len=prefix, use_cache=True
            )
            output = self.model(**inputs)
            prefix, cache = output.prefix_len, output.past_key_values
            token_B = output.logits[:, -1].argmax(dim=-1)
            ids_BT = torch.cat([ids_BT, token_B[:, None]], dim=1)
            tokens.append(token_B.item())
            times.append(self.clock())
        return tokens, times


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

    def generate(self, ids_BT: Tensor, num_latents: int, count: int) -> tuple[list[int], list[float]]:
        return _generate(self, ids_BT, count)


SIDES: dict[str, Any] = {"ours": Ours, "krasserm": Krasserm, "gpt2": GPT2}


class _Clock(BaseStreamer):
    """Notes each token, and when it came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.tokens: list[int] = []
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        if value.ndim == 1:  # the prompt comes first, with a batch axis
            self.tokens.append(int(value))
            self.times.append(self.clock())

    def end(self) -> None:
        pass


def _generate(side: Side, ids_BT: Tensor, count: int, **options: int) -> tuple[list[int], list[float]]:
    clock = _Clock(side.clock)
    mask_BT = torch.ones_like(ids_BT)
    side.model.generate(
        ids_BT, attention_mask=mask_BT, max_new_tokens=count, do_sample=False, streamer=clock, **options
    )
    return clock.tokens, clock.times


def _import_krasserm() -> None:
    """Makes his modules importable without what they import but do not call here."""
    if importlib.util.find_spec("perceiver") is None:
        raise SystemExit(
            "krasserm's implementation is missing. Install it where it is not in the way of other packages:\n"
            "    pip install --no-deps --ignore-requires-python --target FOLDER perceiver-io==0.11.0\n"
            "and run this again with PYTHONPATH=FOLDER. It needs einops besides."
        )
    if importlib.util.find_spec("fairscale") is None:
        # Of it he imports one wrapper, for checkpoints of activations, which are off.
        parent, module = ModuleType("fairscale"), ModuleType("fairscale.nn")
        module.checkpoint_wrapper = None  # type: ignore[attr-defined]
        parent.nn = module  # type: ignore[attr-defined]
        sys.modules.update({"fairscale": parent, "fairscale.nn": module})

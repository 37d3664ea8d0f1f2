"""The task of continuing texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits, read_texts, standard_library
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen_text import SeenText, byte_pieces
from perceiver_io.printable import printable
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, Setup
from perceiver_io.running.task import OURS, Collate, Drawing, Layout
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.options import GenerateOptions
from perceiver_io.tasks.autoregressive.presets import TOKENS
from perceiver_io.tasks.autoregressive.task import AutoregressiveTask
from perceiver_io.tasks.autoregressive.windows import TokenWindows
from perceiver_io.tasks.causal_language_modeling.presets import config
from perceiver_io.tasks.causal_language_modeling.recipe import CausalLanguageModelingRecipe
from perceiver_io.tasks.causal_language_modeling.tokenizer import byte_tokenizer, encoder_of, load_tokenizer

__all__ = ["CausalLanguageModelingTask", "ContinueOptions"]

_NEW_TOKENS = 200


@dataclass(kw_only=True)
class ContinueOptions(GenerateOptions):
    """How texts are continued."""

    temperature: float = 0.8


@register_task("causal-language-modeling")
class CausalLanguageModelingTask(AutoregressiveTask):
    """Trains `PerceiverARForCausalLM` on texts, byte by byte or by the tokens of any tokenizer, and continues texts."""

    model_class = PerceiverARForCausalLM
    pipeline_tag = "text-generation"
    recipe_class = CausalLanguageModelingRecipe
    options_class = ContinueOptions
    input_metavar = "TEXT"

    def data(self, recipe: CausalLanguageModelingRecipe) -> Splits:
        """Reads texts, and cuts their tokens in windows."""
        encode = encoder_of(self._tokenizer(recipe))
        max_length, num_latents = recipe.max_length, recipe.num_latents
        assert max_length is not None and num_latents is not None

        def cut(documents: Sequence[bytes], train: bool) -> TokenWindows:
            return TokenWindows(
                [encode(document) for document in documents],
                max_length=max_length,
                num_latents=num_latents,
                movable=train and recipe.move_windows,
            )

        return read_texts(recipe, cut=cut, seed=recipe.seed, embedded={"stdlib": standard_library})

    def config(self, recipe: CausalLanguageModelingRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        assert recipe.variant is not None and recipe.max_length is not None
        settings = recipe.model_settings
        return config(
            variant=recipe.variant,
            vocab_size=len(self._tokenizer(recipe)),
            max_length=recipe.max_length,
            num_latents=recipe.num_latents,
            tokens=settings.input(TOKENS),
            encoder=settings.encoder,
            decoder=settings.output(TOKENS),
        )

    def processor(self, recipe: CausalLanguageModelingRecipe, data: Splits) -> PreTrainedTokenizerBase:
        """Returns the tokenizer."""
        tokenizer = self._tokenizer(recipe)
        tokenizer.model_max_length = recipe.max_length
        return tokenizer

    def new_model(
        self, config: PerceiverIOConfig, processor: PreTrainedTokenizerBase
    ) -> PerceiverARForCausalLM:
        """Returns a new model, which knows the tokens at the beginning and at the end of a text."""
        model = PerceiverARForCausalLM(config)
        assert model.generation_config is not None
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(model.generation_config, name, getattr(processor, name))
        return model

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes batches of windows, moved at random in training."""
        return self.window_collator(setup, train=train, pad_id=setup.processor.pad_token_id)

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: ContinueOptions
    ) -> list[dict[str, Any]]:
        """Continues texts.

        Args:
            loaded: The model and its tokenizer.
            inputs: The texts; an empty one asks for one from its beginning.
            options: How.

        Returns:
            Of each text `input`, and as `texts` its continuations, without itself.

        Raises:
            ValueError: An option is out of range.
        """
        return [
            {"input": text, "texts": self._continued(loaded.model, loaded.processor, text, options)}
            for text in inputs
        ]

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents on the last tokens of a text attend to."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one text at a time, got {len(inputs)}.")
        ids = loaded.processor(inputs[0], add_special_tokens=False, verbose=False)["input_ids"]
        return _view(loaded.model, loaded.processor, ids[-loaded.model.max_length :], inputs[0])

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """What the latents attend to in the middle of the test texts."""
        window = setup.data.test[len(setup.data.test) // 2]
        view = _view(setup.model, setup.processor, window.tokens.tolist(), "A window of the test texts")
        return {"attention.png": partial(draw_view, view)}

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns the text with each continuation, a line apart."""
        return "\n\n".join(printable(prediction["input"] + text, lines=True) for text in prediction["texts"])

    def load_processor(self, source: str | Path) -> PreTrainedTokenizerBase:
        """Loads the tokenizer beside a model; that of bytes if there is none."""
        return load_tokenizer(source)

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes the tokenizer, which is the same in all layouts.

        Args:
            model: The model.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: Makes no difference.
        """
        tokenizer = byte_tokenizer() if source is None else self.load_processor(source)
        tokenizer.model_max_length = model.max_length
        tokenizer.save_pretrained(folder)

    def _tokenizer(self, recipe: CausalLanguageModelingRecipe) -> PreTrainedTokenizerBase:
        source = recipe.tokenizer or recipe.pretrained
        return byte_tokenizer() if source is None else load_tokenizer(source)

    def _continued(
        self,
        model: PerceiverARForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        options: ContinueOptions,
    ) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)[
            "input_ids"
        ].long()
        if not ids.shape[1]:
            if tokenizer.bos_token_id is None:
                raise ValueError(
                    "The text is empty, and the tokenizer has no token for the beginning of one."
                )
            ids = torch.tensor([[tokenizer.bos_token_id]])
        with torch.no_grad():
            found = model.generate(
                ids.to(model.device),
                attention_mask=torch.ones_like(ids, device=model.device),
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **options.arguments(max_new_tokens=_NEW_TOKENS),
            )
        return [str(tokenizer.decode(row, skip_special_tokens=True)) for row in found[:, ids.shape[1] :]]


def _view(
    model: PerceiverARForCausalLM, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], title: str
) -> AttentionView:
    maps = model.perceiver.attention_maps({TOKENS: torch.tensor([list(ids)], device=model.device)})
    vocabulary = tokenizer.get_vocab()
    if all(vocabulary.get(token) == index for token, index in byte_tokenizer().get_vocab().items()):
        pieces = byte_pieces(list(ids))
    else:
        pieces = [str(tokenizer.decode([index])) for index in ids]
    return AttentionView(
        maps=maps, seen={TOKENS: SeenText(pieces=pieces)}, title=" ".join(title.split())[:80]
    )

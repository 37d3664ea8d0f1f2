"""The masked language modeling task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PerceiverTokenizer

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits, byte_windows, read_texts, standard_library
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen_text import SeenText, byte_pieces
from perceiver_io.printable import printable
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Setup, TrainableTask
from perceiver_io.running.measures import mean_metric
from perceiver_io.running.task import OURS, Batch, Collate, Drawing, Layout
from perceiver_io.settings_files import reading_settings
from perceiver_io.tasks.masked_language_modeling.masking import MaskingCollator
from perceiver_io.tasks.masked_language_modeling.model import IGNORED, TEXT, PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.pipeline import FillMaskPipeline
from perceiver_io.tasks.masked_language_modeling.presets import config
from perceiver_io.tasks.masked_language_modeling.recipe import MaskedLanguageModelingRecipe

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["FillMaskOptions", "MaskedLanguageModelingTask"]

_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")


@dataclass(kw_only=True)
class FillMaskOptions(PredictOptions):
    """How masked bytes are filled in."""

    top_k: int = field(default=5, metadata={"help": "How many candidates to print for a masked byte."})
    batch_size: int = field(default=8, metadata={"help": "Texts at once."})
    no_special_tokens: bool = field(
        default=False,
        metadata={"help": "Leave out [CLS] and [SEP] around the text, as the original release does."},
    )


@register_task("masked-language-modeling")
class MaskedLanguageModelingTask(TrainableTask):
    """Trains `PerceiverIOForMaskedLM` to guess hidden bytes, and fills masked bytes in."""

    model_class = PerceiverIOForMaskedLM
    recipe_class = MaskedLanguageModelingRecipe
    options_class = FillMaskOptions
    input_metavar = "TEXT"

    def data(self, recipe: MaskedLanguageModelingRecipe) -> Splits:
        """Reads texts, and cuts them in windows."""
        assert recipe.max_length is not None
        return read_texts(
            recipe,
            cut=byte_windows(recipe.max_length - 2),
            seed=recipe.seed,
            embedded={"stdlib": standard_library},
        )

    def config(self, recipe: MaskedLanguageModelingRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        assert recipe.variant is not None
        settings = recipe.model_settings
        new = config(
            variant=recipe.variant,
            max_length=recipe.max_length,
            text=settings.input(TEXT),
            encoder=settings.encoder,
            decoder=settings.output(TEXT),
        )
        _check_length(new, recipe)
        return new

    def fine_tuned(
        self,
        config: PerceiverIOConfig,
        processor: PerceiverTokenizer,
        recipe: MaskedLanguageModelingRecipe,
        data: Splits,
    ) -> tuple[PerceiverIOConfig, PerceiverTokenizer]:
        """Makes sure that the windows of text are not longer than what the model takes.

        Raises:
            ValueError: They are.
        """
        _check_length(config, recipe)
        return config, processor

    def processor(self, recipe: MaskedLanguageModelingRecipe, data: Splits) -> PerceiverTokenizer:
        """Returns the tokenizer of bytes."""
        assert recipe.max_length is not None
        return PerceiverTokenizer(model_max_length=recipe.max_length)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what hides bytes; in an evaluation the same ones each time.

        Raises:
            ValueError: The windows of text are longer than what the model takes.
        """
        recipe = setup.recipe
        _check_length(setup.model.config, recipe)
        own = recipe.training_masking_probability
        return MaskingCollator(
            setup.processor,
            probability=own if train and own is not None else recipe.masking_probability,
            length=recipe.max_length - 2,
            whole_words=recipe.whole_words,
        )

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Bits a hidden byte, and the share of them that is guessed."""
        return {"bits": mean_metric(higher_is_better=False), "accuracy": mean_metric(higher_is_better=True)}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Adds the hidden bytes of a batch."""
        counts = batch["labels"] != IGNORED
        hits = (output.logits.argmax(-1) == batch["labels"])[counts]
        measures["bits"].update(output.loss.float() / math.log(2), weight=self.weight(batch))
        measures["accuracy"].update(hits)

    def weight(self, batch: Batch) -> torch.Tensor:
        """The number of hidden bytes."""
        count: torch.Tensor = (batch["labels"] != IGNORED).sum()
        return count

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """What the latents attend to in the first window of the test texts."""
        ids = self.collator(setup, train=False)([setup.data.test[0]])["input_ids"]
        return {"attention.png": partial(draw_view, _view(setup.model, ids, "The first test text"))}

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: FillMaskOptions
    ) -> list[dict[str, Any]]:
        """Fills the masked bytes of texts in.

        Args:
            loaded: The model and its tokenizer.
            inputs: The texts, with `[MASK]` for each byte that is to be guessed.
            options: How.

        Returns:
            `FilledText.to_dict` of each text, with `input`, the text itself.

        Raises:
            ValueError: Nothing is masked, a text is too long, or an option is out of range.
        """
        fill = FillMaskPipeline(
            loaded.model,
            loaded.processor,
            add_special_tokens=not options.no_special_tokens,
            top_k=options.top_k,
            batch_size=options.batch_size,
        )
        texts = list(inputs)
        return [{"input": text, **filled.to_dict()} for text, filled in zip(texts, fill(texts), strict=True)]

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents attend to in a text."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one text at a time, got {len(inputs)}.")
        ids = loaded.processor(inputs[0], return_tensors="pt")["input_ids"]
        return _view(loaded.model, ids, inputs[0])

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns the filled text, and a line with the candidates of each masked byte."""
        # A model that has learned nothing yet fills in anything, and some characters steer a terminal.
        lines = [printable(prediction["text"], lines=True)]
        for one in prediction["masked"]:
            candidates = "  ".join(
                f"{_shown(guess['text'])} {guess['probability']:.1%}" for guess in one["candidates"]
            )
            lines.append(f"  byte {one['position']}: {_shown(one['filled']['text'])}   of  {candidates}")
        return "\n".join(lines)

    def load_processor(self, source: str | Path) -> PerceiverTokenizer:
        """Loads the tokenizer beside a model; the published one if there is none, for it has no files of its own.

        Raises:
            ValueError: It is damaged.
        """
        if Path(source).is_dir() and not Path(source, "tokenizer_config.json").is_file():
            return PerceiverTokenizer()
        with reading_settings(source, *_TOKENIZER_FILES):
            tokenizer: PerceiverTokenizer = PerceiverTokenizer.from_pretrained(source)
            if not isinstance(tokenizer.model_max_length, (int, float)):
                raise ValueError(f"model_max_length is {tokenizer.model_max_length!r:.80}, expected a number")
        return tokenizer

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes the tokenizer, which is the same in all layouts.

        Args:
            model: The model, whose length becomes the tokenizer's.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: Makes no difference.
        """
        assert isinstance(model, PerceiverIOForMaskedLM)
        tokenizer = PerceiverTokenizer() if source is None else self.load_processor(source)
        tokenizer.model_max_length = model.max_length
        tokenizer.save_pretrained(folder)


def _check_length(config: PerceiverIOConfig, recipe: MaskedLanguageModelingRecipe) -> None:
    text = config.inputs[TEXT]
    assert recipe.max_length is not None
    if isinstance(text, TextAdapter.Config) and recipe.max_length > text.max_length:
        raise ValueError(
            f"max_length is {recipe.max_length} tokens, but the model takes {text.max_length}. Choose a max_length "
            "up to that."
        )


def _view(model: PerceiverIOForMaskedLM, ids: torch.Tensor, title: str) -> AttentionView:
    maps = model.perceiver.attention_maps({TEXT: ids.to(model.device)})
    seen = SeenText(pieces=byte_pieces(ids[0].tolist()))
    return AttentionView(maps=maps, seen={TEXT: seen}, title=" ".join(title.split())[:80])


def _shown(text: str) -> str:
    return "' '" if text == " " else text

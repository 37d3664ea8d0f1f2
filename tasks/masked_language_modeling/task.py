"""The masked language modeling task: what the command line runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PerceiverTokenizer

from perceiver_io.loading import from_pretrained
from perceiver_io.model import PerceiverIOPreTrainedModel
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.registry import register_task
from perceiver_io.running import Task
from perceiver_io.running.task import Layout
from perceiver_io.tasks.masked_language_modeling.model import PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.pipeline import FillMaskPipeline

__all__ = ["MaskedLanguageModelingTask"]


@register_task("masked-language-modeling")
class MaskedLanguageModelingTask(Task):
    """Fills masked bytes in, with `PerceiverIOForMaskedLM`."""

    name = "masked-language-modeling"
    architectures = ("PerceiverIOForMaskedLM",)
    input_metavar = "TEXT"

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds `--top-k`, `--batch-size` and `--no-special-tokens`."""
        parser.add_argument(
            "--top-k", type=int, default=5, help="how many candidates to print for a masked byte (default: 5)"
        )
        parser.add_argument("--batch-size", type=int, default=8, help="texts at once (default: 8)")
        parser.add_argument(
            "--no-special-tokens",
            action="store_true",
            help="leave out [CLS] and [SEP] around the text, as the original release does",
        )

    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        """Fills the masked bytes of texts in.

        Args:
            source: A folder with a masked language model in any layout, or a hub id.
            inputs: The texts, with `[MASK]` for each byte that is to be guessed.
            options: What `add_predict_arguments` added. There is nothing for `output_dir`.

        Returns:
            `FilledText.to_dict` of each text, with `input`, the text itself.

        Raises:
            ValueError: The model is of another kind, nothing is masked, or a text is too long.
        """
        if options.output_dir is not None:
            raise ValueError(f"The task {self.name} writes no files: leave out --output-dir.")
        with no_progress_bars():
            model = from_pretrained(source)
        if not isinstance(model, PerceiverIOForMaskedLM):
            raise ValueError(
                f"The model in {source} is no masked language model: it is a {type(model).__name__}."
            )
        model.eval()
        if torch.accelerator.is_available():
            device: Any = torch.accelerator.current_accelerator()
            model.to(device)
        fill = FillMaskPipeline(
            model,
            _tokenizer(source),
            add_special_tokens=not options.no_special_tokens,
            top_k=options.top_k,
            batch_size=options.batch_size,
        )
        texts = list(inputs)
        return [{"input": text, **filled.to_dict()} for text, filled in zip(texts, fill(texts), strict=True)]

    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        """Returns the filled text, and a line with the candidates of each masked byte."""
        # A model that has learned nothing yet fills in anything, and some characters steer a terminal.
        lines = ["".join(map(_printable, prediction["text"]))]
        for one in prediction["masked"]:
            candidates = "  ".join(
                f"{_shown(guess['text'])} {guess['probability']:.1%}" for guess in one["candidates"]
            )
            lines.append(f"  byte {one['position']}: {_shown(one['filled']['text'])}   of  {candidates}")
        return "\n".join(lines)

    def save_processor(
        self,
        model: PerceiverIOPreTrainedModel,
        folder: str | Path,
        *,
        source: str | Path | None = None,
        layout: Layout = "perceiver-io",
    ) -> None:
        """Writes the tokenizer, which is the same in all layouts.

        Args:
            model: The model, whose length becomes the tokenizer's.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: Makes no difference.
        """
        assert isinstance(model, PerceiverIOForMaskedLM)
        tokenizer = PerceiverTokenizer() if source is None else _tokenizer(source)
        tokenizer.model_max_length = model.max_length
        tokenizer.save_pretrained(folder)


def _tokenizer(source: str | Path) -> PerceiverTokenizer:
    """Returns the tokenizer beside a model; the published one if there is none, for it has no files of its own."""
    if Path(source).is_dir() and not Path(source, "tokenizer_config.json").is_file():
        return PerceiverTokenizer()
    tokenizer: PerceiverTokenizer = PerceiverTokenizer.from_pretrained(source)
    return tokenizer


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode("ascii")


def _shown(text: str) -> str:
    return "' '" if text == " " else text

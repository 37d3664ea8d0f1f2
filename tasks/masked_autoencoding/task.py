"""The task of masked autoencoding: pre-training of adapters and encoders without labels.

Shape legend: B batch, M elements, O elements that are asked for, V values of an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.data.unlabelled import read_unlabelled
from perceiver_io.encoder import EncoderConfig
from perceiver_io.extras import require
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.presets import laid_over, variant_parts
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import DatasetRecipe, LoadedModel, PredictOptions, Setup
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.row_task import RowTask
from perceiver_io.running.task import Batch, Collate, Drawing, as_number
from perceiver_io.tasks.audio_classification.data import EMBEDDED as SOUNDS
from perceiver_io.tasks.classification.presets import ENCODERS
from perceiver_io.tasks.image_classification.data import EMBEDDED as PICTURES
from perceiver_io.tasks.image_classification.presets import VARIANTS as IMAGE_VARIANTS
from perceiver_io.tasks.image_classification.presets import config as image_config
from perceiver_io.tasks.masked_autoencoding.model import PerceiverIOForMaskedAutoencoding, draw_hidden
from perceiver_io.tasks.masked_autoencoding.picture import can_draw, draw_reconstructions
from perceiver_io.tasks.masked_autoencoding.presets import config
from perceiver_io.tasks.modalities.audio import AUDIO
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.image import IMAGE
from perceiver_io.tasks.modalities.inputs import Inputs, Settings
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.video import VIDEO
from perceiver_io.tasks.multimodal_classification.data import EMBEDDED as PAIRS
from perceiver_io.tasks.video_classification.data import EMBEDDED as VIDEOS

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["MaskedAutoencodingTask"]

INPUTS = Inputs.of(IMAGE, AUDIO, VIDEO, CLOUD)
EMBEDDED: dict[str, Any] = {**PICTURES, **SOUNDS, **VIDEOS, **PAIRS}

_NUM_DRAWN = 6
_ENDINGS = (".npy", ".png")
_LARGEST_TINY = 16  # sides of images that the smallest variant is for


@dataclass(kw_only=True)
class MaskedAutoencodingRecipe(DatasetRecipe):
    """What a masked autoencoder is trained on, and how.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = tuple(EMBEDDED)

    inputs: list[str] = field(
        default_factory=lambda: [IMAGE.name],
        metadata={"help": f"What a sample has, one or more of {', '.join(INPUTS.modalities)}."},
    )
    mask_ratio: float = field(default=0.5, metadata={"help": "Part of the elements that is hidden."})
    label_column: str = field(
        default="label",
        metadata={
            "help": "A column with labels: they are not read, but split by, as a classifier's data is."
        },
    )
    image: dict[str, Any] = settings_section(IMAGE, "the pictures")
    audio: dict[str, Any] = settings_section(AUDIO, "the recordings")
    video: dict[str, Any] = settings_section(VIDEO, "the videos")
    cloud: dict[str, Any] = settings_section(CLOUD, "the point clouds")
    variant: str | None = field(
        default=None,
        metadata={
            "help": f"Size of the model: of pictures alone one of image-classification's, {', '.join(IMAGE_VARIANTS)}, "
            f"by default tiny for sides of {_LARGEST_TINY} pixels at most, else small; otherwise one of "
            f"{', '.join(ENCODERS)}, by default tiny."
        },
    )
    num_epochs: int | None = 90
    batch_size: int = 64
    learning_rate: float = 2e-3
    num_threads: int | None = 1  # as fast as two for models of this size
    best_metric: str | None = field(
        default="none",
        metadata={"help": "Validation measure that chooses the checkpoint to keep; none: the last."},
    )

    def __post_init__(self) -> None:
        """Checks all values, those of the sections too."""
        super().__post_init__()
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs is {self.inputs}, expected one or more, each once.")
        INPUTS.chosen(self.inputs)
        INPUTS.settings(self)
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio}, expected a part: more than 0, less than 1.")
        known = IMAGE_VARIANTS if self.is_of_images else ENCODERS
        if self.variant is not None and self.variant not in known:
            raise ValueError(f"variant is {self.variant!r:.80}, expected one of {', '.join(known)}.")
        if self.pretrained is not None and self.variant is not None:
            raise ValueError(f"variant cannot be chosen: the model of {self.pretrained} has its own.")

    @property
    def is_of_images(self) -> bool:
        """Whether samples are pictures alone."""
        return self.inputs == [IMAGE.name]


@dataclass(kw_only=True)
class ReconstructionOptions(PredictOptions):
    """What a reconstruction may be told.

    Raises:
        ValueError: The ratio is out of range.
    """

    mask_ratio: float = field(default=0.5, metadata={"help": "Part of the elements that is hidden."})
    seed: int = field(default=0, metadata={"help": "Decides which elements are hidden."})

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio}, expected a part: more than 0, less than 1.")


@register_task("masked-autoencoding")
class MaskedAutoencodingTask(RowTask):
    """Trains and applies `PerceiverIOForMaskedAutoencoding`."""

    model_class = PerceiverIOForMaskedAutoencoding
    recipe_class = MaskedAutoencodingRecipe
    options_class = ReconstructionOptions
    input_metavar = "FILE|INPUT=FILE[,INPUT=FILE]"
    writes_files = True

    def data(self, recipe: MaskedAutoencodingRecipe) -> Splits:
        """Reads files, tables, or an embedded set; labels are passed over."""
        chosen = INPUTS.chosen(recipe.inputs)
        data = read_unlabelled(recipe, *chosen.contents, embedded=EMBEDDED, seed=recipe.seed)
        if all(data.train[0].get(name) is None for name in recipe.inputs):
            found = [name for name in INPUTS.modalities if data.train[0].get(name) is not None]
            raise ValueError(
                f"{recipe.dataset!r} has the inputs {found}, not {recipe.inputs}. Say which with --inputs."
            )
        return data

    def config(self, recipe: MaskedAutoencodingRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        return self.fresh(recipe, data)[0]

    def fresh(
        self, recipe: MaskedAutoencodingRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, PerceiverIOProcessor]:
        """Returns the adapters and the encoder of a new classifier, with decoders of elements, and the processor."""
        chosen, changes = INPUTS.chosen(recipe.inputs), recipe.model_settings
        settings = chosen.settings(recipe)
        processor = chosen.processor(settings, data.train)
        if recipe.is_of_images:
            of: Any = processor.processors[IMAGE.name]
            size, patch = (of.size["height"], of.size["width"]), settings[IMAGE.name].patch_size
            patches = {} if patch is None else {"features": "patches", "patch_size": patch}
            made = image_config(
                size=size,
                image_channels=of.num_channels,
                variant=recipe.variant or ("tiny" if max(size) <= _LARGEST_TINY else "small"),
                image={**patches, **changes.input(IMAGE.name)},
                encoder=changes.encoder,
            )
            inputs, encoder = made.inputs, made.encoder
            assert isinstance(encoder, EncoderConfig)
        else:
            inputs = chosen.adapters(settings, processor, changes)
            preset = variant_parts(ENCODERS, recipe.variant or "tiny", of=self.name)
            encoder = laid_over(EncoderConfig, preset, changes.encoder)
        decoders = {name: changes.output(name) for name in inputs}
        return config(inputs, encoder, decoders=decoders), processor

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model."""
        return INPUTS.load_processor(source)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch and hides elements; in training values vary."""
        chosen = INPUTS.chosen(setup.processor.names)
        return partial(
            self._masked_batch,
            processor=setup.processor,
            adapters=_adapters(setup.model.config),
            ratio=setup.recipe.mask_ratio,
            varied=chosen.settings(setup.recipe) if train else None,
        )

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor) -> Batch:
        """Makes a batch of rows as they are, with nothing hidden."""
        return INPUTS.chosen(processor.names).batch(rows, processor, arguments={})

    def weight(self, batch: Batch) -> Tensor:
        """Returns how many inputs of samples have something hidden: of so many the loss is the mean."""
        return torch.stack([hidden_BM.any(1).sum() for hidden_BM in batch["hidden"].values()]).sum()

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """The share of the variance of hidden values that is explained, of each input."""
        metrics = require("torchmetrics", extra="train")
        names = list(setup.model.config.inputs)
        return {"r2" if len(names) == 1 else f"{name}_r2": metrics.R2Score() for name in names}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares all hidden values that are known."""
        for measure, metric in measures.items():
            for name, targets_BOV in output.targets.items():
                if measure in ("r2", f"{name}_r2"):
                    known_BOV = ~targets_BOV.isnan()
                    metric.update(
                        output.reconstructions[name].float()[known_BOV], targets_BOV.float()[known_BOV]
                    )

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Test samples with what is left of them and what the model makes of that, and what the latents attend to."""
        rows = [setup.data.test[index] for index in range(min(len(setup.data.test), _NUM_DRAWN))]
        model = setup.model.eval()
        found = [
            self._reconstructed(model, row, setup.processor, setup.recipe.mask_ratio, seed=place)
            for place, row in enumerate(rows)
        ]
        view = self.row_view(model, setup.processor, rows[0], "A test sample")
        drawn: dict[str, Drawing] = {"attention.png": partial(draw_view, view)}
        for name in model.config.inputs:
            samples = [one[name] for one in found if name in one and can_draw(one[name][0])]
            if samples:
                file = (
                    "reconstructions.png" if len(model.config.inputs) == 1 else f"reconstructions_{name}.png"
                )
                drawn[file] = partial(draw_reconstructions, samples)
        return drawn

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: ReconstructionOptions
    ) -> list[dict[str, Any]]:
        """Hides elements of files and reconstructs them.

        Args:
            loaded: The model and its processor.
            inputs: The files; of models of several inputs ``image=7.png,audio=7.wav``.
            options: How much is hidden. With `output_dir` each file leaves `NAME-INPUT.npy` there, the input as the
                model takes it with hidden elements as the model has them, and of pictures, videos and spectrograms
                `NAME-INPUT.png`.

        Returns:
            For each file its name, and in `inputs` for each how many `values` it has, how many were `hidden`, and
            the mean `squared_error` of these; and the `files` that were written.

        Raises:
            ValueError: A file cannot be read or would be overwritten, or the weights are damaged.
            OSError: A file cannot be written.
        """
        chosen, results = INPUTS.chosen(loaded.processor.names), []
        if options.output_dir is not None:
            written = [f"{_stem(file)}-{name}" for file in inputs for name in chosen.modalities]
            read = [part.rpartition("=")[2] for file in inputs for part in file.split(",")]
            for ending in _ENDINGS:
                check_outputs(options.output_dir, [one + ending for one in written], read)
        for file in inputs:
            found = self._reconstructed(
                loaded.model, chosen.read(file), loaded.processor, options.mask_ratio, seed=options.seed
            )
            described = [_described(name, *parts) for name, parts in found.items()]
            result: dict[str, Any] = {"file": str(file), "inputs": described}
            if options.output_dir is not None:
                result["files"] = _write(options.output_dir, _stem(file), found)
            results.append(result)
        return results

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents attend to in a file with nothing hidden."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one file at a time, got {len(inputs)}.")
        row = INPUTS.chosen(loaded.processor.names).read(inputs[0])
        return self.row_view(loaded.model, loaded.processor, row, Path(inputs[0]).name)

    def read(self, file: str) -> dict[str, Any]:
        """Opens a file, or those of a sample: ``image=7.png,audio=7.wav``."""
        return INPUTS.read(file)

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a row, over what the model saw of it."""
        view = super().row_view(model, processor, row, title)
        seen = INPUTS.chosen(processor.names).seen(row, processor)
        return AttentionView(maps=view.maps, seen=seen, title=title)

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        explained = ", ".join(
            f"{key.removeprefix(f'{split}_')} {as_number(value):.3f}"
            for key, value in results.items()
            if key.startswith(f"{split}_") and key.endswith("r2")
        )
        line = (
            f"{split} {explained} of what is hidden, squared error {as_number(results[f'{split}_loss']):.4g}"
        )
        line += f" of {results[f'{split}_samples']} samples"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and how well each input was reconstructed."""
        parts = [
            f"{one['input']}: {one['hidden']} of {one['values']} values hidden, squared error "
            f"{as_number(one['squared_error']):.4g}"
            for one in prediction["inputs"]
        ]
        written = f"  written: {'  '.join(prediction['files'])}" if "files" in prediction else ""
        return f"{prediction['file']}: {'; '.join(parts)}{written}"

    def _masked_batch(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        processor: PerceiverIOProcessor,
        adapters: Mapping[str, InputAdapter],
        ratio: float,
        varied: Settings | None,
    ) -> Batch:
        batch = INPUTS.chosen(processor.names).batch(rows, processor, arguments={}, varied=varied)
        hidden = {
            name: draw_hidden(~adapters[name].targets(x, batch["masks"].get(name)).isnan().all(-1), ratio)
            for name, x in batch["inputs"].items()
        }
        return {**batch, "hidden": hidden}

    def _reconstructed(
        self, model: Any, row: Mapping[str, Any], processor: PerceiverIOProcessor, ratio: float, *, seed: int
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """By input the values of a sample, those that are left, and those with what the model has for hidden ones."""
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            batch = self._masked_batch(
                [row], processor=processor, adapters=_adapters(model.config), ratio=ratio, varied=None
            )
        batch = to_device(batch, model.device, dtype=model.dtype)
        found = {}
        with torch.inference_mode():
            output = model(**batch)
        for name, x in batch["inputs"].items():
            adapter = model.perceiver.adapters[name]
            hidden_1M = batch["hidden"][name]
            values_1MV = adapter.targets(x, batch["masks"].get(name))
            made_OV = output.reconstructions[name][0, : int(hidden_1M.sum())]
            if not made_OV.isfinite().all():
                raise ValueError("The model gives values that are not numbers: its weights are damaged.")
            left_1MV, made_1MV = values_1MV.masked_fill(hidden_1M[..., None], torch.nan), values_1MV.clone()
            made_1MV[hidden_1M] = torch.where(values_1MV[hidden_1M].isnan(), torch.nan, made_OV)
            parts = (values_1MV, left_1MV, made_1MV)
            if name != CLOUD.name:  # a cloud's are the features of its points
                grid = adapter(x, batch["masks"].get(name)).grid
                parts = tuple(adapter.from_targets(one, grid) for one in parts)
            found[name] = tuple(one[0].float().cpu() for one in parts)
        return found


def _adapters(model_config: PerceiverIOConfig) -> dict[str, InputAdapter]:
    """Adapters without weights, which know what the targets of inputs are."""
    with torch.device("meta"):
        return {name: model_config.adapter_class(name)(part) for name, part in model_config.inputs.items()}


def _stem(file: str) -> str:
    """The name of a file, or of the first of a sample's."""
    return Path(file.split(",")[0].rpartition("=")[2]).stem


def _described(name: str, x: Tensor, left: Tensor, made: Tensor) -> dict[str, Any]:
    is_real = ~x.isnan()
    is_hidden = left.isnan() & is_real
    error = float((made - x)[is_hidden].square().mean()) if is_hidden.any() else None
    return {
        "input": name,
        "values": int(is_real.sum()),
        "hidden": int(is_hidden.sum()),
        "squared_error": error,
    }


def _write(folder: str, stem: str, found: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> list[str]:
    names = []
    with writing_into(folder) as partial_folder:
        for name, parts in found.items():
            names.append(f"{stem}-{name}.npy")
            np.save(partial_folder / names[-1], parts[2].numpy())
            if can_draw(parts[0]):
                names.append(f"{stem}-{name}.png")
                draw_reconstructions([parts], partial_folder / names[-1])
    return [str(Path(folder, one)) for one in names]

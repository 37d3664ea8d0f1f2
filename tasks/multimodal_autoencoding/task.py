"""The multimodal autoencoding task."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.files import check_outputs, is_path, writing_into
from perceiver_io.media.clips import Clip, ClipFormat, read_clips
from perceiver_io.media.images import write_image
from perceiver_io.media.sound import write_wav
from perceiver_io.media.video_writer import write_video
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_sound import SeenSound
from perceiver_io.pictures.seen_video import SeenVideo
from perceiver_io.printable import printable
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Setup, TrainableTask
from perceiver_io.running.measures import mean_metric
from perceiver_io.running.task import OURS, Batch, Collate, Drawing, Layout, as_number
from perceiver_io.tasks.multimodal_autoencoding.data import read_video_clips
from perceiver_io.tasks.multimodal_autoencoding.inputs import clip_inputs, drawn_queries
from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr_metric
from perceiver_io.tasks.multimodal_autoencoding.model import (
    AUDIO,
    IMAGE,
    LABEL,
    PerceiverIOForMultimodalAutoencoding,
)
from perceiver_io.tasks.multimodal_autoencoding.picture import (
    draw_reconstructions,
    reconstruction_picture,
    side_by_side,
)
from perceiver_io.tasks.multimodal_autoencoding.pipeline import (
    MultimodalAutoencodingPipeline,
    VideoReconstruction,
)
from perceiver_io.tasks.multimodal_autoencoding.presets import config
from perceiver_io.tasks.multimodal_autoencoding.processor import ClipProcessor
from perceiver_io.tasks.multimodal_autoencoding.recipe import MultimodalAutoencodingRecipe
from perceiver_io.tasks.multimodal_autoencoding.variation import ClipAugmentation, varied
from perceiver_io.vector_decoders import ClassificationDecoder

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["MultimodalAutoencodingTask", "MultimodalPredictOptions"]

_VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
_SUFFIXES = (".mp4", "-beside.mp4", ".wav", ".png", ".json")
_NUM_DRAWN = 4


@dataclass(kw_only=True)
class MultimodalPredictOptions(PredictOptions):
    """What the reconstruction of videos may be told.

    Raises:
        ValueError: A number is out of range.
    """

    num_clips: int = field(
        default=1,
        metadata={"help": "How many clips to reconstruct, one after the other; 0 for the whole file."},
    )
    start: float = field(default=0.0, metadata={"help": "Where to start in the file, in seconds."})
    top_k: int = field(default=5, metadata={"help": "How many labels to print."})
    frame_rate: float | None = field(
        default=None,
        metadata={
            "help": "Frames a second that the model was trained with; as saved with it, or 25, if not given."
        },
    )

    def __post_init__(self) -> None:
        if self.num_clips < 0:
            raise ValueError(f"num_clips is {self.num_clips}, expected 1 or more, or 0 for the whole file.")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start is {self.start} seconds, expected 0 or more.")
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, expected 1 or more.")
        if self.frame_rate is not None and not 0 < self.frame_rate < math.inf:
            raise ValueError(f"frame_rate is {self.frame_rate}, expected a number above zero.")


@register_task("multimodal-autoencoding")
class MultimodalAutoencodingTask(TrainableTask):
    """Trains `PerceiverIOForMultimodalAutoencoding`, and applies it to video files."""

    model_class = PerceiverIOForMultimodalAutoencoding
    recipe_class = MultimodalAutoencodingRecipe
    input_metavar = "VIDEO"
    options_class = MultimodalPredictOptions
    writes_files = True

    def data(self, recipe: MultimodalAutoencodingRecipe) -> Splits:
        """Reads videos, and cuts them in clips."""
        return read_video_clips(
            recipe,
            recipe.clip_format,
            stride=recipe.clip_stride,
            at_random=recipe.random_starts,
            seed=recipe.seed,
        )

    def config(self, recipe: MultimodalAutoencodingRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings.

        Unless it is as published, it hears sound as loud as positions are, and starts with the mean and the deviation
        of the pixels and of the sound.
        """
        changes, of, found = recipe.model_settings, recipe.clip_format, data.train.statistics
        heard: dict[str, Any] = {}
        made: dict[str, dict[str, Any]] = {IMAGE: {}, AUDIO: {}}
        if not recipe.variant.startswith("kinetics"):
            loudness = found.sound_std or 1.0
            heard = {"scale": 1 / loudness}
            made[IMAGE] = {"offset": found.pixel_mean, "scale": found.pixel_std or 1.0}
            made[AUDIO] = {"scale": loudness}
        return config(
            variant=recipe.variant,
            size=(of.num_frames, *of.size),
            num_samples=of.num_samples,
            class_names=data.class_names,
            image=changes.input(IMAGE),
            audio={**heard, **changes.input(AUDIO)},
            encoder=changes.encoder,
            packing=changes.packing,
            shared_attention=changes.shared_attention,
            image_output={**made[IMAGE], **changes.output(IMAGE)},
            audio_output={**made[AUDIO], **changes.output(AUDIO)},
            label_output=changes.output(LABEL),
        )

    def processor(self, recipe: MultimodalAutoencodingRecipe, data: Splits) -> ClipProcessor:
        """Returns what takes clips of videos."""
        return ClipProcessor(**asdict(recipe.clip_format))

    def load_processor(self, source: str | Path) -> ClipProcessor | None:
        """Loads the processor beside a model; None where there is none, as for those of older versions."""
        if is_path(source) and not Path(source, "processor_config.json").exists():
            return None
        found = PerceiverIOProcessor.from_pretrained(source)
        return found if isinstance(found, ClipProcessor) else None

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes processor_config.json; the layout of `transformers` has none for videos with sound."""
        if layout == OURS:
            found = None if source is None else self.load_processor(source)
            (found or ClipProcessor.of(model.config)).save_pretrained(folder)

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: MultimodalAutoencodingRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the label's output the data's classes; the label's input, which nothing is shown to, stays.

        Raises:
            ValueError: The model takes other clips than the recipe says, or knows no labels and the data has some.
        """
        wanted = recipe.clip_format
        found = (processor or ClipProcessor.of(config, frame_rate=recipe.frame_rate)).clip_format
        if wanted != found:
            raise ValueError(
                f"The model takes clips of {_format(found)}, the recipe says {_format(wanted)}. Choose the model's "
                "with variant, num_frames, image_size, frame_rate and sample_rate."
            )
        if not data.class_names:
            return config, processor
        label = config.outputs.get(LABEL)
        if not isinstance(label, ClassificationDecoder.Config):
            raise ValueError(f"The data has classes, but the model has no output {LABEL!r} of classes.")
        outputs = {**config.outputs, LABEL: replace(label, num_classes=len(data.class_names))}
        tuned = copy.deepcopy(config)
        tuned.outputs, tuned.id2label = outputs, dict(enumerate(data.class_names))
        return tuned, processor

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch; in training clips are varied, and some queries of each drawn at random."""
        outputs, recipe = setup.model.config.outputs, setup.recipe
        scales = {name: getattr(part, "scale", 1.0) for name, part in outputs.items()}
        training = None
        if train:
            numbers = {IMAGE: recipe.num_points, AUDIO: recipe.num_sound_points}
            training = recipe.augmentation_settings(), numbers
        losses = {
            "loss_weights": recipe.weights(scales),
            "differences": dict.fromkeys((IMAGE, AUDIO), recipe.loss_difference),
        }
        return partial(_batch, outputs=outputs, losses=losses, training=training)

    def weight(self, batch: Batch) -> int:
        """Returns the number of clips.

        Several processes take the steps of one only where each of a batch's outputs is known of equally many of their
        clips: a loss is the mean over the clips that have a sound, or a label.
        """
        return len(batch[IMAGE])

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """PSNR of frames and of sound in decibels, that of simple guesses beside it, and the label's accuracy.

        `mean_frame_psnr` is that of the mean frame of all training clips, of the same class where there are classes;
        `own_mean_frame_psnr` of each clip's own mean frame; `silence_psnr` of no sound. All are of the mean squared
        error of all values.
        """
        names = ("psnr_video", "psnr_audio", "mean_frame_psnr", "own_mean_frame_psnr", "silence_psnr")
        found = {name: psnr_metric() for name in names}
        found["mean_frame_psnr"].register_buffer("mean_frames", setup.data.train.statistics.mean_frames)
        if setup.data.class_names:
            found["label_accuracy"] = mean_metric(higher_is_better=True)
        return found

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares what is real of all clips; frames and sound are cut to the values that files have."""
        made, masks = output.reconstruction, batch["masks"]
        frames: torch.Tensor = batch[IMAGE]
        means: Any = measures["mean_frame_psnr"].mean_frames
        labels = batch.get("targets", {}).get(LABEL)
        real = torch.ones_like(frames[:, :, 0], dtype=torch.bool) if IMAGE not in masks else masks[IMAGE]
        real = real[:, :, None].expand_as(frames)
        measures["psnr_video"].update(made[IMAGE].float().clamp(0, 1), frames, real)
        mean_BFHW = means[:1].expand(len(frames), -1, -1, -1) if labels is None else means[labels]
        measures["mean_frame_psnr"].update(mean_BFHW[:, None].expand_as(frames), frames, real)
        own_BFHW = torch.where(real, frames, 0).sum(1) / real.sum(1).clamp(min=1)
        measures["own_mean_frame_psnr"].update(own_BFHW[:, None].expand_as(frames), frames, real)
        sound = batch.get(AUDIO, made[AUDIO][:0])
        heard = masks.get(AUDIO)
        measures["psnr_audio"].update(made[AUDIO][: len(sound)].float().clamp(-1, 1), sound, heard)
        measures["silence_psnr"].update(torch.zeros_like(sound), sound, heard)
        if labels is not None:
            measures["label_accuracy"].update(made[LABEL].argmax(-1) == labels)

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Some test clips above their reconstructions, and what the latents attend to in the first."""
        rows = setup.data.test
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _NUM_DRAWN)).round().astype(int))
        clips = [rows[int(index)]["clip"] for index in chosen]
        pipeline = MultimodalAutoencodingPipeline(setup.model, frame_rate=setup.recipe.frame_rate)
        videos = [pipeline.reconstruct([clip]) for clip in clips]
        pairs = [(one.input_frames, one.frames, one.input_audio, one.audio) for one in videos]
        captions = [
            _caption(f"A test clip at {clip.start:.2f} s", one)
            for clip, one in zip(clips, videos, strict=True)
        ]
        return {
            "reconstructions.png": partial(draw_reconstructions, pairs, captions),
            "attention.png": partial(draw_view, _view(pipeline, clips[0], "A test clip")),
        }

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        value = {
            name.removeprefix(f"{split}_"): as_number(results[name])
            for name in results
            if name.startswith(f"{split}_")
        }
        line = (
            f"{split} PSNR: video {value['psnr_video']:.2f} dB (mean frame {value['mean_frame_psnr']:.2f}), sound "
            f"{value['psnr_audio']:.2f} dB (silence {value['silence_psnr']:.2f})"
        )
        if "label_accuracy" in value:
            line += f", label {value['label_accuracy']:.1%}"
        line += f", {results[f'{split}_samples']} clips"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: MultimodalPredictOptions
    ) -> list[dict[str, Any]]:
        """Reconstructs video files.

        Args:
            loaded: The model.
            inputs: The video files.
            options: `num_clips`, `start`, `top_k` and `frame_rate` as `MultimodalAutoencodingPipeline` takes them (0
                clips are all); `output_dir`, where each file leaves a video with sound, one that has its frames beside
                those of the reconstruction, a WAV file, a picture that compares both, and the result as JSON, all with
                the file's name. Nothing is written if None.

        Returns:
            For each file its name, `num_clips`, `num_frames`, `has_sound`, `labels` with probabilities, `psnr_video`
            and `psnr_audio` in decibels (None where there is nothing to compare), and `written`, the files.

        Raises:
            ValueError: A file cannot be read or would be overwritten.
            OSError: A file cannot be written.
        """
        for file in inputs:
            if not Path(file).is_file():
                raise ValueError(f"There is no video file {file}.")
        if options.output_dir is not None:
            names = [Path(file).stem + suffix for file in inputs for suffix in _SUFFIXES]
            check_outputs(options.output_dir, names, inputs, overwrite=options.overwrite)
        pipeline = _pipeline(loaded, options.frame_rate)
        results = []
        for file in inputs:
            video = _reconstructed(pipeline, file, options)
            result = _result(file, video)
            if options.output_dir is not None:
                _write(options.output_dir, Path(file).stem, video, result)
            results.append(result)
        return results

    def file_suffixes(self) -> set[str]:
        """Returns the usual endings of video files."""
        return _VIDEOS

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns some lines: the file, its labels, how close the reconstruction is, and what was written."""
        labels = "  ".join(
            f"{printable(one['label'])} {one['probability']:.1%}" for one in prediction["labels"]
        )
        video, audio = (_decibels(prediction[name]) for name in ("psnr_video", "psnr_audio"))
        sound = f"sound {audio}" if prediction["has_sound"] else "the file has no sound"
        lines = [
            f"{prediction['file']}: {labels}",
            f"  {prediction['num_frames']} frames, PSNR: video {video}, {sound}",
        ]
        if prediction["written"]:
            lines.append(f"  written: {'  '.join(prediction['written'])}")
        return "\n".join(lines)

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the model attends to in the first clip of a video file, its frames and its sound."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one video at a time, got {len(inputs)} files.")
        pipeline = _pipeline(loaded, None)
        (clip,) = read_clips(inputs[0], pipeline.clip_format)
        return _view(pipeline, clip, Path(inputs[0]).name)


def _pipeline(loaded: LoadedModel[Any], frame_rate: float | None) -> MultimodalAutoencodingPipeline:
    if frame_rate is None:
        frame_rate = 25.0 if loaded.processor is None else loaded.processor.frame_rate
    return MultimodalAutoencodingPipeline(loaded.model, frame_rate=frame_rate)


def _batch(
    rows: Sequence[Mapping[str, Any]],
    *,
    outputs: Mapping[str, ComponentConfig],
    losses: Mapping[str, Any],
    training: tuple[ClipAugmentation, Mapping[str, int]] | None,
) -> dict[str, Any]:
    """The arguments of the model. The label is only a target: whatever it is, a mask token is what the model sees."""
    if training is not None:
        rows = varied(rows, training[0])
    inputs, masks = clip_inputs([row["clip"] for row in rows])
    batch: dict[str, Any] = {**inputs, "masks": masks, **losses}
    if "label" in rows[0] and LABEL in outputs:
        batch["targets"] = {LABEL: torch.tensor([row["label"] for row in rows])}
    if training is not None:
        batch["points"] = drawn_queries(inputs, masks, outputs, training[1])
    return batch


def _view(pipeline: MultimodalAutoencodingPipeline, clip: Clip, title: str) -> AttentionView:
    tensors, masks = pipeline.inputs(clip)
    maps = pipeline.model.perceiver.attention_maps(tensors, masks)
    clip_format = pipeline.clip_format
    seen: dict[str, Seen] = {
        IMAGE: SeenVideo(frames=clip.frames, frame_rate=clip_format.frame_rate, num_real=clip.num_real_frames)
    }
    if clip.audio is not None:
        seen[AUDIO] = SeenSound(
            samples=clip.audio, sample_rate=clip_format.sample_rate, num_real=clip.num_real_samples
        )
    return AttentionView(maps=maps, seen=seen, title=title)


def _format(of: ClipFormat) -> str:
    return (
        f"{of.num_frames} frames of {of.size[0]}x{of.size[1]} at {of.frame_rate:g} frames a second with "
        f"{of.num_samples} samples"
    )


def _reconstructed(
    pipeline: MultimodalAutoencodingPipeline, file: str, options: MultimodalPredictOptions
) -> VideoReconstruction:
    """Reconstructs a file, with a bar on stderr."""
    clips = read_clips(file, pipeline.clip_format, num_clips=options.num_clips or None, start=options.start)
    with tqdm(
        total=len(clips) * pipeline.num_queries,
        desc=Path(file).name,
        unit=" queries",
        unit_scale=True,
        delay=1,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # to a file, a line each ten seconds is enough
        dynamic_ncols=True,
    ) as bar:
        return pipeline.reconstruct(clips, top_k=options.top_k, on_decoded=bar.update)


def _result(file: str, video: VideoReconstruction) -> dict[str, Any]:
    return {
        "file": str(file),
        "num_clips": video.num_clips,
        "num_frames": len(video.frames),
        "has_sound": video.input_audio is not None,
        "labels": [{"label": label, "probability": p} for label, p in video.labels],
        "psnr_video": _finite(video.psnr_video),
        "psnr_audio": _finite(video.psnr_audio),
        "written": [],
    }


def _write(folder: str, name: str, video: VideoReconstruction, result: dict[str, Any]) -> None:
    names = [f"{name}{suffix}" for suffix in _SUFFIXES]
    picture = reconstruction_picture(
        video.input_frames,
        video.frames,
        audio=video.input_audio,
        audio_reconstruction=video.audio,
        captions=[
            _caption(name, video),
            *(["   ".join(f"{label} {p:.1%}" for label, p in video.labels[:3])] if video.labels else []),
        ],
    )
    result["written"] = [str(Path(folder, name)) for name in names]
    content = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    with writing_into(folder) as partial:
        files = [partial / name for name in names]
        beside = side_by_side(video.input_frames, video.frames)
        for file, frames in ((files[0], video.frames), (files[1], beside)):
            write_video(
                file, frames, frame_rate=video.frame_rate, audio=video.audio, sample_rate=video.sample_rate
            )
        write_wav(files[2], video.audio, sample_rate=video.sample_rate)
        write_image(files[3], picture)
        files[4].write_text(content, encoding="utf-8")


def _caption(name: str, video: VideoReconstruction) -> str:
    sound = "no sound in the file"
    if video.input_audio is not None:
        sound = f"sound {_decibels(_finite(video.psnr_audio))}"
    return f"{name}   PSNR: video {_decibels(_finite(video.psnr_video))}, {sound}"


def _finite(decibels: float | None) -> float | None:
    """JSON has no infinity; equal arrays have nothing to measure."""
    return decibels if decibels is not None and math.isfinite(decibels) else None


def _decibels(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f} dB"

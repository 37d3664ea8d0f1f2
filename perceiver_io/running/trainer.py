"""`transformers.Trainer`, made safe to interrupt at any moment and to resume exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from perceiver_io.files import remove, settle, write_error
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.running.batches import EpochBatches, SeededBatches, take_batch
from perceiver_io.running.checkpoints import (
    checkpoint_state,
    damaged,
    newest_checkpoint,
    remove_old_checkpoints,
)
from perceiver_io.running.estimate import Estimate
from perceiver_io.running.evaluator import num_threads
from perceiver_io.running.interrupt import InterruptGuard
from perceiver_io.running.optimization import custom_optimizer, num_cosine_steps
from perceiver_io.running.progress import Progress
from perceiver_io.running.recipe import TrainingRecipe

__all__ = ["Trainer"]

Collate = Callable[[list[Any]], Mapping[str, Any]]


class Trainer(transformers.Trainer):
    """Trains a model with a recipe.

    What it adds to the Trainer that it is: checkpoints are whole or absent, even on Ctrl-C, a full disk or a killed
    process; a resumed run ends with the weights of an uninterrupted one, bit for bit on a CPU; several processes take
    the steps that one process with as large a batch would take; a loss that is not a number ends the run; everything it
    prints goes to stderr.

    Args:
        model: The model. Its output has a `loss` where its inputs have labels.
        recipe: The recipe.
        args: What `training_arguments` returned for the recipe.
        train_data: Rows to train on, by index.
        validation_data: Rows to evaluate on during training, or None.
        collate: Makes a batch of training rows, with augmentation.
        weight: Returns of how many things a batch's loss is the mean.
        evaluate: Evaluates on the validation data, given what to call as the model, and returns the measures by name.
        processor: Saved with each checkpoint.
        callbacks: Further callbacks.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        recipe: TrainingRecipe,
        args: transformers.TrainingArguments,
        train_data: Any,
        validation_data: Any,
        collate: Collate,
        weight: Callable[[Mapping[str, Any]], float | torch.Tensor],
        evaluate: Callable[[Callable[..., Any]], dict[str, float]],
        processor: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe = recipe
        self.weight = weight
        self.measure = evaluate
        # Not the base class's: it would write a tokenizer's ids into the model's configuration.
        self.processor = processor
        self.interrupts = InterruptGuard(immediate=args.world_size > 1)
        self.clock = _Clock()
        self._partial: Path | None = None
        self.checkpoints = Path(args.output_dir or ".")
        self.batches = EpochBatches(
            len(train_data),
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            process=args.process_index,
            num_processes=args.world_size,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=take_batch,
            train_dataset=SeededBatches(train_data, collate, seed=recipe.seed),
            eval_dataset=validation_data,
            optimizer_cls_and_kwargs=custom_optimizer(recipe),
            callbacks=[_RunCallback(self), self.clock, *callbacks],
        )
        # The base class notes a setting of text generation there, which a strict configuration refuses to read.
        vars(model.config).pop("use_cache", None)
        self.remove_callback(ProgressCallback)
        self.progress = Progress(_estimate(recipe, args))
        self.add_callback(self.progress)

    def fit(self, *, resume: bool = False) -> None:
        """Trains to the end, and leaves the best weights in the model, or the last ones if there is no best.

        Args:
            resume: Go on from the newest checkpoint, if there is one.

        Raises:
            ValueError: The checkpoint to resume is damaged or doesn't fit the model.
            OSError: A checkpoint cannot be written. Earlier ones are whole.
            FloatingPointError: The loss became infinite or not a number.
            KeyboardInterrupt: On Ctrl-C, after a checkpoint was written; `Terminated` on SIGTERM.
        """
        checkpoint = newest_checkpoint(self.checkpoints) if resume else None
        state = None if checkpoint is None else checkpoint_state(checkpoint)
        self.clock.start(state)
        if self.recipe.gradient_checkpointing:
            # Renamed within transformers 5.
            name = "activation_checkpointing_enable"
            getattr(self.model, name if hasattr(self.model, name) else "gradient_checkpointing_enable")()
        with self.interrupts, num_threads(self.recipe.num_threads), closing(self.progress):
            if checkpoint is not None and state is not None and state.global_step >= state.max_steps:
                # Stopped between the last step and the results. The Trainer would train a step too many.
                self.state = state
                best = (
                    _best_checkpoint(state, self.args.output_dir)
                    if self.args.load_best_model_at_end
                    else None
                )
                self._load_from_checkpoint(str(best or checkpoint))
            else:
                self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    @property
    def train_seconds(self) -> float:
        """Time that training took until its end, interruptions left out."""
        return self.clock.seconds

    @property
    def forward(self) -> Callable[..., Any]:
        """What to call as the model in an evaluation: the model, in its wrapper where its weights are sharded."""
        model: Callable[..., Any] | None = self.model_wrapped if self.is_fsdp_enabled else self.model
        assert model is not None
        return model

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluates on the validation data, logs what was measured, and returns it."""
        measured = self.measure(self.forward)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Returns the loss, weighted so that the mean over processes is that of all samples together."""
        output = model(**inputs)
        loss = output.loss
        if self.args.world_size > 1:
            loss = loss * self._share(inputs)
        return (loss, output) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Returns the batches of this process. `accelerate` would deal them out in another order."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=take_batch,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return loader

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Returns 0: an estimate by parameters is wrong for a Perceiver, and walks all of them each step."""
        return 0

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Creates the learning rate schedule, whose cosine is as long as the recipe says."""
        if self.recipe.schedule == "constant-then-cosine":
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            cosine_steps = num_cosine_steps(self.recipe, num_training_steps, warmup_steps)
            self.args.lr_scheduler_kwargs = {"num_decay_steps": cosine_steps}
        return super().create_scheduler(num_training_steps, optimizer)

    def _share(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """How much this process's part of a batch weighs, relative to an equal part."""
        weight = torch.as_tensor(self.weight(batch), dtype=torch.float32, device=self.args.device)
        total = weight.clone()
        torch.distributed.all_reduce(total)
        return weight * self.args.world_size / total.clamp(min=1e-12)

    # Whole checkpoints: all that the base class writes goes to a folder beside, which is renamed when it is complete.

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._partial is None else str(self._partial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.checkpoints
        name = f"checkpoint-{self.state.global_step}"
        with self.interrupts.held_back():
            self._partial = folder / f".partial-{name}"
            try:
                with no_progress_bars():
                    super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    if self.processor is not None:
                        self.processor.save_pretrained(self._partial / name)
                    best = self.state.best_global_step
                    if best is not None and (
                        best == self.state.global_step or (folder / f"checkpoint-{best}").is_dir()
                    ):
                        self.state.best_model_checkpoint = str(folder / f"checkpoint-{best}")
                    self.state.save_to_json(str(self._partial / name / "trainer_state.json"))
                    settle(self._partial / name)
                    remove(folder / name)
                    (self._partial / name).rename(folder / name)
                    remove(self._partial)
            except (OSError, RuntimeError, SafetensorError) as error:
                # torch reports a full disk as a RuntimeError.
                remove(self._partial)
                raise write_error(folder / name, error) from error
            finally:
                self._partial = None
            self.accelerator.wait_for_everyone()
            self.state.best_model_checkpoint = _best_checkpoint(self.state, self.args.output_dir)
            if self.args.should_save:
                keep = self.recipe.save_total_limit
                remove_old_checkpoints(folder, keep=keep, best=self.state.best_model_checkpoint)

    # Clear errors: whatever goes wrong when a checkpoint is read means that it is damaged.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _reading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        if load_result.missing_keys or load_result.unexpected_keys:
            raise ValueError(f"missing {load_result.missing_keys}, unexpected {load_result.unexpected_keys}")


class _RunCallback(TrainerCallback):
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        # The folder may have been moved since the checkpoint was written.
        state.best_model_checkpoint = _best_checkpoint(state, args.output_dir)

    def on_epoch_begin(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        # accelerate forwards the epoch to a sampler, but not through all the wrappers of a resumed distributed run.
        self.trainer.batches.set_epoch(math.floor(state.epoch or 0))

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        # The base class has decided already. A validation loss stands beside the training loss of the same steps.
        control.should_log = control.should_log or control.should_evaluate
        if self.trainer.interrupts.requested:
            # At an epoch's last step the evaluation must come first: it is not repeated after resuming.
            epoch_ends = float(state.epoch or 0).is_integer() or control.should_training_stop
            control.should_save = control.should_save or not epoch_ends or args.save_strategy == "steps"

    def on_epoch_end(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        control.should_log = control.should_log or control.should_evaluate

    def on_save(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if self.trainer.interrupts.requested:
            raise self.trainer.interrupts.error

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(
                f"The training loss became {loss} before step {state.global_step}. Lower learning_rate, or raise "
                "warmup_fraction."
            )


class _Clock(TrainerCallback, ExportableState):
    """Counts the seconds of training; the Trainer keeps `state` in each checkpoint."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.started = time.monotonic()

    def start(self, state: TrainerState | None) -> None:
        stored: Any = {} if state is None else state.stateful_callbacks or {}
        self.seconds = stored.get(type(self).__name__, {}).get("attributes", {}).get("seconds", 0.0)
        self.started = time.monotonic()

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seconds": self.seconds + time.monotonic() - self.started}}

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self.seconds += time.monotonic() - self.started


def _estimate(recipe: TrainingRecipe, args: transformers.TrainingArguments) -> Estimate:
    length = f"{recipe.num_epochs} epochs" if recipe.max_steps is None else f"{recipe.max_steps} steps"
    if args.device.type != "cpu":
        return Estimate(what=length, where=str(args.device))
    threads = recipe.num_threads or torch.get_num_threads()
    return Estimate(what=length, where=f"{threads} thread{'s' * (threads > 1)}", shorter=recipe.shorter)


@contextmanager
def _reading(checkpoint: str | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise damaged(Path(checkpoint or "?"), error) from error


def _best_checkpoint(state: TrainerState, folder: str | None) -> str | None:
    path = Path(folder or "") / f"checkpoint-{state.best_global_step}"
    return str(path) if state.best_global_step is not None and path.is_dir() else None

"""The progress bar of a training run, on stderr."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from perceiver_io.running.estimate import Estimate

__all__ = ["Progress"]


class Progress(ProgressCallback):
    """A bar over all steps, one line for each evaluation, and one that says how long it will take.

    The base class writes a line for everything that is logged, to stdout, where a program's results belong.

    Args:
        estimate: Says how long it will take.
    """

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self.estimate = estimate
        self.training_bar: Any = None
        self.loss: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Opens the bar, where a resumed run left it."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            # To a file a line each ten seconds is enough.
            interval = 0.2 if sys.stderr.isatty() else 10
            self.training_bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                unit=" steps",
                mininterval=interval,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar on."""
        super().on_step_end(args, state, control, **kwargs)
        line = self.estimate.after(state.global_step, state.max_steps)
        if line is not None and self.training_bar is not None:
            self.training_bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar's line, so that an error has its own."""
        if self.training_bar is not None:
            self.training_bar.close()
        self.training_bar = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Shows the training loss on the bar, and an evaluation as a line."""
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        if "loss" in logs:
            self.loss = logs["loss"]
            self.training_bar.set_postfix(loss=f"{self.loss:.4f}", refresh=False)
        evaluation = {
            name.removeprefix("eval_"): value
            for name, value in logs.items()
            if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))
        }
        if evaluation:
            parts = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in evaluation.items()]
            training = "" if self.loss is None else f"training loss {self.loss:.4f}   "
            line = f"epoch {state.epoch or 0:g}   {training}validation {', '.join(parts)}"
            self.training_bar.write(line, file=sys.stderr)

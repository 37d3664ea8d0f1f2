"""The one evaluator: of validation during training, of the final test, and of the command `evaluate`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from perceiver_io.extras import require
from perceiver_io.running.batches import SeededBatches, dealt_batches, take_batch
from perceiver_io.running.measures import LOSS, mean_metric
from perceiver_io.running.task import Setup, TrainableTask

__all__ = ["evaluate_rows", "num_threads", "to_device"]


def evaluate_rows(
    task: TrainableTask,
    setup: Setup,
    rows: Any,
    *,
    forward: Callable[..., Any] | None = None,
    title: str = "evaluating",
) -> dict[str, Any]:
    """Applies a model to rows and measures what comes out, in constant memory.

    Under the recipe's precision, on the model's device. In several processes each takes every so many batches, and the
    measures are added up over all of them.

    Args:
        task: What is measured, and how rows become batches.
        setup: The run.
        rows: The rows.
        forward: What is called instead of the model, such as the model in a wrapper for several processes.
        title: What a bar of progress is called, which is shown if it takes long.

    Returns:
        The measures' values by name, `loss` among them if the model gives one.
    """
    recipe, model = setup.recipe, setup.model
    measures = {LOSS: mean_metric(higher_is_better=False), **task.measures(setup)}
    for metric in measures.values():
        metric.to(model.device)
    own = {name: metric for name, metric in measures.items() if name != LOSS}
    process, num_processes = _processes()
    dealt = dealt_batches(
        len(rows), batch_size=recipe.eval_batch_size, process=process, num_processes=num_processes
    )
    loader = DataLoader(
        SeededBatches(rows, task.collator(setup, train=False), seed=recipe.seed),
        batch_sampler=[batch for batch, _ in dealt],
        collate_fn=take_batch,
        num_workers=recipe.num_workers,
    )
    bar = require("tqdm.auto", extra="train").tqdm(
        zip(loader, dealt, strict=True),
        total=len(dealt),
        desc=title,
        delay=1,
        disable=process != 0,
        leave=False,
        mininterval=0.2 if sys.stderr.isatty() else 10,
        file=sys.stderr,
    )
    training, has_loss = model.training, False
    model.eval()
    try:
        with torch.no_grad(), num_threads(recipe.num_threads):
            for batch, (_, counts) in bar:
                batch = to_device(batch, model.device)
                with _precision(recipe.precision, model.device):
                    output = (forward or model)(**batch)
                has_loss = output.loss is not None
                if not counts:
                    continue
                if has_loss:
                    measures[LOSS].update(output.loss.float(), weight=task.weight(batch))
                task.update(own, output, batch)
            return {
                name: metric.compute().cpu()
                for name, metric in measures.items()
                if has_loss or metric is not measures[LOSS]
            }
    finally:
        model.train(training)


def to_device(value: Any, device: torch.device, *, dtype: torch.dtype | None = None) -> Any:
    """Returns a batch whose tensors, nested ones too, are on a device.

    Args:
        value: A tensor, a mapping of such values, or anything else, which stays as it is.
        device: The device.
        dtype: Type of its floating-point tensors; as they are if None.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        return {name: to_device(one, device, dtype=dtype) for name, one in value.items()}
    return value


@contextlib.contextmanager
def num_threads(number: int | None) -> Iterator[None]:
    """Lets tensor operations use so many processor threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _processes() -> tuple[int, int]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()

"""From a recipe to what `transformers.Trainer` takes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import TrainingArguments

from perceiver_io.extras import require
from perceiver_io.running.recipe import TrainingRecipe

__all__ = ["custom_optimizer", "num_cosine_steps", "training_arguments"]

_SCHEDULERS = {
    "cosine": "cosine",
    "constant": "constant_with_warmup",
    "constant-then-cosine": "warmup_stable_decay",
}


def training_arguments(
    recipe: TrainingRecipe, *, checkpoints: str, has_validation: bool
) -> TrainingArguments:
    """Returns the arguments of `transformers.Trainer` for a recipe.

    Under `torchrun` or `accelerate launch` this sets up the process group.

    Args:
        recipe: The recipe.
        checkpoints: Folder for the checkpoints.
        has_validation: Whether there is a validation set to evaluate on.

    Raises:
        ValueError: There are several GPUs, and this is the only process.
        ImportError: `accelerate` is not installed.
    """
    require("accelerate", extra="train")
    use_cpu = recipe.device == "cpu" or not torch.accelerator.is_available()
    every = "epoch" if recipe.evaluate_every is None else "steps"
    keep_best = has_validation and recipe.best_metric not in (None, "none")
    arguments: dict[str, Any] = {
        "output_dir": checkpoints,
        "seed": recipe.seed,
        "num_train_epochs": recipe.num_epochs or 0,  # 0: not known before the data is
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.eval_batch_size,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.beta1,
        "adam_beta2": recipe.beta2,
        # One kernel for all parameters: for small models the optimizer is otherwise a good part of a step.
        "optim": "adamw_torch_fused",
        "lr_scheduler_type": _SCHEDULERS[recipe.schedule],
        "warmup_steps": recipe.warmup_fraction if recipe.warmup_steps is None else recipe.warmup_steps,
        "max_grad_norm": recipe.max_grad_norm,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "bf16": recipe.precision == "bf16",
        "torch_compile": recipe.compile,
        "use_cpu": use_cpu,
        "dataloader_num_workers": recipe.num_workers,
        "dataloader_pin_memory": not use_cpu,
        "eval_strategy": every if has_validation else "no",
        "eval_steps": recipe.evaluate_every,
        "save_strategy": every,
        "save_steps": recipe.evaluate_every or 500,
        "load_best_model_at_end": keep_best,
        "metric_for_best_model": recipe.best_metric if keep_best else None,
        "logging_strategy": "steps" if recipe.log_every else "epoch",
        "logging_steps": recipe.log_every or 500,
        # A loss that is not finite is reported and ends the run; looking for one each step would stall a GPU.
        "logging_nan_inf_filter": False,
        "report_to": ["tensorboard"] if _use_tensorboard(recipe) else [],
        # Batches come collated by the task; see batches.py.
        "remove_unused_columns": False,
        # Every parameter of a model takes part in every step.
        "ddp_find_unused_parameters": False,
    }
    args = TrainingArguments(**arguments)
    if args.n_gpu > 1:  # the Trainer would wrap the model in torch.nn.DataParallel
        raise ValueError(
            f"There are {args.n_gpu} GPUs, but one process. Start one for each: torchrun --nproc-per-node {args.n_gpu} "
            "-m perceiver_io.cli train …; or use one of them: CUDA_VISIBLE_DEVICES=0 perceiver-io train …"
        )
    return args


def custom_optimizer(recipe: TrainingRecipe) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """Returns the class and arguments of an optimizer that `transformers.Trainer` lacks, or None.

    Raises:
        ImportError: The library with the optimizer is not installed.
    """
    if recipe.optimizer != "lamb":
        return None
    lamb = require("timm.optim", extra="train").Lamb
    # Gradients are clipped by the Trainer already, to `max_grad_norm`.
    betas = (recipe.beta1, recipe.beta2)
    return lamb, {"lr": recipe.learning_rate, "betas": betas, "max_grad_norm": None}


def num_cosine_steps(recipe: TrainingRecipe, num_steps: int, num_warmup_steps: int) -> int:
    """Returns how many steps at the end the cosine of a constant-then-cosine schedule takes."""
    return min(round(num_steps * recipe.cosine_fraction), num_steps - num_warmup_steps)


def _use_tensorboard(recipe: TrainingRecipe) -> bool:
    if recipe.report_to == "tensorboard":
        require("tensorboard", extra="tensorboard")
    return recipe.report_to != "none" and importlib.util.find_spec("tensorboard") is not None

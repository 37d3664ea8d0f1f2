"""The model of a run: a new one, or one that starts from a trained one."""

from __future__ import annotations

import logging

import torch
import transformers

from perceiver_io.data.splits import Splits
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.running.model_settings import with_settings
from perceiver_io.running.recipe import TrainingRecipe
from perceiver_io.running.task import Setup, TrainableTask

__all__ = ["build", "copy_weights"]

logger = logging.getLogger(__name__)


def build(task: TrainableTask, recipe: TrainingRecipe, data: Splits) -> Setup:
    """Makes the model that a recipe says, with its processor.

    Args:
        task: The task.
        recipe: The recipe; its seed decides the initial weights.
        data: The data.

    Raises:
        ValueError: The recipe's settings do not fit together, or the model to start from cannot be used.
    """
    transformers.set_seed(recipe.seed)  # the model's initial weights come first out of the seed
    if recipe.pretrained is not None:
        return _started_from(task, recipe, data)
    config, processor = task.fresh(recipe, data)
    recipe.model_settings.check(config)
    return Setup(recipe=recipe, data=data, model=task.new_model(config, processor), processor=processor)


def copy_weights(
    trained: PerceiverIOPreTrainedModel,
    fresh: PerceiverIOPreTrainedModel,
    *,
    may_differ: tuple[str, ...] = (),
    anew: tuple[str, ...] = (),
) -> list[str]:
    """Copies a model's tensors into another model of its class.

    Args:
        trained: The model.
        fresh: The other one.
        may_differ: What the names of tensors begin with that may be missing or have another shape: they stay as they
            are.
        anew: What the names of tensors begin with that stay as they are in any case.

    Returns:
        The names of the tensors that stayed.

    Raises:
        ValueError: Others are missing or have another shape.
    """
    have, want = trained.state_dict(), fresh.state_dict()
    unfit = [name for name in want if name not in have or have[name].shape != want[name].shape]
    stayed = [name for name in want if name in unfit or name.startswith(anew)]
    if wrong := [name for name in unfit if not name.startswith((*may_differ, *anew))]:
        raise ValueError(
            f"The weights do not fit the settings: {', '.join(wrong[:5])}{' and more' if len(wrong) > 5 else ''} are "
            "missing or have other shapes. Leave the settings of the model that they belong to as they were."
        )
    with torch.no_grad():
        for name, tensor in want.items():
            if name not in stayed:
                tensor.copy_(have[name])
    return stayed


def _started_from(task: TrainableTask, recipe: TrainingRecipe, data: Splits) -> Setup:
    source = recipe.pretrained
    assert source is not None
    loaded = task.trained(source)
    old = loaded.model.config
    config, processor = task.fine_tuned(old, loaded.processor, recipe, data)
    config = with_settings(config, recipe.model_settings)
    is_ours = isinstance(loaded.model, task.model_class)
    if is_ours:
        model = type(loaded.model)(config)
        if model.can_generate():
            model.generation_config = loaded.model.generation_config
    else:
        model = task.new_model(config, processor)
    changed = tuple(
        f"perceiver.decoders.{name}."
        for name, part in config.outputs.items()
        if old.outputs.get(name) != part
    )
    # As many classes as before may still be other ones: what a logit meant is lost then.
    renamed = (
        ()
        if config.id2label == old.id2label
        else tuple(
            f"perceiver.decoders.{name}.output."
            for name, part in config.outputs.items()
            if len(config.outputs) == 1 or hasattr(part, "num_classes")
        )
    )
    stayed = copy_weights(loaded.model, model, may_differ=changed, anew=renamed)
    if stayed:
        logger.warning("The outputs differ from those of %s: the last layer is trained anew.", source)
    return Setup(recipe=recipe, data=data, model=model, processor=processor)

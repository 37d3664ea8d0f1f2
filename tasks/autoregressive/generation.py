"""Generation by `transformers`: what its mixin must be told about latents, windows and their cache.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationMixin
from transformers.utils import logging

from perceiver_io.causal.cache import LatentCache
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.causal.schedule import LatentSchedule

__all__ = ["LatentGenerationMixin"]

logger = logging.get_logger(__name__)

# What `generate` takes besides, and what the model is not to get of it.
_OF_SCHEDULE = ("prompt_latents", "refill_latents")


class _Uncached:
    """The schedule of a generation without a cache: it begins with the first window that is read."""

    def __init__(self, schedule: LatentSchedule) -> None:
        self.schedule = schedule

    def at(self, length: int) -> LatentSchedule:
        if self.schedule.prompt_length is None:
            self.schedule = self.schedule.after_prompt(length)
        return self.schedule


class LatentGenerationMixin(GenerationMixin):
    """`generate` for models whose latents stand on the last tokens.

    Besides what `transformers` documents, `generate` takes `prompt_latents` and `refill_latents`, as `LatentSchedule`
    has them; half of the model's latents if None. A prompt that is longer than what the model reads loses its
    beginning.
    """

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates as `transformers.GenerationMixin.generate` does.

        Args:
            *args: As there.
            **kwargs: As there; besides, `prompt_latents` and `refill_latents`, and `conditions` and `condition_masks`
                as the model takes them.

        Raises:
            ValueError: A number of latents is not in 1 … N, or a cache is given that is no `LatentCache`.
        """
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    def latent_schedule(
        self,
        *,
        prompt_latents: int | None = None,
        refill_latents: int | None = None,
        num_conditions: int = 0,
    ) -> LatentSchedule:
        """Returns how many latents read how much of a sequence that grows.

        Args:
            prompt_latents: Latents that read the prompt; half of the model's if None.
            refill_latents: Latents that read the window again after all were in use; half of the model's if None.
            num_conditions: Elements that stand before the tokens.

        Raises:
            ValueError: A number of latents is not in 1 … N, or the conditions leave no room for the latents.
        """
        encoder = self.config.encoder  # type: ignore[attr-defined]
        assert isinstance(encoder, CausalEncoderConfig)
        half = max(1, encoder.num_latents // 2)
        room = encoder.max_length - num_conditions
        if room < encoder.num_latents:
            raise ValueError(
                f"The model reads {encoder.max_length} elements. {num_conditions} of conditions leave {room}, fewer "
                f"than its {encoder.num_latents} latents, which stand on tokens."
            )
        return LatentSchedule(
            max_latents=encoder.num_latents,
            max_length=room,
            prompt_latents=half if prompt_latents is None else prompt_latents,
            refill_latents=half if refill_latents is None else refill_latents,
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: LatentCache | None = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        conditions: Mapping[str, Tensor] | None = None,
        condition_masks: Mapping[str, Tensor] | None = None,
        uncached: _Uncached | None = None,
        prompt_latents: int | None = None,
        refill_latents: int | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns the arguments of the model for the next token: what is new with a cache, the window without one."""
        inputs: dict[str, Any] = {
            "conditions": conditions,
            "condition_masks": condition_masks,
            "logits_to_keep": 1,
            **{
                name: kwargs[name] for name in ("output_attentions", "output_hidden_states") if name in kwargs
            },
        }
        if past_key_values is not None:
            if next_sequence_length is not None:
                input_ids = input_ids[:, -next_sequence_length:]
            return {
                **inputs,
                "input_ids": input_ids,
                "attention_mask": None
                if attention_mask is None
                else attention_mask[:, -input_ids.shape[1] :],
                "past_key_values": past_key_values,
                "use_cache": True,
            }
        if uncached is None:
            uncached = _Uncached(self.latent_schedule())
        length = input_ids.shape[1]
        schedule = uncached.at(length)
        window = schedule.window(length)
        return {
            **inputs,
            "input_ids": input_ids[:, -window:],
            "attention_mask": None if attention_mask is None else attention_mask[:, -window:],
            "num_latents": schedule.num_latents(length),
            "use_cache": False,
        }

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        options = {name: model_kwargs.pop(name, None) for name in _OF_SCHEDULE}
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation is {generation_config.cache_implementation!r}, but this model has a cache of "
                "its own: leave it out."
            )
        given = model_kwargs.get("past_key_values")
        if given is not None:
            if any(value is not None for value in options.values()):
                raise ValueError(
                    "A cache that is given has its own schedule: leave prompt_latents and refill_latents out."
                )
            if not isinstance(given, LatentCache):
                raise ValueError(f"past_key_values must be a LatentCache, got {type(given).__name__}.")
            given._is_user_defined = True  # type: ignore[attr-defined]
            return
        num_conditions = self.count_conditions(model_kwargs.get("conditions"))  # type: ignore[attr-defined]
        schedule = self.latent_schedule(**options, num_conditions=num_conditions)
        if generation_config.use_cache:
            num_layers = self.perceiver.encoder.num_layers  # type: ignore[attr-defined]
            model_kwargs["past_key_values"] = LatentCache(num_layers, schedule)
        else:
            model_kwargs["uncached"] = _Uncached(schedule)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **model_kwargs,
        )
        for name in ("conditions", "condition_masks"):
            if expand_size > 1 and model_kwargs.get(name) is not None:
                model_kwargs[name] = {
                    key: value.repeat_interleave(expand_size, dim=0)
                    for key, value in model_kwargs[name].items()
                }
        return input_ids, model_kwargs

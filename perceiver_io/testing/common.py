"""What the contracts of adapters and of decoders have in common."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from perceiver_io.component import ComponentConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.model import PerceiverIO

__all__ = [
    "check_config",
    "check_constructor",
    "check_gradients",
    "check_numerical_gradients",
    "check_refused",
    "check_twin",
    "seeded",
    "tiny_encoder",
]


def tiny_encoder(*, latent_channels: int = 8) -> EncoderConfig:
    """An encoder that costs nothing and uses each of its parts."""
    return EncoderConfig(
        num_latents=3,
        latent_channels=latent_channels,
        num_cross_attends=1,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_cross_attention_heads=1,
        num_self_attention_heads=1,
    )


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Fixes torch's random numbers inside, and leaves the state outside as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def check_config(config: ComponentConfig, component: type[nn.Module]) -> None:
    """Checks that a configuration is its component's own, frozen, keyword-only, survives JSON, refuses unknown keys."""
    cls = type(config)
    name = cls.__qualname__
    fields = dataclasses.fields(config)
    assert fields, f"{name} has no fields: is it decorated with @dataclass(frozen=True, kw_only=True)?"
    first = fields[0].name
    try:
        setattr(copy.copy(config), first, getattr(config, first))
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError(
            f"{name} can be changed after it was made; decorate it with @dataclass(frozen=True, …)."
        )
    positional = [field.name for field in fields if not field.kw_only]
    assert not positional, (
        f"{name} takes {positional} by position; decorate it with @dataclass(kw_only=True, …)."
    )

    written = config.to_dict()
    try:
        text = json.dumps(written, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}.to_dict() cannot be written as JSON: {error}") from error
    read = cls.from_dict(json.loads(text))
    assert read == config, f"{name} is not what it was after JSON: wrote {config}, read {read}."

    unknown = "no_such_key"
    try:
        cls.from_dict({**written, unknown: 1})
    except ValueError as error:
        unnamed = [word for word in (unknown, *written) if word not in str(error)]
        assert not unnamed, f"{name} refuses an unknown key without naming {unnamed}: {error}"
    else:
        raise AssertionError(
            f"{name}.from_dict takes the unknown key {unknown!r}; it must raise a ValueError."
        )

    others = [parent.__qualname__ for parent in component.__mro__[1:] if vars(parent).get("Config") is cls]
    assert vars(component).get("Config") is cls and not others, (
        f"{name} is not the Config of {component.__qualname__} alone: a configuration says by its class what is built. "
        f"Define a Config in {component.__qualname__} that derives from its parent's."
    )


def check_constructor(cls: type[nn.Module]) -> None:
    """Checks that a constructor names all that it takes."""
    kinds = {parameter.kind for parameter in inspect.signature(cls).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, (
        f"The constructor of {cls.__qualname__} takes *args or **kwargs; name every argument."
    )


def check_gradients(module: nn.Module, output: Tensor) -> None:
    """Checks that every parameter of a module gets a finite gradient from its output."""
    with seeded():
        weights = torch.randn_like(output)
    parameters = dict(module.named_parameters())
    if not parameters:
        return
    assert output.requires_grad, (
        f"The output does not depend on any of the parameters {list(parameters)}: is something detached?"
    )
    (output * weights).sum().backward()
    without = [name for name, parameter in parameters.items() if parameter.grad is None]
    assert not without, f"These parameters get no gradient: {without}. Use them, or do not make them."
    infinite = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    assert not infinite, f"These parameters get gradients that are not finite: {infinite}."


def check_numerical_gradients(
    module: nn.Module,
    *,
    x: Tensor | None,
    arguments: Callable[[Any], tuple[object, ...]],
    result: Callable[[Any], Tensor],
) -> None:
    """Checks analytical against numerical gradients in float64.

    Args:
        module: A float64 module, whose parameters are checked.
        x: A float64 tensor that is checked too; None if there is none.
        arguments: The module's arguments, made of `x`.
        result: The tensor in what the module returns.
    """
    parameters = dict(module.named_parameters())

    def function(*tensors: Tensor) -> Tensor:
        values = dict(zip(parameters, tensors, strict=False))
        return result(functional_call(module, values, arguments(None if x is None else tensors[-1])))

    inputs = [parameter.detach().clone().requires_grad_() for parameter in parameters.values()]
    if x is not None:
        inputs.append(x.detach().clone().requires_grad_())
    if not inputs:
        return
    try:
        with seeded():
            torch.autograd.gradcheck(function, inputs, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"Analytical and numerical gradients differ in float64: {error}") from error


def check_refused(what: str, call: Callable[[], object]) -> None:
    """Checks that a call raises a ValueError with a message."""
    try:
        call()
    except ValueError as error:
        assert str(error).strip(), f"{what} gives a ValueError without a message."
    except Exception as error:
        raise AssertionError(
            f"{what} gives {error!r}; it must be a ValueError that says what is wrong."
        ) from error
    else:
        raise AssertionError(f"{what} is accepted; it must raise a ValueError.")


def check_twin(
    model: PerceiverIO,
    run: Callable[[PerceiverIO], Tensor],
    *,
    adapters: dict[str, type],
    decoders: dict[str, type],
) -> None:
    """Checks that a model that was saved and loaded is the same model.

    Args:
        model: The model; its parameters are changed, so that no initial value is mistaken for a loaded one.
        run: Computes something of a model.
        adapters: Adapter classes for loading.
        decoders: Decoder classes for loading.
    """
    with seeded(), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
        run(model.train())  # fills running statistics
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        twin = PerceiverIO.from_pretrained(folder, adapters=adapters, decoders=decoders).eval()
    assert twin.config.inputs == model.config.inputs and twin.config.outputs == model.config.outputs, (
        f"The loaded configuration differs: saved {model.config}, loaded {twin.config}."
    )
    saved, loaded = model.state_dict(), twin.state_dict()
    assert saved.keys() == loaded.keys(), f"The state dicts differ in {sorted(saved.keys() ^ loaded.keys())}."
    different = [name for name, value in saved.items() if not torch.equal(value, loaded[name])]
    assert not different, f"These tensors are not what was saved: {different}."
    with torch.no_grad():
        before = run(model)
        try:
            after = run(twin)
        except RuntimeError as error:
            raise AssertionError(
                f"The loaded model does not run: {error}. Are all tensors parameters or buffers?"
            ) from error
    assert torch.equal(before, after), (
        f"The loaded model computes something else, by up to {(before - after).abs().max().item():.3g}: is there state "
        "that is neither in the configuration nor a parameter or persistent buffer?"
    )

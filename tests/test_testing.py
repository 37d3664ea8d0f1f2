"""The contract suite catches what it says it catches: each broken component fails one check, by name."""

import ast
import dataclasses
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import perceiver_io.testing
from perceiver_io import (
    ByteArray,
    ClassificationDecoder,
    ComponentConfig,
    Decoder,
    DecoderConfig,
    DecoderNeeds,
    DecoderParts,
    DecoderRequest,
    Encoded,
    InputAdapter,
)
from perceiver_io.decoder import WHOLE_OUTPUT
from perceiver_io.layers import LearnedArray
from perceiver_io.testing import (
    ADAPTER_CHECKS,
    DECODER_CHECKS,
    AdapterCase,
    DecoderCase,
    ElementsAdapter,
    check_adapter,
    check_decoder,
)


class OwnConfig:
    """Gives every class that derives from a component a Config of its own, as each needs one."""

    Config: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "Config" not in vars(cls):
            config = type("Config", (cls.Config,), {"__qualname__": f"{cls.__qualname__}.Config"})
            cls.Config = dataclass(frozen=True, kw_only=True)(config)


class Projection(OwnConfig, InputAdapter):
    """A sound adapter, to be broken one way at a time."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        width: int = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_channels = self.num_content_channels = config.width
        self.elements = ElementsAdapter(ElementsAdapter.Config(num_channels=3))
        self.layer = nn.Linear(3, config.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        elements = self.elements(x, mask)
        values = self.layer(elements.values)
        return ByteArray(values=values, mask=elements.mask, num_content_channels=values.shape[-1])


class Sensor(OwnConfig, InputAdapter):
    """Takes NaN: what a sensor has not measured."""

    takes_nan = True

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        num_sensors: int = 3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_channels = self.num_content_channels = 2 * config.num_sensors
        self.gain = nn.Parameter(torch.ones(config.num_sensors))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        if not x.is_floating_point():
            raise ValueError(f"Series must be floating point, got {x.dtype}.")
        known = ~x.isnan()
        elements = ElementsAdapter(ElementsAdapter.Config(num_channels=3))(torch.where(known, x, 0), mask)
        values = torch.cat([self.scaled(elements.values, known), known.to(x.dtype)], dim=-1)
        if mask is not None:
            values = torch.where(mask[..., None], values, 0)
        return ByteArray(values=values, mask=mask, num_content_channels=self.num_content_channels)

    def scaled(self, values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return values * self.gain


SENSED = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


class KeepsNan(Sensor):
    def scaled(self, values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return torch.where(known, values * self.gain, torch.nan)


class SpreadsNan(Sensor):
    def scaled(self, values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return values * self.gain * known.to(values.dtype).mean()


class NanInGradients(Sensor):
    def scaled(self, values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return torch.where(known, (values * self.gain).abs().sqrt(), 0)


class ForgetsNan(Sensor):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(torch.where(x.isnan(), SENSED, x), mask)


class RefusesNan(Sensor):
    takes_nan = False


class WrongWidth(Projection):
    def __init__(self, config: Projection.Config) -> None:
        super().__init__(config)
        self.num_channels += 1


class WrongContent(Projection):
    def __init__(self, config: Projection.Config) -> None:
        super().__init__(config)
        self.num_content_channels -= 1


class ReturnsTensor(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return super().forward(x, mask).values


class MixesSamples(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x - x.mean(dim=0, keepdim=True), mask)


class DropsMask(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        super().forward(x, mask)
        return super().forward(x)


class LeaksMasked(Projection):
    """Gives the right mask, after a mean that saw what is masked."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        super().forward(x, mask)
        array = super().forward(x.nan_to_num() + x.nan_to_num().mean(dim=1, keepdim=True))
        return ByteArray(values=array.values, mask=mask, num_content_channels=array.num_content_channels)


class RefusesMaskedNaN(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        super().forward(x)
        return super().forward(x, mask)


class MaskChangesValues(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x if mask is None else x + 1, mask)


class UnusedParameter(Projection):
    def __init__(self, config: Projection.Config) -> None:
        super().__init__(config)
        self.unused = nn.Parameter(torch.zeros(1))


class InfiniteGradient(Projection):
    def __init__(self, config: Projection.Config) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x + self.scale.sqrt(), mask)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * ctx.saved_tensors[0]  # should be twice that


class WrongGradient(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(Squared.apply(x), mask)


class HiddenState(Projection):
    """State that neither the configuration nor the weights hold."""

    def __init__(self, config: Projection.Config) -> None:
        super().__init__(config)
        self.shift = random.random()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x + self.shift, mask)


class TakesAnything(Projection):
    def __init__(self, config: Projection.Config, **settings: Any) -> None:
        super().__init__(config)


class TakesNaN(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x.nan_to_num(nan=0.0), mask)


class TakesIntegers(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x if x.is_floating_point() else x.to(torch.float32), mask)


class TakesAnyMask(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x, None if mask is None else mask.bool())


class TakesAnEmptyBatch(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        if x.shape[0] == 0:
            return ByteArray(values=x.new_zeros(0, 5, 4), num_content_channels=4)
        return super().forward(x, mask)


class RaisesIndexErrors(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        if x.ndim != 3:
            raise IndexError("no such axis")
        return super().forward(x, mask)


class WrongCount(Projection):
    num_elements = 4


class TiesAStranger(Projection):
    def tied_embedding(self) -> LearnedArray:
        return LearnedArray(3, 4)


class Tokens(OwnConfig, InputAdapter):
    """A sound adapter of ids, to be broken as well."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        width: int = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_channels = self.num_content_channels = config.width
        self.table = LearnedArray(5, config.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        if x.ndim != 2 or x.dtype != torch.int64 or 0 in x.shape:
            raise ValueError(f"Ids must be int64 (batch, tokens), got {x.dtype} {tuple(x.shape)}.")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
            raise ValueError(f"The mask must be bool {tuple(x.shape)}, got {mask.dtype} {tuple(mask.shape)}.")
        values = self.table.weight[self.ids(x, mask)]
        return ByteArray(values=values, mask=mask, num_content_channels=values.shape[-1])

    def ids(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        real = x if mask is None else torch.where(mask, x, 0)
        if ((real < 0) | (real >= 5)).any():
            raise ValueError(f"Ids must be from 0 to 4, got {real.unique().tolist()}.")
        return real

    def tied_embedding(self) -> LearnedArray:
        return self.table


class RefusesMaskedIds(Tokens):
    def ids(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return super().ids(x, None)


class ClampsIds(Tokens):
    def ids(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return super().ids(x.clamp(0, 4), mask)


class TakesFloatingIds(Tokens):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        return super().forward(x.long(), mask)


class WrongTableGradient(Tokens):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        array = super().forward(x, mask)
        values = Squared.apply(array.values)
        return ByteArray(values=values, mask=mask, num_content_channels=values.shape[-1])


def token_case(adapter_class: type[InputAdapter]) -> AdapterCase:
    mask = torch.tensor([[True, True, False], [False, True, True]])
    ids = torch.tensor([[0, 4, 1], [3, 0, 2]])
    return AdapterCase(
        adapter_class=adapter_class, config=adapter_class.Config(), x=ids, mask=mask, bad_values=(-1, 5)
    )


def adapter_case(adapter_class: type[InputAdapter], config: ComponentConfig | None = None) -> AdapterCase:
    mask = torch.tensor([[True, True, False, True, True], [False, True, True, True, False]])
    return AdapterCase(
        adapter_class=adapter_class,
        config=config or adapter_class.Config(),
        x=torch.randn(2, 5, 3),
        mask=mask,
    )


def test_a_sound_adapter_passes() -> None:
    check_adapter(adapter_case(Projection))


def sensor_case(adapter_class: type[InputAdapter]) -> AdapterCase:
    return dataclasses.replace(adapter_case(adapter_class), x=SENSED)


class FollowsSize(Projection):
    """Its positions run from -1 to 1 in each input."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        found = super().forward(x, mask)
        places = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)[:, None]
        values = torch.where(found.values.isnan(), found.values, found.values + places)
        return dataclasses.replace(found, values=values)


class SeesPadding(Projection):
    """An element is mixed with what follows, masked or not."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        found = super().forward(x, mask)
        return dataclasses.replace(found, values=found.values + 0.1 * found.values.roll(1, dims=1))


class RefusesLength(Projection):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> ByteArray:
        if x.ndim > 1 and x.shape[1] > 6:
            raise ValueError("Too long.")
        return super().forward(x, mask)


@pytest.mark.parametrize(
    ("adapter_class", "message"),
    [
        (FollowsSize, "A padded input gives other elements .* positions follow the size"),
        (SeesPadding, "A padded input gives other elements"),
        (RefusesLength, "in one of twice the size is refused: Too long"),
    ],
)
def test_adapters_that_padding_changes_fail(adapter_class: type[InputAdapter], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        ADAPTER_CHECKS["padding"](adapter_case(adapter_class))


def test_an_adapter_may_say_that_positions_follow_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FollowsSize, "depends_on_extent", True)
    check_adapter(adapter_case(FollowsSize))


def test_an_adapter_that_takes_nan_passes() -> None:
    check_adapter(sensor_case(Sensor))


@pytest.mark.parametrize(
    ("adapter_class", "check", "message"),
    [
        (KeepsNan, "nan", "The byte array of an input with a NaN holds NaN or infinities"),
        (SpreadsNan, "nan", "changes elements that a number in its place does not change"),
        (NanInGradients, "nan", r"these gradients are not finite: \['gain'\]"),
        (ForgetsNan, "nan", "nothing says that it was not measured"),
        (RefusesNan, "bad_input", "An input with nan is accepted"),
    ],
)
def test_adapters_that_take_nan_in_a_wrong_way_fail(
    adapter_class: type[InputAdapter], check: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        ADAPTER_CHECKS[check](sensor_case(adapter_class))


def test_a_sound_adapter_of_ids_passes() -> None:
    check_adapter(token_case(Tokens))


@pytest.mark.parametrize(
    ("adapter_class", "check", "message"),
    [
        (RefusesMaskedIds, "mask", r"Masked values are refused: Ids must be from 0 to 4, got \[-1"),
        (ClampsIds, "bad_input", "An input with -1 is accepted"),
        (TakesFloatingIds, "bad_input", "An input of torch.float32 is accepted"),
        (WrongTableGradient, "numerical_gradients", "differ in float64"),
    ],
)
def test_broken_adapters_of_ids_fail(adapter_class: type[InputAdapter], check: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        ADAPTER_CHECKS[check](token_case(adapter_class))
    with pytest.raises(AssertionError):
        check_adapter(token_case(adapter_class))


@pytest.mark.parametrize(
    ("adapter_class", "check", "message"),
    [
        (WrongWidth, "channels", "num_channels is 5, the byte array has 4"),
        (WrongContent, "channels", "num_content_channels is 3, the byte array says 4"),
        (ReturnsTensor, "channels", "returns Tensor, expected a ByteArray"),
        (WrongCount, "channels", "num_elements is 4, the byte array has 5"),
        (TiesAStranger, "channels", "not part of the adapter"),
        (MixesSamples, "samples", "A sample alone gives another byte array"),
        (DropsMask, "mask", "The byte array of a masked input has no mask"),
        (LeaksMasked, "mask", "Masked values change the latents"),
        (RefusesMaskedNaN, "mask", "Masked values are refused: .* NaN"),
        (MaskChangesValues, "mask", "A mask that is True everywhere gives other latents"),
        (UnusedParameter, "gradients", r"get no gradient: \['unused'\]"),
        (InfiniteGradient, "gradients", r"not finite: \['scale'\]"),
        (WrongGradient, "numerical_gradients", "differ in float64"),
        (HiddenState, "twin", "computes something else"),
        (TakesAnything, "config", r"takes \*args or \*\*kwargs"),
        (TakesNaN, "bad_input", "An input with nan is accepted"),
        (TakesIntegers, "bad_input", "An input of torch.int64 is accepted"),
        (TakesAnyMask, "bad_input", "A floating-point mask is accepted"),
        (TakesAnEmptyBatch, "bad_input", "An empty batch is accepted"),
        (RaisesIndexErrors, "bad_input", r"gives IndexError.* must be a ValueError"),
    ],
)
def test_broken_adapters_fail(adapter_class: type[InputAdapter], check: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        ADAPTER_CHECKS[check](adapter_case(adapter_class))
    with pytest.raises(AssertionError):
        check_adapter(adapter_case(adapter_class))


@dataclass(kw_only=True)
class Thawed:
    width: int = 4

    def to_dict(self) -> dict[str, Any]:
        return {"width": self.width}


@dataclass(frozen=True, kw_only=True)
class Forgetful(Projection.Config):
    def to_dict(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Lenient(Projection.Config):
    @classmethod
    def from_dict(cls, values: Any) -> Any:
        return cls(width=values["width"])


@dataclass(frozen=True, kw_only=True)
class Curt(Projection.Config):
    @classmethod
    def from_dict(cls, values: Any) -> Any:
        if set(values) != {"width"}:
            raise ValueError("no_such_key is unknown")
        return cls(**values)


@dataclass(frozen=True)
class Positional(Projection.Config):
    height: int = 1


@dataclass(frozen=True, kw_only=True)
class NotJson(Projection.Config):
    def to_dict(self) -> dict[str, Any]:
        return {"width": math.nan}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Thawed(), "Thawed can be changed after it was made"),
        (Forgetful(width=5), "Forgetful is not what it was after JSON"),
        (Lenient(), "takes the unknown key 'no_such_key'"),
        (Curt(), r"refuses an unknown key without naming \['width'\]"),
        (Positional(), r"takes \['height'\] by position"),
        (NotJson(), "cannot be written as JSON"),
    ],
)
def test_broken_configurations_fail(config: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        ADAPTER_CHECKS["config"](adapter_case(Projection, config))


class Head(OwnConfig, Decoder):
    """A sound decoder, to be broken one way at a time."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        width: int = 4

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__()
        self.layer = nn.Linear(parts.latent_channels, config.width)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        return self.layer(encoded.latents.mean(dim=1))


class UsesByteArray(Head):
    """Takes its queries from an input, and so needs the input's byte array."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Head.Config):
        def needs(self) -> DecoderNeeds:
            return DecoderNeeds(elements={"image": 5})

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        values = encoded.byte_arrays["image"].values
        return torch.cat([super().forward(encoded), values.mean(dim=1)], dim=-1)


class MixesDecodedSamples(Head):
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        output = super().forward(encoded)
        return output - output.mean(dim=0)


class UsesOneLatent(Head):
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        return self.layer(encoded.latents[:, 0])


class UnusedHead(Head):
    def __init__(self, config: Head.Config, parts: DecoderParts) -> None:
        super().__init__(config, parts)
        self.unused = nn.Linear(2, 2)


class WrongHeadGradient(Head):
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        return Squared.apply(super().forward(encoded))


class HiddenHeadState(Head):
    def __init__(self, config: Head.Config, parts: DecoderParts) -> None:
        super().__init__(config, parts)
        self.shift = random.random()

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        return super().forward(encoded) + self.shift


class KeepsQuietAboutAnInput(UsesByteArray):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        width: int = 4


class KeepsQuietAboutChannels(UsesByteArray):
    @dataclass(frozen=True, kw_only=True)
    class Config(Head.Config):
        def needs(self) -> DecoderNeeds:
            return DecoderNeeds(elements={"image": 2})


class ClaimsQueries(Head):
    @dataclass(frozen=True, kw_only=True)
    class Config(Head.Config):
        def needs(self) -> DecoderNeeds:
            return DecoderNeeds(can_share_attention=True)


class BorrowsItsConfig(Head):
    Config = Head.Config


def decoder_case(decoder_class: type[Decoder], output_shape: tuple[int, ...] = (4,)) -> DecoderCase:
    image = ByteArray(values=torch.randn(2, 6, 5), grid=(2, 3), num_content_channels=3)
    return DecoderCase(
        decoder_class=decoder_class,
        config=decoder_class.Config(),
        encoded=Encoded(latents=torch.randn(2, 3, 8), byte_arrays={"image": image}),
        output_shape=output_shape,
    )


def test_sound_decoders_pass() -> None:
    check_decoder(decoder_case(Head))
    check_decoder(decoder_case(UsesByteArray, output_shape=(9,)))


@pytest.mark.parametrize(
    ("case", "check", "message"),
    [
        (lambda: decoder_case(Head, output_shape=(5,)), "shape", r"output is \(2, 4\), expected \(2, 5\)"),
        (lambda: decoder_case(MixesDecodedSamples), "samples", "decoded otherwise than in its batch"),
        (lambda: decoder_case(UsesOneLatent), "gradients", "Some latents have no influence"),
        (
            lambda: decoder_case(UnusedHead),
            "gradients",
            r"get no gradient: \['unused.weight', 'unused.bias'\]",
        ),
        (lambda: decoder_case(WrongHeadGradient), "numerical_gradients", "differ in float64"),
        (lambda: decoder_case(HiddenHeadState), "twin", "computes something else"),
        (
            lambda: decoder_case(BorrowsItsConfig),
            "config",
            "Head.Config is not the Config of BorrowsItsConfig alone",
        ),
        (lambda: decoder_case(KeepsQuietAboutAnInput, (9,)), "needs", "does not name it raises KeyError"),
        (lambda: decoder_case(KeepsQuietAboutChannels, (9,)), "needs", "does not name"),
        (lambda: decoder_case(ClaimsQueries), "shared_attention", "True, but num_query_channels is None"),
    ],
)
def test_broken_decoders_fail(case: Callable[[], DecoderCase], check: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        DECODER_CHECKS[check](case())
    with pytest.raises(AssertionError):
        check_decoder(case())


def test_useless_cases_are_refused() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    fields = {"adapter_class": Projection, "config": Projection.Config()}
    with pytest.raises(ValueError, match="at least two samples"):
        AdapterCase(x=torch.randn(1, 2, 3), mask=mask[:1], **fields)
    with pytest.raises(ValueError, match="False somewhere"):
        AdapterCase(x=torch.randn(2, 2, 3), mask=mask | True, **fields)
    with pytest.raises(ValueError, match=r"torch\.int64 needs masked_variant, or bad_values"):
        AdapterCase(x=torch.zeros(2, 2, dtype=torch.int64), mask=mask, **fields)
    with pytest.raises(ValueError, match=r"a mask \(2, 2\) needs mask_axes"):
        AdapterCase(x=torch.randn(2, 3, 4, 2), mask=mask, **fields)
    with pytest.raises(AssertionError, match="masked_variant is x"):
        x = torch.randn(2, 2, 3)
        ADAPTER_CHECKS["mask"](AdapterCase(x=x, mask=mask, masked_variant=x.clone(), **fields))
    with pytest.raises(ValueError, match="at least two samples"):
        DecoderCase(
            decoder_class=ClassificationDecoder,
            config=ClassificationDecoder.Config(num_classes=2),
            encoded=Encoded(latents=torch.zeros(1, 2, 3), byte_arrays={}),
            output_shape=(2,),
        )


def test_checks_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    case = adapter_case(Projection)
    torch.set_rng_state(before)
    check_adapter(case)
    check_decoder_state = torch.get_rng_state()
    assert torch.equal(before, check_decoder_state)


def test_no_test_framework_is_needed() -> None:
    package = Path(inspect.getfile(perceiver_io.testing)).parent
    imported = set()
    for source in package.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert {"torch", "perceiver_io"} <= imported
    assert not imported & {"pytest", "hypothesis"}

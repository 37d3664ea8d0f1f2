"""The contract of input adapters, as checks that raise an AssertionError which says what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import Encoder
from perceiver_io.model import PerceiverIO
from perceiver_io.testing import common
from perceiver_io.vector_decoders import PooledClassificationDecoder

__all__ = ["ADAPTER_CHECKS", "AdapterCase", "check_adapter"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AdapterCase:
    """An adapter, with an input to try it on. Small ones: the numerical gradients take a while.

    Attributes:
        adapter_class: The class.
        config: Its configuration.
        x: A valid raw input of at least two samples.
        mask: A mask for `x`, as the adapter documents it, that masks at least one whole element of the byte array.
        mask_axes: Which axes of `x` those of the mask are, after the batch. If None, the mask's sizes say it: the next
            ones after the batch, or, after an axis of channels, the next but one.
        masked_variant: `x` with other values wherever the mask is False, refused ones too. Made of `x` if None; if `x`
            is no floating point, that needs `bad_values`.
        bad_values: Values that `x` must not hold where it is real: ids past the vocabulary, for example. NaN (unless
            the adapter takes it) and infinities of a floating-point `x` are tried anyway.
    """

    adapter_class: type[InputAdapter]
    config: ComponentConfig
    x: Tensor
    mask: Tensor
    mask_axes: tuple[int, ...] | None = None
    masked_variant: Tensor | None = None
    bad_values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.x.shape[0] < 2:
            raise ValueError(f"A case needs at least two samples, got x of {tuple(self.x.shape)}.")
        if self.mask.dtype != torch.bool or bool(self.mask.all()):
            raise ValueError("A case needs a bool mask that is False somewhere.")
        self.variant()

    def build(self) -> InputAdapter:
        """Returns a new adapter, the same one each time."""
        with common.seeded():
            return self.adapter_class(self.config)

    @property
    def refused_values(self) -> tuple[float, ...]:
        """Values that the adapter must refuse, each on its own."""
        if not self.x.is_floating_point():
            return self.bad_values
        return ((math.inf,) if self.adapter_class.takes_nan else (math.nan, math.inf)) + self.bad_values

    def variant(self) -> Tensor:
        """Returns `x` with other values where the mask is False: `masked_variant`, or one made of `x`.

        Raises:
            ValueError: None was given, and none can be made.
        """
        if self.masked_variant is not None:
            return self.masked_variant
        if not self.refused_values:
            raise ValueError(f"A case with x of {self.x.dtype} needs masked_variant, or bad_values.")
        return self._put(self.x, self.mask)

    def padded(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `x` in the midst of an input of twice the size along the mask's axes, and its mask.

        Args:
            mask: The mask of `x` itself.
        """
        axes = self.axes()
        x_shape, mask_shape = (
            list(self.x.shape),
            [2 * size if axis else size for axis, size in enumerate(mask.shape)],
        )
        for axis in axes:
            x_shape[axis] *= 2
        larger, larger_mask = self.x.new_zeros(x_shape), torch.zeros(mask_shape, dtype=torch.bool)
        larger[tuple(slice(size) for size in self.x.shape)] = self.x
        larger_mask[tuple(slice(size) for size in mask.shape)] = mask
        return (self._put(larger, larger_mask) if self.refused_values else larger), larger_mask

    def axes(self) -> tuple[int, ...]:
        """Returns which axes of `x` those of the mask are, after the batch.

        Raises:
            ValueError: They were not given, and the sizes do not say it.
        """
        count = self.mask.ndim - 1
        for axes in (self.mask_axes, tuple(range(1, count + 1)), tuple(range(2, count + 2))):
            if (
                axes is not None
                and tuple(self.x.shape[axis] for axis in axes if axis < self.x.ndim) == self.mask.shape[1:]
            ):
                return axes
        raise ValueError(
            f"A case with x of {tuple(self.x.shape)} and a mask {tuple(self.mask.shape)} needs mask_axes: which axes "
            "of x those of the mask are, after the batch."
        )

    def _put(self, x: Tensor, mask: Tensor) -> Tensor:
        """Puts a refused value where the mask is False."""
        shape = [1] * x.ndim
        for axis, size in zip((0, *self.axes()), mask.shape, strict=True):
            shape[axis] = size
        return torch.where(mask.reshape(shape), x, self.refused_values[0]).to(x.dtype)


def check_channels(case: AdapterCase) -> None:
    """What comes out is a well-formed byte array as declared, on the input's device."""
    adapter = case.build()
    for mask in (None, case.mask):
        byte_array = adapter(case.x, mask)
        assert isinstance(byte_array, ByteArray), (
            f"forward returns {type(byte_array).__name__}, expected a ByteArray."
        )
        values = byte_array.values
        assert values.shape[0] == case.x.shape[0], (
            f"The input has {case.x.shape[0]} samples, the byte array {values.shape[0]}."
        )
        assert values.shape[2] == adapter.num_channels, (
            f"num_channels is {adapter.num_channels}, the byte array has {values.shape[2]} channels."
        )
        assert byte_array.num_content_channels == adapter.num_content_channels, (
            f"num_content_channels is {adapter.num_content_channels}, the byte array says "
            f"{byte_array.num_content_channels}."
        )
        assert values.shape[1] > 0, "The byte array has no elements."
        assert values.is_floating_point(), f"The byte array is {values.dtype}, expected floating point."
        assert values.isfinite().all(), "The byte array of a valid input holds NaN or infinities."
        assert values.device == case.x.device, (
            f"The input is on {case.x.device}, the byte array on {values.device}."
        )
        assert byte_array.grid is None or math.prod(byte_array.grid) == values.shape[1], (
            f"The grid {byte_array.grid} does not have {values.shape[1]} elements."
        )
        assert adapter.num_elements in (None, values.shape[1]), (
            f"num_elements is {adapter.num_elements}, the byte array has {values.shape[1]}."
        )
    embedding = adapter.tied_embedding()
    assert embedding is None or any(module is embedding for module in adapter.modules()), (
        "tied_embedding() returns something that is not part of the adapter: it would be neither trained nor saved."
    )


def check_samples(case: AdapterCase) -> None:
    """Samples do not see each other (outside of training)."""
    adapter = case.build().eval()
    together = adapter(case.x, case.mask)
    for index in range(case.x.shape[0]):
        alone = adapter(case.x[index : index + 1], case.mask[index : index + 1])
        torch.testing.assert_close(
            together.values[index],
            alone.values[0],
            msg=lambda message: f"A sample alone gives another byte array than in its batch: {message}",
        )


def check_mask(case: AdapterCase) -> None:
    """What is masked changes nothing, and a mask that masks nothing is no mask."""
    adapter = case.build()
    variant = case.variant()
    assert not torch.equal(variant, case.x), "masked_variant is x; change what is masked."
    with common.seeded():
        encoder = Encoder(
            common.tiny_encoder(),
            input_channels=adapter.num_channels,
            content_channels=[adapter.num_content_channels],
        )
    mask_BM = adapter(case.x, case.mask).mask
    assert mask_BM is not None, "The byte array of a masked input has no mask."
    assert not mask_BM.all(), "No element of the byte array is masked; mask a whole element in the case."
    try:
        adapter(variant, case.mask)
    except ValueError as error:
        raise AssertionError(f"Masked values are refused: {error}") from error
    for training in (False, True):
        adapter.train(training)
        with torch.no_grad():
            _assert_same(
                _encode(adapter, encoder, case.x, case.mask),
                _encode(adapter, encoder, variant, case.mask),
                f"Masked values change the latents (training={training}): is what is masked set to a constant, and is "
                "the byte array's mask False there?",
            )
            _assert_same(
                _encode(adapter, encoder, case.x, torch.ones_like(case.mask)),
                _encode(adapter, encoder, case.x, None),
                f"A mask that is True everywhere gives other latents than no mask (training={training}).",
            )


def check_padding(case: AdapterCase) -> None:
    """Elements are the same in a larger input, whose other parts are masked.

    Not asked of adapters whose positions follow the size of an input (`depends_on_extent`), nor where the number of
    elements never changes.
    """
    adapter = case.build().eval()
    if adapter.depends_on_extent or adapter.num_elements is not None or case.mask.ndim == 1:
        return
    with common.seeded():
        encoder = Encoder(
            common.tiny_encoder(),
            input_channels=adapter.num_channels,
            content_channels=[adapter.num_content_channels],
        ).eval()
    for mask in (torch.ones_like(case.mask), case.mask):
        try:
            larger = adapter(*case.padded(mask))
        except ValueError as error:
            raise AssertionError(f"The input in one of twice the size is refused: {error}") from error
        alone = adapter(case.x, mask)
        assert larger.mask is not None and alone.mask is not None, (
            "The byte array of a masked input has no mask."
        )
        assert torch.equal(larger.mask.sum(dim=1), alone.mask.sum(dim=1)), (
            "In a larger input, other parts of which are masked, another number of elements is real."
        )
        message = (
            "A padded input gives other {} than it does alone: do positions follow the size of the input, or does what "
            "is masked reach what is real? Else set depends_on_extent."
        )
        with torch.no_grad():
            _assert_same(
                larger.values[larger.mask], alone.values[alone.mask], message.format("elements"), atol=1e-5
            )
            _assert_same(
                _encode(adapter, encoder, *case.padded(mask)),
                _encode(adapter, encoder, case.x, mask),
                message.format("latents"),
                atol=1e-5,
            )


def check_gradients(case: AdapterCase) -> None:
    """Every parameter gets a finite gradient."""
    adapter = case.build().train()
    with common.seeded():
        common.check_gradients(adapter, adapter(case.x).values)


def check_nan(case: AdapterCase) -> None:
    """An adapter that takes NaN gives finite elements and gradients; what is NaN changes no element but its own."""
    if not case.adapter_class.takes_nan:
        return
    assert case.x.is_floating_point(), (
        f"takes_nan is True, but the input is {case.x.dtype}, which has no NaN."
    )
    adapter, place = case.build().eval(), (-1,) * case.x.ndim
    other, spoilt = case.x.clone(), case.x.clone()
    other[place] += 1
    spoilt[place] = math.nan
    for what, x in (("a NaN", spoilt), ("nothing but NaN", torch.full_like(spoilt, math.nan))):
        values = adapter(x).values
        assert values.isfinite().all(), f"The byte array of an input with {what} holds NaN or infinities."
    before, after = adapter(case.x).values, adapter(spoilt).values
    own_BM = (adapter(other).values != before).any(dim=-1)
    changed_BM = (after != before).any(dim=-1)
    assert changed_BM.any(), (
        "A NaN gives the same byte array as a number: nothing says that it was not measured."
    )
    assert not (changed_BM & ~own_BM).any(), (
        "A NaN changes elements that a number in its place does not change."
    )
    adapter.train()
    with common.seeded():
        adapter(spoilt.requires_grad_()).values.sum().backward()
    gradients = {"the input": spoilt.grad} | {name: one.grad for name, one in adapter.named_parameters()}
    infinite = [name for name, one in gradients.items() if one is not None and not one.isfinite().all()]
    assert not infinite, f"With a NaN in the input, these gradients are not finite: {infinite}."


def check_targets(case: AdapterCase) -> None:
    """An adapter with targets gives them for each element, and hidden elements reach no other one.

    An input of a size that has none may be refused. An adapter without targets refuses all.
    """
    adapter = case.build()
    if adapter.num_target_channels is None:
        common.check_refused("An input, though there are no targets", lambda: adapter.targets(case.x))
        return
    try:
        targets_BMV = adapter.targets(case.x)
    except ValueError:
        return
    whole = adapter(case.x)
    expected = (*whole.values.shape[:2], adapter.num_target_channels)
    assert tuple(targets_BMV.shape) == expected, (
        f"The targets are {tuple(targets_BMV.shape)}, expected {expected} (samples, elements, num_target_channels)."
    )
    mask_BM, masked_BMV = adapter(case.x, case.mask).mask, adapter.targets(case.x, case.mask)
    assert mask_BM is not None and masked_BMV[~mask_BM].isnan().all(), (
        "Masked elements have targets, expected NaN."
    )
    hidden_BM = torch.zeros(whole.values.shape[:2], dtype=torch.bool)
    hidden_BM[:, ::2] = True
    x = case.x.clone().requires_grad_()
    held_sum = adapter.targets(x)[hidden_BM].nan_to_num().sum()
    for training in (False, True):
        adapter.train(training)
        with common.seeded():
            values_BMC = adapter(x, adapter.mask_without(hidden_BM, x, None)).values
            seen_sum = (values_BMC * torch.randn_like(values_BMC))[~hidden_BM].sum()
        if not (held_sum.requires_grad and seen_sum.requires_grad):  # categories have no gradients
            continue
        (held,) = torch.autograd.grad(held_sum, x, retain_graph=True)
        (seen,) = torch.autograd.grad(seen_sum, x)
        assert not ((held != 0) & (seen != 0)).any(), (
            f"What hidden elements hold reaches others (training={training}): mask_without has to hide their values."
        )
    grid = whole.grid or (whole.values.shape[1],)
    try:
        restored = adapter.from_targets(targets_BMV, grid)
    except ValueError:
        return
    torch.testing.assert_close(
        restored,
        case.x,
        rtol=1e-5,
        atol=1e-5,
        equal_nan=True,
        msg=lambda message: f"from_targets does not give back what the targets were made of: {message}",
    )


def check_numerical_gradients(case: AdapterCase) -> None:
    """Gradients by parameters, and by a floating-point input, are right in float64."""
    floating = case.x.is_floating_point()
    common.check_numerical_gradients(
        case.build().double().eval(),
        x=case.x.double() if floating else None,
        arguments=lambda x: (case.x if x is None else x,),
        result=lambda byte_array: byte_array.values,
    )


def check_twin(case: AdapterCase) -> None:
    """A model with this adapter is bit-equal after saving and loading."""
    adapters = {"component_under_test": case.adapter_class}
    with common.seeded():
        model = PerceiverIO(
            PerceiverIOConfig(
                inputs={"x": case.config},
                encoder=common.tiny_encoder(),
                outputs={"y": PooledClassificationDecoder.Config(num_classes=2)},
                adapters=adapters,
            )
        )
    common.check_twin(model, lambda model: model({"x": case.x})["y"], adapters=adapters, decoders={})


def check_config(case: AdapterCase) -> None:
    """The configuration is frozen, keyword-only, survives JSON and refuses unknown keys; constructors name all."""
    common.check_config(case.config, case.adapter_class)
    common.check_constructor(case.adapter_class)


def check_bad_input(case: AdapterCase) -> None:
    """An empty batch, a wrong rank, type or value, and masks that do not fit: a ValueError each."""
    adapter, x, mask = case.build(), case.x, case.mask
    other_type = torch.int64 if x.is_floating_point() else torch.float32
    bad: dict[str, tuple[Tensor, Tensor | None]] = {
        "An empty batch": (x[:0], None),
        "An input without its batch axis": (x[0], None),
        "An input with an axis too many": (x.unsqueeze(0), None),
        f"An input of {other_type}": (x.to(other_type), None),
        "A mask of fewer samples": (x, mask[1:]),
        "A floating-point mask": (x, mask.float()),
    }
    for value in case.refused_values:
        spoilt = x.clone()
        spoilt[(-1,) * x.ndim] = value
        bad[f"An input with {value}"] = (spoilt, None)
    for what, arguments in bad.items():
        common.check_refused(what, lambda arguments=arguments: adapter(*arguments))  # type: ignore[misc]


ADAPTER_CHECKS: dict[str, Callable[[AdapterCase], None]] = {
    "config": check_config,
    "channels": check_channels,
    "samples": check_samples,
    "mask": check_mask,
    "padding": check_padding,
    "gradients": check_gradients,
    "nan": check_nan,
    "targets": check_targets,
    "numerical_gradients": check_numerical_gradients,
    "twin": check_twin,
    "bad_input": check_bad_input,
}
"""The checks that every adapter passes, by name, each a function of an `AdapterCase`."""


def check_adapter(case: AdapterCase) -> None:
    """Runs every check of `ADAPTER_CHECKS`.

    Raises:
        AssertionError: The adapter breaks the contract.
    """
    for check in ADAPTER_CHECKS.values():
        check(case)


def _encode(adapter: InputAdapter, encoder: Encoder, x: Tensor, mask: Tensor | None) -> Tensor:
    with common.seeded():
        byte_array = adapter(x, mask)
        values = byte_array.values
        # One element that is always real, because a sample that is wholly masked has no attention.
        anchored = dataclasses.replace(
            byte_array,
            values=torch.cat(
                [values, torch.linspace(-1, 1, values.shape[2]).expand(values.shape[0], 1, -1)], dim=1
            ),
            mask=None
            if byte_array.mask is None
            else torch.nn.functional.pad(byte_array.mask, (0, 1), value=True),
            grid=None,
        )
        return encoder(anchored)


def _assert_same(first: Tensor, second: Tensor, message: str, *, atol: float = 1e-6) -> None:
    torch.testing.assert_close(
        first, second, rtol=1e-5, atol=atol, equal_nan=False, msg=lambda details: f"{message} {details}"
    )

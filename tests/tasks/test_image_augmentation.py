from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.tasks.image_classification.augmentation import (
    Augmentation,
    ImageCollator,
    affine,
    augmentation_preset,
)
from perceiver_io.tasks.image_classification.task import ImageClassificationTask

NUM_CLASSES = 4
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(1, 256, (20 + seed, 24), dtype=np.uint8))
    for seed in range(8)
]
LABELS = [0, 1, 2, 3, 0, 1, 2, 3]
ROWS = [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]
EVERYTHING = Augmentation(
    crop="pad",
    horizontal_flip=True,
    rotation=10.0,
    translation=0.1,
    scaling=0.1,
    randaugment=True,
    random_erasing=0.5,
    mixup=0.2,
    cutmix=1.0,
)


def processor(**options: object) -> PerceiverIOImageProcessor:
    return PerceiverIOImageProcessor(**{"size": (16, 16), "num_channels": 1} | options)


def raw() -> PerceiverIOImageProcessor:
    return processor(rescale_factor=1.0, image_mean=0.0, image_std=1.0)


def collator(
    augmentation: Augmentation, of: PerceiverIOImageProcessor | None = None, *, train: bool = True
) -> Callable[..., Any]:
    if not train:
        return functools.partial(ImageClassificationTask().collate, processor=of or processor())
    return ImageCollator(of or processor(), augmentation, num_classes=NUM_CLASSES)


def unmixed(augmentation: Augmentation) -> Augmentation:
    return dataclasses.replace(augmentation, mixup=0.0, cutmix=0.0)


def twins(image: Image.Image, count: int) -> list[dict[str, Any]]:
    return [{"image": image, "label": 0}] * count


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_evaluation_is_the_processor(augmentation: Augmentation) -> None:
    got = collator(augmentation, train=False)(ROWS)
    assert torch.equal(got["pixel_values"], processor()(IMAGES)["pixel_values"])
    assert got["labels"].dtype == torch.int64 and got["labels"].tolist() == LABELS


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(label_smoothing=0.1)])
def test_training_without_augmentation_is_the_processor(augmentation: Augmentation) -> None:
    got = collator(augmentation)(ROWS)
    assert torch.equal(got["pixel_values"], processor()(IMAGES)["pixel_values"])


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [
        EVERYTHING,
        augmentation_preset("digits"),
        augmentation_preset("natural"),
        *(
            dataclasses.replace(Augmentation(), **{name: value})
            for name, value in dataclasses.asdict(EVERYTHING).items()
            if value != getattr(Augmentation(), name) and name not in ("mixup", "cutmix")
        ),
    ],
)
def test_augmentation_is_random_and_repeatable(augmentation: Augmentation, num_channels: int) -> None:
    transform = collator(unmixed(augmentation), processor(num_channels=num_channels))
    torch.manual_seed(0)
    first, second = transform(ROWS)["pixel_values"], transform(ROWS)["pixel_values"]
    torch.manual_seed(0)
    again = transform(ROWS)["pixel_values"]
    assert first.shape == (8, num_channels, 16, 16)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    varied = transform(twins(IMAGES[0], 32))["pixel_values"]
    assert len(varied.unique(dim=0)) > 1  # each image has random numbers of its own


def test_randomness_is_pytorchs_alone() -> None:
    def draw() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return collator(dataclasses.replace(EVERYTHING, crop="resized"))(ROWS)

    np.random.seed(0)
    first = draw()
    np.random.seed(1)
    second = draw()
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert torch.equal(first["labels"], second["labels"])


def test_flips_mirror_about_half_of_the_images() -> None:
    image = IMAGES[0].resize((16, 16))
    got = collator(Augmentation(horizontal_flip=True), raw())(twins(image, 400))["pixel_values"]
    plain = torch.from_numpy(np.array(image)).float()
    flipped = (got == plain.flip(-1)).flatten(1).all(dim=1)
    assert (flipped ^ (got == plain).flatten(1).all(dim=1)).all()
    assert 160 < flipped.sum() < 240


def test_pad_crops_are_windows_of_the_padded_image() -> None:
    image = IMAGES[0].resize((16, 16))
    got = collator(Augmentation(crop="pad", crop_padding=2), raw())(twins(image, 300))["pixel_values"]
    padded = np.pad(np.array(image), 2)
    windows = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    assert {crop.numpy().astype(np.uint8).tobytes() for crop in got} == windows


def test_resized_crops_keep_to_their_area() -> None:
    ramp = Image.fromarray(np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8), (120, 120)))
    got = collator(Augmentation(crop="resized", crop_min_area=0.5), raw())(twins(ramp, 50))["pixel_values"]
    seen = got[:, 0, :, -1] - got[:, 0, :, 0]  # the wider the crop, the more of the ramp
    assert got.shape == (50, 1, 16, 16)
    assert (seen > 238 * 0.5).all()
    assert seen.unique().numel() > 10


@pytest.mark.parametrize(
    ("angle", "scale", "shift"), [(0, 1, (0, 0)), (30, 1, (0, 0)), (-20, 0.8, (3, -2)), (90, 1.25, (-4, 5))]
)
def test_affine_agrees_with_torchvision(angle: float, scale: float, shift: tuple[int, int]) -> None:
    height, width = 20, 30
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    images = torch.stack([100 + 50 * torch.sin(x / 4) + 50 * torch.cos(y / 3), 2 * x + 3 * y])[:, None]
    expected = tv.affine(
        images,
        angle=angle,
        translate=list(shift),
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=0.0,
    )
    got = affine(
        images,
        angle=torch.full((2,), math.radians(angle)),
        scale=torch.full((2,), float(scale)),
        shift_x=torch.full((2,), shift[0] / width),
        shift_y=torch.full((2,), shift[1] / height),
    )
    # Where half of a pixel comes from outside, torchvision blends another way: compare what is all inside.
    inside = (
        affine(
            torch.ones_like(images),
            angle=torch.full((2,), math.radians(angle)),
            scale=torch.full((2,), float(scale)),
            shift_x=torch.full((2,), shift[0] / width),
            shift_y=torch.full((2,), shift[1] / height),
        )
        > 1 - 1e-4
    )
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(got[inside], expected[inside], rtol=0, atol=0.05)


def test_affine_takes_numbers_for_each_image() -> None:
    image = torch.zeros(3, 1, 5, 5)
    image[:, :, 2, 2] = 1.0
    zeros = torch.zeros(3)
    got = affine(image, angle=zeros, scale=torch.ones(3), shift_x=torch.tensor([0, 0.2, 0.1]), shift_y=-zeros)
    assert got[0, 0, 2, 2] == pytest.approx(1)
    assert got[1, 0, 2, 3] == pytest.approx(1, abs=1e-5)
    assert got[2, 0, 2, 2:4].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)  # half a pixel to the right


def test_with_a_dataset() -> None:
    features = Features({"image": ImageFeature(), "label": ClassLabel(num_classes=NUM_CLASSES)})
    rows = Dataset.from_dict({"image": IMAGES, "label": LABELS}, features=features)
    loader = torch.utils.data.DataLoader(
        rows, batch_size=3, collate_fn=collator(augmentation_preset("digits"))
    )
    batches = list(loader)
    assert [tuple(batch["pixel_values"].shape) for batch in batches] == [(n, 1, 16, 16) for n in (3, 3, 2)]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == LABELS


@pytest.mark.parametrize("train", [True, False])
def test_labels_are_indices_unless_mixed_or_smoothed(train: bool) -> None:
    for augmentation in (unmixed(EVERYTHING), Augmentation(label_smoothing=0.1), EVERYTHING):
        soft = train and augmentation != unmixed(EVERYTHING)
        got = collator(augmentation, train=train)(ROWS)
        assert got["labels"].dtype == (torch.float32 if soft else torch.int64)
        if soft:
            assert got["labels"].shape == (8, NUM_CLASSES)
            torch.testing.assert_close(got["labels"].sum(dim=1), torch.ones(8))
        else:
            assert got["labels"].tolist() == LABELS


@pytest.mark.parametrize("mixed", [False, True])
def test_label_smoothing_is_that_of_the_loss(mixed: bool) -> None:
    logits = torch.randn(8, NUM_CLASSES)
    plain = Augmentation(mixup=1.0) if mixed else Augmentation()
    torch.manual_seed(0)
    hard = collator(plain)(ROWS)["labels"]
    torch.manual_seed(0)
    smooth = collator(dataclasses.replace(plain, label_smoothing=0.2))(ROWS)["labels"]
    expected = torch.nn.functional.cross_entropy(logits, hard, label_smoothing=0.2)
    assert torch.nn.functional.cross_entropy(logits, smooth) == pytest.approx(expected.item())


def test_mixup_mixes_pixels_and_labels_alike() -> None:
    """An image has one bright pixel, the one that its class counts to."""
    images = (np.eye(NUM_CLASSES) * 255).astype(np.uint8).reshape(NUM_CLASSES, NUM_CLASSES, 1)
    plain = processor(size=(NUM_CLASSES, 1), rescale_factor=1 / 255, image_mean=0.0, image_std=1.0)
    rows = [{"image": Image.fromarray(image), "label": label} for label, image in enumerate(images)]
    got = collator(Augmentation(mixup=1.0), plain)(rows)
    torch.testing.assert_close(got["pixel_values"].flatten(1), got["labels"])
    torch.testing.assert_close(got["labels"].sum(dim=1), torch.ones(4))
    assert ((got["labels"] > 0).sum(dim=1) == 2).all()


def test_cutmix_labels_are_areas() -> None:
    torch.manual_seed(0)
    rows = [
        {"image": Image.fromarray(np.full((16, 16), label, dtype=np.uint8)), "label": label}
        for label in range(NUM_CLASSES)
    ]
    got = collator(Augmentation(cutmix=1.0), raw())(rows)
    areas = torch.stack(
        [(got["pixel_values"] == label).float().mean(dim=(1, 2, 3)) for label in range(4)], dim=1
    )
    assert ((areas > 0).sum(dim=1) == 2).any()
    torch.testing.assert_close(got["labels"], areas)


@pytest.mark.parametrize("train", [True, False])
def test_collators_can_be_sent_to_worker_processes(train: bool) -> None:
    collate = collator(EVERYTHING, train=train)
    twin = pickle.loads(pickle.dumps(collate))
    torch.manual_seed(0)
    expected = collate(ROWS)
    torch.manual_seed(0)
    got = twin(ROWS)
    assert torch.equal(got["pixel_values"], expected["pixel_values"])
    assert torch.equal(got["labels"], expected["labels"])


def test_presets() -> None:
    assert augmentation_preset("none") == Augmentation()
    assert not augmentation_preset("digits").horizontal_flip
    assert not augmentation_preset("mild").horizontal_flip and augmentation_preset("natural").horizontal_flip
    for name in ("nature", None, ["digits"]):
        with pytest.raises(ValueError, match=r"expected one of \['digits', 'mild', 'natural', 'none'\]"):
            augmentation_preset(name)  # type: ignore[arg-type]


def test_changes_of_a_preset() -> None:
    changed = augmentation_preset("digits").changed({"rotation": 3, "horizontal_flip": True})
    assert (changed.rotation, changed.horizontal_flip, changed.translation) == (3, True, 0.1)
    assert augmentation_preset("digits").rotation == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotate": 3}, "no augmentation 'rotate'. Known: preset, crop,.*rotation.*label_smoothing"),
        ({"rotation": "fast"}, "augmentation.rotation is 'fast', expected float"),
        ({"rotation": True}, "augmentation.rotation is True, expected float"),
        ({"rotation": None}, "augmentation.rotation is None, expected float"),
        ({"horizontal_flip": 1}, "augmentation.horizontal_flip is 1, expected bool"),
        ({"crop_padding": 1.5}, "augmentation.crop_padding is 1.5, expected int"),
        ({"crop": 3}, "augmentation.crop is 3, expected str"),
        ({"rotation": 181}, "rotation=181"),
    ],
)
def test_bad_changes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation().changed(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "center"}, "crop='center'"),
        ({"rotation": -1.0}, "rotation=-1.0"),
        ({"scaling": 1.0}, "scaling=1.0"),
        ({"random_erasing": 2.0}, "random_erasing=2.0"),
        ({"mixup": math.nan}, "mixup=nan"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"randaugment_magnitude": 31}, "randaugment_magnitude=31"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable

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
    Collator,
    affine,
    augmentation_preset,
    eval_transform,
    train_transform,
)

NUM_CLASSES = 4
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(1, 256, (20 + seed, 24), dtype=np.uint8))
    for seed in range(8)
]
BATCH = {"image": IMAGES, "label": [0, 1, 2, 3, 0, 1, 2, 3]}
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


def examples(batch: dict[str, object]) -> list[dict[str, object]]:
    return [
        {"pixel_values": pixels, "labels": label}
        for pixels, label in zip(batch["pixel_values"], batch["labels"], strict=True)
    ]


def test_evaluation_is_the_processor():
    got = eval_transform(processor())(BATCH)
    assert torch.equal(got["pixel_values"], processor()(IMAGES)["pixel_values"])
    assert got["labels"] == BATCH["label"]


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(mixup=1.0, cutmix=1.0, label_smoothing=0.1)]
)
def test_training_without_augmentation_is_the_processor(augmentation: Augmentation):
    got = train_transform(processor(), augmentation)(BATCH)
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
def test_augmentation_is_random_and_repeatable(augmentation: Augmentation, num_channels: int):
    transform = train_transform(processor(num_channels=num_channels), augmentation)
    torch.manual_seed(0)
    first, second = transform(BATCH)["pixel_values"], transform(BATCH)["pixel_values"]
    torch.manual_seed(0)
    again = transform(BATCH)["pixel_values"]
    assert first.shape == (8, num_channels, 16, 16)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    twins = transform({"image": [IMAGES[0]] * 32, "label": [0] * 32})["pixel_values"]
    assert len(twins.unique(dim=0)) > 1  # each image has random numbers of its own


def test_randomness_is_pytorchs_alone():
    def draw() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        batch = train_transform(processor(), dataclasses.replace(EVERYTHING, crop="resized"))(BATCH)
        return Collator(NUM_CLASSES, EVERYTHING, train=True)(examples(batch))

    np.random.seed(0)
    first = draw()
    np.random.seed(1)
    second = draw()
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert torch.equal(first["labels"], second["labels"])


def test_flips_mirror_about_half_of_the_images():
    image = IMAGES[0].resize((16, 16))
    batch = {"image": [image] * 400, "label": [0] * 400}
    got = train_transform(raw(), Augmentation(horizontal_flip=True))(batch)["pixel_values"]
    plain = torch.from_numpy(np.array(image)).float()
    flipped = (got == plain.flip(-1)).flatten(1).all(dim=1)
    assert (flipped ^ (got == plain).flatten(1).all(dim=1)).all()
    assert 160 < flipped.sum() < 240


def test_pad_crops_are_windows_of_the_padded_image():
    image = IMAGES[0].resize((16, 16))
    batch = {"image": [image] * 300, "label": [0] * 300}
    got = train_transform(raw(), Augmentation(crop="pad", crop_padding=2))(batch)["pixel_values"]
    padded = np.pad(np.array(image), 2)
    windows = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    assert {crop.numpy().astype(np.uint8).tobytes() for crop in got} == windows


def test_resized_crops_keep_to_their_area():
    ramp = Image.fromarray(np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8), (120, 120)))
    batch = {"image": [ramp] * 50, "label": [0] * 50}
    got = train_transform(raw(), Augmentation(crop="resized", crop_min_area=0.5))(batch)["pixel_values"]
    seen = got[:, 0, :, -1] - got[:, 0, :, 0]  # the wider the crop, the more of the ramp
    assert got.shape == (50, 1, 16, 16)
    assert (seen > 238 * 0.5).all()
    assert seen.unique().numel() > 10


@pytest.mark.parametrize(
    ("angle", "scale", "shift"), [(0, 1, (0, 0)), (30, 1, (0, 0)), (-20, 0.8, (3, -2)), (90, 1.25, (-4, 5))]
)
def test_affine_agrees_with_torchvision(angle: float, scale: float, shift: tuple[int, int]):
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


def test_affine_takes_numbers_for_each_image():
    image = torch.zeros(3, 1, 5, 5)
    image[:, :, 2, 2] = 1.0
    zeros = torch.zeros(3)
    got = affine(image, angle=zeros, scale=torch.ones(3), shift_x=torch.tensor([0, 0.2, 0.1]), shift_y=-zeros)
    assert got[0, 0, 2, 2] == pytest.approx(1)
    assert got[1, 0, 2, 3] == pytest.approx(1, abs=1e-5)
    assert got[2, 0, 2, 2:4].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)  # half a pixel to the right


def test_with_a_dataset():
    features = Features({"image": ImageFeature(), "label": ClassLabel(num_classes=NUM_CLASSES)})
    rows = Dataset.from_dict({"image": IMAGES, "label": BATCH["label"]}, features=features)
    view = rows.with_transform(train_transform(processor(), augmentation_preset("digits")))
    loader = torch.utils.data.DataLoader(
        view, batch_size=3, collate_fn=Collator(NUM_CLASSES, Augmentation(), train=True)
    )
    batches = list(loader)
    assert [batch["pixel_values"].shape[0] for batch in batches] == [3, 3, 2]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == BATCH["label"]
    assert view[0]["pixel_values"].shape == (1, 16, 16)


@pytest.mark.parametrize("train", [True, False])
def test_labels_are_indices_unless_mixed(train: bool):
    batch = eval_transform(processor())(BATCH)
    for augmentation in (Augmentation(label_smoothing=0.1), EVERYTHING):
        mixed = train and augmentation is EVERYTHING
        got = Collator(NUM_CLASSES, augmentation, train=train)(examples(batch))
        assert got["labels"].dtype == (torch.float32 if mixed else torch.int64)
        if not mixed:
            assert torch.equal(got["pixel_values"], batch["pixel_values"])
            assert got["labels"].tolist() == BATCH["label"]


def test_mixup_mixes_pixels_and_labels_alike():
    one_hot = torch.eye(NUM_CLASSES)
    images = [{"pixel_values": one_hot[label].view(NUM_CLASSES, 1, 1), "labels": label} for label in range(4)]
    got = Collator(NUM_CLASSES, Augmentation(mixup=1.0), train=True)(images)
    torch.testing.assert_close(got["pixel_values"].flatten(1), got["labels"])
    torch.testing.assert_close(got["labels"].sum(dim=1), torch.ones(4))
    assert ((got["labels"] > 0).sum(dim=1) == 2).all()


def test_cutmix_labels_are_areas():
    torch.manual_seed(0)
    images = [
        {"pixel_values": torch.full((1, 32, 32), float(label)), "labels": label}
        for label in range(NUM_CLASSES)
    ]
    got = Collator(NUM_CLASSES, Augmentation(cutmix=1.0), train=True)(images)
    areas = torch.stack(
        [(got["pixel_values"] == label).float().mean(dim=(1, 2, 3)) for label in range(4)], dim=1
    )
    torch.testing.assert_close(got["labels"], areas)


@pytest.mark.parametrize(
    "make", [lambda: train_transform(processor(), EVERYTHING), lambda: eval_transform(processor())]
)
def test_transforms_can_be_sent_to_worker_processes(make: Callable[[], Callable[[object], object]]):
    transform = make()
    twin = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(0)
    expected = transform(BATCH)["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(twin(BATCH)["pixel_values"], expected)
    pickle.dumps(Collator(NUM_CLASSES, EVERYTHING, train=True))


def test_presets():
    assert augmentation_preset("none") == Augmentation()
    assert not augmentation_preset("digits").horizontal_flip
    with pytest.raises(ValueError, match=r"'nature', expected one of \['digits', 'natural', 'none'\]"):
        augmentation_preset("nature")


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
def test_bad_options(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)

"""The files of the `transformers` layout: read in every form, written back, and refused if something is wrong."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, PerceiverConfig, PerceiverModel, PreTrainedModel

import perceiver_io as pio
from perceiver_io import PerceiverIO
from perceiver_io.published import load_transformers, save_transformers
from perceiver_io.tasks import image_classification

from .theirs import CASES

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
LATENTS = "perceiver.embeddings.latents"


def assert_bit_equal(found: PreTrainedModel, expected: PreTrainedModel) -> None:
    tensors = found.state_dict()
    assert tensors.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert tensors[name].dtype == value.dtype, name
        assert torch.equal(tensors[name], value), name


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / SAFETENSORS), folder / PICKLE)
    (folder / SAFETENSORS).unlink()


def as_shards(folder: Path, name: str = SAFETENSORS) -> None:
    """Three files and their index, as `transformers` writes large models."""
    tensors = load_file(folder / SAFETENSORS)
    (folder / SAFETENSORS).unlink()
    stem, suffix = name.split(".")
    weight_map = {}
    for shard in range(3):
        file = f"{stem}-{shard + 1:05}-of-00003.{suffix}"
        part = dict(list(tensors.items())[shard::3])
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{name}.index.json").write_text(json.dumps(index))


def change_weights(folder: Path, **changes: Tensor | None) -> None:
    tensors = load_file(folder / SAFETENSORS) | changes
    save_file({name: x for name, x in tensors.items() if x is not None}, folder / SAFETENSORS)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    model = CASES["fourier"].make()
    model.save_pretrained(tmp_path)
    return model, tmp_path


@pytest.mark.parametrize("name", CASES)
def test_round_trip_is_bit_equal(name: str, tmp_path: Path) -> None:
    """Theirs, ours, ours saved and loaded, theirs again: the same tensors and, exactly, the same outputs."""
    case = CASES[name]
    theirs = case.make()
    theirs.save_pretrained(tmp_path / "theirs")
    pio.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    save_transformers(pio.from_pretrained(tmp_path / "ours"), tmp_path / "again")
    again = case.cls.from_pretrained(tmp_path / "again")
    assert_bit_equal(again, theirs)
    inputs = case.inputs()
    with torch.no_grad():
        for output, value in case.run_theirs(theirs, inputs).items():
            assert torch.equal(case.run_theirs(again, inputs)[output], value)
    before, after = (
        json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("theirs", "again")
    )
    unread = {"image_size"} if name in ("fourier", "conv") else set()
    for field in before.keys() - {"transformers_version"} - unread:
        assert after[field] == before[field], field
    assert after["architectures"] == before["architectures"]


def test_the_count_of_batches_survives(tmp_path: Path) -> None:
    CASES["conv"].make().save_pretrained(tmp_path)
    ours = pio.from_pretrained(tmp_path).state_dict()
    count = ours["perceiver.adapters.image.features.norm.num_batches_tracked"]
    assert count.dtype == torch.int64 and count == 1234567


@pytest.mark.parametrize(
    "rewrite",
    [as_pickle, as_shards, lambda folder: as_shards(folder, PICKLE)],
    ids=["pickle", "shards", "both"],
)
@pytest.mark.parametrize("name", ["conv", "multimodal"])
def test_every_form_of_weights_is_read(name: str, rewrite: Any, tmp_path: Path) -> None:
    CASES[name].make().save_pretrained(tmp_path)
    expected = pio.from_pretrained(tmp_path)
    rewrite(tmp_path)
    assert not (tmp_path / SAFETENSORS).exists()
    assert_bit_equal(pio.from_pretrained(tmp_path), expected)


def test_pickles_of_older_releases_are_read(saved: Any) -> None:
    _, folder = saved
    expected = pio.from_pretrained(folder)
    torch.save(load_file(folder / SAFETENSORS), folder / PICKLE, _use_new_zipfile_serialization=False)
    (folder / SAFETENSORS).unlink()
    assert_bit_equal(pio.from_pretrained(folder), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_or_chosen(saved: Any, dtype: torch.dtype) -> None:
    model, folder = saved
    assert pio.from_pretrained(folder, dtype=dtype).dtype == dtype
    model.to(dtype).save_pretrained(folder)
    ours = pio.from_pretrained(folder)
    assert ours.dtype == dtype
    save_transformers(ours, folder / "again")
    assert_bit_equal(type(model).from_pretrained(folder / "again"), model)


def test_saving_over_the_folder_it_came_from(saved: Any) -> None:
    model, folder = saved
    ours = pio.from_pretrained(folder)
    ours.save_pretrained(folder)
    assert_bit_equal(pio.from_pretrained(folder), ours)
    save_transformers(ours, folder)
    assert_bit_equal(type(model).from_pretrained(folder), model)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", SAFETENSORS]


def test_another_number_of_classes_for_fine_tuning(saved: Any) -> None:
    _, folder = saved
    published = pio.from_pretrained(folder)
    values = published.config.to_dict()
    values["outputs"]["label"]["num_classes"] = 3
    config = type(published.config).from_dict(values | {"id2label": None, "label2id": None})
    with pytest.raises(ValueError, match=r"wrong shape: perceiver\.decoder\.decoder\.final_layer\.weight"):
        pio.from_pretrained(folder, config=config)
    model = pio.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
    assert model(torch.randn(2, 3, 8, 8)).logits.shape == (2, 3)
    assert torch.equal(model.perceiver.encoder.latents.weight, published.perceiver.encoder.latents.weight)


def test_all_that_does_not_fit_is_said_at_once(saved: Any) -> None:
    _, folder = saved
    change_weights(
        folder,
        **{
            LATENTS: torch.zeros(9, 32),
            "perceiver.extra": torch.zeros(3),
            "perceiver.encoder.cross_attention.mlp.dense1.bias": None,
        },
    )
    with pytest.raises(ValueError) as caught:
        pio.from_pretrained(folder)
    assert str(caught.value).splitlines()[1:] == [
        "  missing tensor: perceiver.encoder.cross_attention.mlp.dense1.bias",
        "  unexpected tensor: perceiver.extra",
        f"  wrong shape: {LATENTS} is (9, 32), expected (8, 32)",
    ]


def test_the_checkpoint_of_another_model(saved: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, folder = saved
    other = tmp_path_factory.mktemp("other")
    CASES["flow"].make().save_pretrained(other)
    (other / SAFETENSORS).replace(folder / SAFETENSORS)
    with pytest.raises(ValueError, match=r"do not fit PerceiverIOForImageClassification"):
        pio.from_pretrained(folder)


def test_a_config_that_fits_no_weights(saved: Any) -> None:
    _, folder = saved
    change_config(folder, d_latents=64, num_self_attends_per_block=3)
    with pytest.raises(
        ValueError, match=r"missing tensor: perceiver\.encoder\.self_attends\.2\.(.|\n)*wrong shape"
    ):
        pio.from_pretrained(folder)


class Runs:
    """Creates a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_hold_more_than_tensors_are_refused(saved: Any, zipped: bool) -> None:
    _, folder = saved
    as_pickle(folder)
    tensors = torch.load(folder / PICKLE, weights_only=True)
    torch.save(tensors | {"x": Runs(folder / "ran")}, folder / PICKLE, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is refused"):
        pio.from_pretrained(folder)
    assert not (folder / "ran").exists()
    (folder / PICKLE).write_bytes(pickle.dumps(Runs(folder / "ran"), protocol=2))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin (is refused|cannot be read)"):
        pio.from_pretrained(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, torch.zeros(2), None], ids=str)
def test_pickles_of_other_things_are_refused(saved: Any, content: Any) -> None:
    _, folder = saved
    as_pickle(folder)
    torch.save(content, folder / PICKLE)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin must hold tensors by name"):
        pio.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1000])
@pytest.mark.parametrize("name", [SAFETENSORS, PICKLE])
def test_truncated_weights_are_refused(saved: Any, name: str, keep: int) -> None:
    _, folder = saved
    if name == PICKLE:
        as_pickle(folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} (cannot be read|is refused)"):
        pio.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_refused(saved: Any, content: str) -> None:
    _, folder = saved
    as_shards(folder)
    (folder / f"{SAFETENSORS}.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index.* cannot be read"):
        pio.from_pretrained(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", ".."])
def test_an_index_names_files_beside_it_only(saved: Any, shard: str) -> None:
    _, folder = saved
    as_shards(folder)
    (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises((ValueError, OSError), match=r"index.* cannot be read"):
        pio.from_pretrained(folder)


def test_a_missing_shard_is_named(saved: Any) -> None:
    _, folder = saved
    as_shards(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00003"):
        pio.from_pretrained(folder)


def test_missing_weights_are_named(saved: Any) -> None:
    _, folder = saved
    (folder / SAFETENSORS).unlink()
    with pytest.raises(OSError, match=r"has no weights: expected model\.safetensors or pytorch_model\.bin"):
        pio.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["PerceiverForTelepathy"]},
            r"'PerceiverForTelepathy' .* Known: .*PerceiverForMaskedLM",
        ),
        ({"architectures": None}, r"class None of transformers"),
        ({"hidden_act": "relu"}, r"hidden_act is 'relu'; .*'gelu'"),
        ({"cross_attention_shape_for_attention": "v"}, r"must be 'q' or 'kv', got 'v'"),
        ({"d_latents": "wide"}, r"config\.json of this Perceiver cannot be used: .*d_latents"),
        ({"num_latents": 0}, r"num_latents must be at least 1"),
        ({"model_type": "bert"}, r"a 'bert' model, expected 'perceiver_io', or 'perceiver'"),
    ],
)
def test_configurations_that_cannot_be_had_are_refused(
    saved: Any, changes: dict[str, Any], message: str
) -> None:
    _, folder = saved
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        pio.from_pretrained(folder)


def test_their_bare_model_is_none_of_ours(tmp_path: Path) -> None:
    PerceiverModel(
        PerceiverConfig(num_latents=4, d_latents=16, num_self_attends_per_block=1)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"saved by the class 'PerceiverModel' .* cannot be loaded"):
        pio.from_pretrained(tmp_path)


def test_a_folder_of_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"has no config\.json, or an empty one: expected a folder"):
        pio.from_pretrained(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert' model"):
        pio.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"class None of transformers"):
        load_transformers(tmp_path)


def test_what_transformers_cannot_compute_is_not_exported(tmp_path: Path) -> None:
    fields = {
        "encoder": {"num_latents": 4, "latent_channels": 16, "num_self_attends_per_block": 1},
        "num_classes": 5,
    }
    conv = image_classification.PerceiverIOForImageClassification(
        image_classification.config(variant="conv", **fields)
    )
    with pytest.raises(ValueError, match=r"inputs\.image\.conv_padding: 'same' here, 'symmetric' there"):
        save_transformers(conv, tmp_path / "conv")
    learned = image_classification.PerceiverIOForImageClassification(
        image_classification.config(variant="learned", size=(8, 8), **fields)
    )
    with pytest.raises(ValueError, match=r"outputs\.label\.use_query_residual: False here, True there"):
        save_transformers(learned, tmp_path / "learned")
    for variant in ("tiny", "perceiver"):
        config = image_classification.config(variant=variant, size=(8, 8), num_classes=5)
        with pytest.raises(ValueError, match=r"this model"):
            save_transformers(PerceiverIOForImageClassificationOnMeta(config), tmp_path / variant)
    assert not any(tmp_path.iterdir())


def PerceiverIOForImageClassificationOnMeta(config: Any) -> Any:  # large, and its weights are not needed
    with torch.device("meta"):
        return image_classification.PerceiverIOForImageClassification(config)


def test_the_model_inside_is_exported_too(saved: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    model, folder = saved
    again = tmp_path_factory.mktemp("again")
    inner = pio.from_pretrained(folder).perceiver
    assert type(inner) is PerceiverIO
    save_transformers(inner, again)
    assert_bit_equal(type(model).from_pretrained(again), model)


def test_nothing_half_written_is_left(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from perceiver_io.published import huggingface

    _, folder = saved
    ours = pio.from_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_transformers(ours, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

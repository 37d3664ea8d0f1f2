"""The card of a saved model, and its way to the hub, which a folder stands for here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

import perceiver_io as pio
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.model_card import model_card
from perceiver_io.processor import PerceiverIOProcessor
from tests.clients.cases import CASES, model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which repositories are folders; what is called are the methods of the real client."""
    root = tmp_path / "hub"

    def create_repo(self: Any, repo_id: str, **_: Any) -> Any:
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self: Any, *, repo_id: str, folder_path: Any, ignore_patterns: Any, **_: Any) -> str:
        ignored = shutil.ignore_patterns(*(ignore_patterns or []))
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True, ignore=ignored)
        return f"{repo_id}/commit"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "file_exists",
        lambda self, repo_id, name, **_: (root / repo_id / name).exists(),
    )
    return root


@pytest.mark.parametrize("name", CASES)
def test_every_class_writes_one(name: str, tmp_path: Path) -> None:
    net = model(name)
    net.save_pretrained(tmp_path, card={"license": "apache-2.0", "tags": ["toy"]})
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "perceiver-io-toolkit"
    assert "toy" in card.data.tags and card.data.pipeline_tag == type(net).pipeline_tag
    assert f"{net.num_parameters():,} parameters" in card.text
    for part in (*net.config.inputs, *net.config.outputs):
        assert f"`{part}`" in card.text


def test_its_code_runs(tmp_path: Path) -> None:
    net = model("image-classification")
    net.save_pretrained(tmp_path)
    PerceiverIOImageProcessor(size=(8, 8)).save_pretrained(tmp_path)
    text = str(model_card(net, name=str(tmp_path), has_processor=True))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block, name in zip(blocks, ("model", "model"), strict=True):
        found: dict[str, Any] = {}
        exec(block, found)
        assert found[name] is not None
    assert found["model"].task == "image-classification"


def test_a_card_that_somebody_wrote_stays(tmp_path: Path) -> None:
    net = model("regression")
    (tmp_path / "README.md").write_text("mine")
    net.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    net.save_pretrained(tmp_path, card={"license": "mit"})
    assert "license: mit" in (tmp_path / "README.md").read_text()


def test_wrong_fields(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model card"):
        model("regression").save_pretrained(tmp_path, card={"eval_results": 3, "model_name": None})


def test_names_that_are_no_text_for_a_table(tmp_path: Path) -> None:
    net = model("image-classification")
    net.config.id2label = {0: "a|b", 1: "`c`\n# d", 2: "x" * 500}
    text = str(model_card(net))
    (line,) = [line for line in text.splitlines() if line.startswith("The 3 classes")]
    assert "`a b`, ` c  # d`, " in line and len(line) < 200


def test_pushed_and_loaded(hub: Path) -> None:
    net = model("image-classification")
    assert net.push_to_hub("me/flowers", card={"license": "cc0-1.0"}) == "me/flowers/commit"
    assert {path.name for path in (hub / "me/flowers").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = (hub / "me/flowers/README.md").read_text()
    assert "license: cc0-1.0" in card and "# flowers" in card and '"me/flowers"' in card
    twin = pio.from_pretrained(hub / "me/flowers")
    torch.testing.assert_close(twin.state_dict(), net.state_dict(), rtol=0, atol=0)
    # Pushed again, the card that is there stays, unless there is something to say.
    (hub / "me/flowers/README.md").write_text("mine")
    net.push_to_hub("me/flowers")
    assert (hub / "me/flowers/README.md").read_text() == "mine"
    net.push_to_hub("me/flowers", tags=["x"])
    assert "- x\n" in (hub / "me/flowers/README.md").read_text()


def test_saving_may_push(hub: Path, tmp_path: Path) -> None:
    model("regression").save_pretrained(tmp_path / "tides", push_to_hub=True, max_shard_size="10KB")
    assert (hub / "tides/model.safetensors.index.json").exists() and (hub / "tides/README.md").exists()


def test_processors_are_pushed(hub: Path) -> None:
    processor = PerceiverIOProcessor({"sound": PerceiverIOFeatureExtractor(), "text": ByteTextProcessor()})
    processor.push_to_hub("me/flowers", private=True)
    assert PerceiverIOProcessor.from_pretrained(hub / "me/flowers") == processor

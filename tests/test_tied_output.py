"""Outputs that are tied to an input's embedding: one table, owned by the input's adapter."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from perceiver_io import DecoderParts, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.layers import LearnedArray

GRID = (4, 6)


def tied_model(**fields: Any) -> PerceiverIO:
    defaults: dict[str, Any] = {
        "output_channels": 11,
        "grid": (9,),
        "grid_input": "text",
        "position": "learned",
        "position_channels": 6,
        "position_resize": "truncate",
        "channel_axis": -1,
        "tied_to": "text",
    }
    config = PerceiverIOConfig(
        inputs={"text": TextAdapter.Config(vocab_size=11, max_length=9, num_channels=6)},
        encoder=EncoderConfig(num_latents=4, latent_channels=8, num_self_attends_per_block=1),
        outputs={"text": DenseDecoder.Config(**defaults | fields)},
    )
    return PerceiverIO(config).eval()


def embedding(model: PerceiverIO) -> torch.Tensor:
    return model.adapters["text"].embedding.weight


def test_a_tied_output_is_a_product_with_the_embedding() -> None:
    model = tied_model()
    torch.nn.init.normal_(model.decoders["text"].output.bias)
    ids = torch.randint(11, (2, 5))
    batch = model.encode({"text": ids})
    module = model.decoders["text"]
    queries = module.position.table.weight[:5].expand(2, -1, -1)
    x = module.cross_attend(queries, batch.latents)
    expected = torch.einsum("boq,kq->bok", x, embedding(model)) + module.output.bias
    torch.testing.assert_close(model.decode(batch)["text"], expected)
    torch.testing.assert_close(module.output(x), expected)
    expected.square().sum().backward()
    by_hand = embedding(model).grad.clone()
    model.zero_grad()
    model({"text": ids})["text"].square().sum().backward()
    torch.testing.assert_close(embedding(model).grad, by_hand, atol=1e-4, rtol=1e-4)


def test_a_tied_embedding_is_saved_and_loaded_once(tmp_path: Path) -> None:
    model = tied_model()
    names = [name for name, value in model.state_dict().items() if value.shape == (11, 6)]
    assert names == ["adapters.text.embedding.weight"]
    assert [name for name in model.state_dict() if name.startswith("decoders.text.output")] == [
        "decoders.text.output.bias"
    ]
    with torch.no_grad():
        embedding(model).normal_()
    model.save_pretrained(tmp_path)
    assert [
        name for name, value in load_file(tmp_path / "model.safetensors").items() if value.shape == (11, 6)
    ] == names
    twin = PerceiverIO.from_pretrained(tmp_path)
    assert twin.decoders["text"].output.weight is embedding(twin)
    ids = torch.randint(11, (2, 5))
    assert torch.equal(twin({"text": ids})["text"], model({"text": ids})["text"])


def test_copies_and_conversions_keep_the_tie_within_the_model() -> None:
    model = tied_model()
    twin = copy.deepcopy(model)
    assert twin.decoders["text"].output.weight is embedding(twin)
    assert twin.decoders["text"].output.weight is not embedding(model)
    twin.double()
    assert twin.decoders["text"].output.weight.dtype == torch.float64
    ids = torch.randint(11, (2, 5))
    torch.testing.assert_close(
        twin({"text": ids})["text"].float(), model({"text": ids})["text"], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("size", "found"), [(None, "None"), ((3, 14), r"\(3, 14\)"), ((2, 5), r"\(2, 5\)")])
def test_an_embedding_that_does_not_fit_is_refused(size: tuple[int, int] | None, found: str) -> None:
    config = DenseDecoder.Config(output_channels=2, grid=GRID, num_bands=3, tied_to="text")
    embedding = None if size is None else LearnedArray(*size)
    with pytest.raises(ValueError, match=rf"tied to 'text' needs an embedding \(2, 14\) .*, got {found}"):
        DenseDecoder(config, DecoderParts(latent_channels=8, embedding=embedding))


def test_an_input_without_an_embedding_is_refused() -> None:
    config = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=GRID, num_bands=2)},
        encoder=EncoderConfig(num_latents=4, latent_channels=8),
        outputs={"y": DenseDecoder.Config(output_channels=2, grid=GRID, num_bands=3, tied_to="image")},
    )
    with pytest.raises(ValueError, match=r"tied to 'image' needs an embedding \(2, 14\) .*, got None"):
        PerceiverIO(config)


def test_an_output_alone_copies_its_bias_and_keeps_the_tie() -> None:
    model = tied_model()
    output = model.decoders["text"].output
    twin = copy.deepcopy(output)
    assert twin.weight is embedding(model) and twin.bias is not output.bias
    assert torch.equal(twin.bias, output.bias)
    assert [name for name, _ in twin.named_parameters()] == ["bias"]


def test_a_tie_to_what_is_no_part_of_the_model_is_not_saved(tmp_path: Path) -> None:
    """Loaded again, the output would be tied to the table that is there now."""
    model = tied_model()
    model.adapters["text"].embedding = LearnedArray(11, 6)
    with pytest.raises(
        ValueError, match=r"outputs \['decoders.text.output'\] are tied to embeddings that were repl"
    ):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()

"""The embeddings of tokens, as `transformers` and PEFT look for them."""

from pathlib import Path

import pytest
import small_models
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import perceiver_io as pio
from perceiver_io.tasks.masked_language_modeling import PerceiverIOForMaskedLM

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's


def table(model: PerceiverIOForMaskedLM) -> nn.Parameter:
    return model.perceiver.adapters["text"].embedding.weight


def untied() -> PerceiverIOForMaskedLM:
    config = small_models.mlm_config()
    values = config.to_dict()
    values["outputs"]["text"]["tied_to"] = None
    return PerceiverIOForMaskedLM(type(config).from_dict(values)).eval()


MODELS = {"tied": lambda: small_models.model("mlm"), "untied": untied}


def test_the_one_input_with_tokens_is_found() -> None:
    model = small_models.model("mlm")
    for each in (model, model.perceiver):
        assert each.get_input_embeddings() is model.perceiver.adapters["text"].embedding
    assert model.get_output_embeddings() is None
    for name in small_models.CONFIGS.keys() - {"mlm"}:
        other = small_models.model(name)
        assert other.get_input_embeddings() is None
        with pytest.raises(NotImplementedError, match=r"Of the inputs \[.*\], 0 have embeddings of tokens"):
            other.set_input_embeddings(nn.Embedding(5, 6))


def test_embeddings_that_are_set_are_those_of_the_output_too() -> None:
    model = small_models.model("mlm")
    arguments = small_models.arguments("mlm")
    value = nn.Embedding(262, 24)
    model.set_input_embeddings(value)
    assert table(model) is value.weight and model.perceiver.decoders["text"].output.weight is value.weight
    found = model(**arguments).logits
    found.sum().backward()
    assert value.weight.grad is not None
    with pytest.raises(ValueError, match=r"must have a weight \(262, 24\), got \(300, 24\)\."):
        model.set_input_embeddings(nn.Embedding(300, 24))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mean_resizing", [True, False])
def test_more_tokens(name: str, mean_resizing: bool, tmp_path: Path) -> None:
    model = MODELS[name]()
    arguments = small_models.arguments("mlm")
    before = model(**arguments)
    returned = model.resize_token_embeddings(270, mean_resizing=mean_resizing)
    assert returned is model.get_input_embeddings()
    after = model(**arguments)
    assert after.logits.shape == (2, 20, 270)
    torch.testing.assert_close(after.logits[..., :262], before.logits)
    if mean_resizing:
        torch.testing.assert_close(after.logits[..., 265], before.logits.mean(-1), rtol=1e-4, atol=1e-5)
    else:
        assert table(model)[262:].std() > 0
    new_ids = arguments["input_ids"].clone()
    new_ids[:, 3] = 269
    loss = model(new_ids, labels=new_ids).loss
    loss.backward()
    assert table(model).grad[269].any()
    assert model.config.inputs["text"].vocab_size == model.config.outputs["text"].output_channels == 270
    model.save_pretrained(tmp_path)
    loaded = pio.from_pretrained(tmp_path)
    assert torch.equal(loaded(new_ids).logits, model(new_ids).logits)
    assert loaded.config.to_dict()["inputs"] == model.config.to_dict()["inputs"]


@pytest.mark.parametrize("name", MODELS)
def test_fewer_tokens_and_round_numbers(name: str) -> None:
    model = MODELS[name]()
    ids = torch.randint(6, 200, (2, 20))
    before = model(ids).logits
    model.resize_token_embeddings(200)
    torch.testing.assert_close(model(ids).logits, before[..., :200])
    model.resize_token_embeddings(pad_to_multiple_of=64)
    assert model.vocab_size == 256 and model(ids).logits.shape[-1] == 256
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        model.resize_token_embeddings(0)
    with pytest.raises(ValueError, match="must be from 0 to 255"):
        model(torch.full((1, 3), 256))


@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_adapters_on_all_linear_layers_train_in_every_model(name: str) -> None:
    model = get_peft_model(small_models.model(name), LoraConfig(target_modules="all-linear"))
    small_models.outputs(model(**small_models.arguments(name)))["loss"].backward()
    trained = {path for path, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained and all("lora_" in path for path in trained)


def test_frozen_embeddings_stay_so_where_their_outputs_need_gradients() -> None:
    model = small_models.model("mlm")
    model = get_peft_model(model, LoraConfig(target_modules="all-linear")).train()
    model.enable_input_require_grads()
    model(**small_models.arguments("mlm")).loss.backward()
    assert not table(model.get_base_model()).requires_grad
    assert table(model.get_base_model()).grad is None
    trained = {path for path, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained and all("lora_" in path for path in trained)

"""A frozen vision model and a frozen language model; between them a resampler, which alone learns.

The vision model is a ViT of `transformers` with random weights. The language model is a small Llama that has read about
digits and never seen one. In earnest both are downloaded; nothing else changes.

Shape legend: B batch, M features of an image, C their channels, L words, N latents, D channels of a word.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

import perceiver_io as pio

# --8<-- [start:models]
NAMES = "zero one two three four five six seven eight nine".split()
WORDS = ["<s>", ".", "it", "is", "a", *NAMES]


def tokens(text: str) -> list[int]:
    """The words of a text by their numbers."""
    return [WORDS.index(word) for word in text.split()]


def vision_model() -> ViTModel:
    """Four by four patches of an image of 8x8, and a class token: 17 features of 48 channels."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    config = ViTConfig(image_size=8, patch_size=2, num_channels=1, **sizes)
    return ViTModel(config, add_pooling_layer=False).requires_grad_(False).eval()


def language_model() -> LlamaForCausalLM:
    """Learns of texts that say what they have said before, and is frozen."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), initializer_range=0.1, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        names = [NAMES[i] for i in torch.randint(10, (32,)).tolist()]
        before = ". " * int(torch.randint(5, ()))
        ids = torch.tensor([tokens(f"<s> {before}{name} . it is a {name} .") for name in names])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False).eval()


# --8<-- [end:models]


# --8<-- [start:join]
class Reader(nn.Module):
    """A language model that is told, before the first word, what features say."""

    def __init__(self, language: LlamaForCausalLM, feature_channels: int) -> None:
        super().__init__()
        self.language = language
        self.resampler = pio.PerceiverResampler(
            feature_channels, num_latents=4, depth=2, latent_channels=language.config.hidden_size, num_heads=4
        )

    def embeddings(self, features: Tensor, ids: Tensor) -> Tensor:
        """Latents before words: (B, M, C) and (B, L) to (B, N + L, D)."""
        return torch.cat([self.resampler(features), self.language.get_input_embeddings()(ids)], dim=1)

    def loss(self, features: Tensor, names: list[str]) -> Tensor:
        """How badly the names and full stops follow from the images; the words before are given."""
        ids = torch.tensor([tokens(f"<s> . it is a {name} .") for name in names])
        embeddings = self.embeddings(features, ids)
        labels = torch.full(embeddings.shape[:2], -100)
        labels[:, -2:] = ids[:, -2:]
        return self.language(inputs_embeds=embeddings, labels=labels).loss

    @torch.no_grad()
    def answers(self, features: Tensor) -> list[str]:
        """What the language model says that it is."""
        ids = torch.tensor([tokens("<s> . it is a")] * len(features))
        said = self.language.generate(
            inputs_embeds=self.embeddings(features, ids), max_new_tokens=2, do_sample=False, pad_token_id=0
        )
        return [" ".join(WORDS[i] for i in row).removesuffix(" .") for row in said.tolist()]


# --8<-- [end:join]


# --8<-- [start:train]
def main() -> None:
    """Trains on 1,437 digits, and asks for the names of 360 others."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    with torch.no_grad():  # the vision model is frozen: its features are computed once
        features = vision_model()(pixel_values=pixels).last_hidden_state
    names = [NAMES[digit] for digit in digits]
    train, test = train_test_split(range(len(names)), test_size=360, stratify=digits, random_state=0)
    reader = Reader(language_model(), features.shape[-1])

    def share_right() -> float:
        answers = reader.answers(features[test])
        return sum(answer == names[i] for answer, i in zip(answers, test, strict=True)) / len(test)

    before = share_right()
    learned = [parameter for parameter in reader.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=400)
    for _ in range(400):
        batch = [train[i] for i in torch.randint(len(train), (32,)).tolist()]
        reader.loss(features[batch], [names[i] for i in batch]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"{sum(map(torch.numel, learned)):,} parameters learn")
    print(f"named rightly: {before:.1%} before, {share_right():.1%} after")


# --8<-- [end:train]

if __name__ == "__main__":
    main()

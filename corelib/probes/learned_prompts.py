"""Prompts with learned tokens: a word in place of a style's name, or a prefix of words of the vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.errors import AssetError, ConfigurationError
from corelib.randomness import generator
from corelib.settings.probes import Start
from corelib.settings.prompts import Wording

PLACE = "\x00"
"""Stands for the learned word in a prompt; no prompt of a user contains it."""

INITIAL_SCALE = 0.01
"""Standard deviation of the initial scores of a prefix, which decide among equal tokens."""


class LearnedPrompts(ABC):
    """Prompts of some styles, of which some tokens are learned for each style.

    Args:
        tokenizer: the tokenizer of the encoder.
        encoder: the text encoder, without gradients and on its device.
        wording: wording of the prompts.

    Attributes:
        learned: the tensors to be trained, by style.
    """

    learned: Mapping[str, Tensor]

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, wording: Wording) -> None:
        self.tokenizer, self.encoder, self.wording = tokenizer, encoder, wording
        self.table: Tensor = encoder.get_input_embeddings().weight  # (vocabulary, width)
        self._table_name = next(name for name, tensor in encoder.named_parameters() if tensor is self.table)

    @abstractmethod
    def token_embeddings(self, style: str) -> Tensor:
        """The embeddings of the learned tokens of a style, (tokens, width), with gradients."""

    @abstractmethod
    def prompt_tokens(self, style: str, object_: str, learned: Sequence[int]) -> list[int]:
        """The tokens of a prompt between start and end.

        Args:
            style, object_: the concept.
            learned: the learned tokens; their numbers follow those of the vocabulary.
        """

    def embed(self, style: str, objects: Sequence[str]) -> Tensor:
        """The last hidden state of the prompts of a style and some objects, (objects, tokens, width).

        Raises `ConfigurationError` or `AssetError` if a prompt has no place for the learned tokens.
        """
        rows = self.token_embeddings(style)
        ids = torch.tensor([self._padded(style, object_, len(rows)) for object_ in objects])
        weights = {self._table_name: torch.cat([self.table, rows])}
        hidden: Tensor = functional_call(self.encoder, weights, (ids.to(self.table.device),))[0]
        return hidden

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, padding=False)["input_ids"]
        return found

    def _padded(self, style: str, object_: str, count: int) -> list[int]:
        """The tokens of a prompt in the length that the encoder takes."""
        learned = range(len(self.table), len(self.table) + count)
        words = self.prompt_tokens(style, object_, learned)
        ids = [self.tokenizer.bos_token_id, *words, self.tokenizer.eos_token_id]
        limit = self.tokenizer.model_max_length
        if len(ids) > limit:
            prompt = self.wording.prompt(style, object_)
            raise AssetError(
                f"the prompt {prompt!r} has {len(ids)} tokens with its {count} learned ones, expected at most {limit}; "
                "shorten it."
            )
        return [*ids, *[self.tokenizer.pad_token_id] * (limit - len(ids))]


class LearnedWords(LearnedPrompts):
    """A learned word for each style, with as many tokens as the style's name (textual inversion).

    Source: Gal et al., "An image is worth one word", 2022; applied to unlearned models by Pham et al., "Circumventing
    concept erasure methods for text-to-image generative models", 2023.

    Args:
        tokenizer, encoder, wording: as for `LearnedPrompts`.
        styles: the styles.
        start: initial value of the words.
    """

    def __init__(
        self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, wording: Wording, styles: Sequence[str], start: Start
    ) -> None:
        super().__init__(tokenizer, encoder, wording)
        self.learned = {style: self._initial(style, start).requires_grad_(True) for style in styles}

    def _initial(self, style: str, start: Start) -> Tensor:
        named = self.table[self.ids(self.wording.words(style))].detach().clone()
        return named if start == "name" else self.table.detach().mean(dim=0).expand_as(named).clone()

    def token_embeddings(self, style: str) -> Tensor:
        """The learned embeddings themselves."""
        return self.learned[style]

    def prompt_tokens(self, style: str, object_: str, learned: Sequence[int]) -> list[int]:
        """The usual prompt with the learned word in place of the style's name.

        Raises `ConfigurationError` if the prompt does not name the style.
        """
        marked = self.wording.model_copy(update={"names": {**self.wording.names, style: PLACE}})
        prompt = marked.prompt(style, object_)
        if PLACE not in prompt:
            raise ConfigurationError(
                f"the prompt {prompt!r} does not name the style {style}, expected one that does: its name is replaced "
                "by a learned word."
            )
        first, *others = prompt.split(PLACE)
        return [*self.ids(first), *(token for text in others for token in (*learned, *self.ids(text)))]


class LearnedPrefixes(LearnedPrompts):
    """Words of the vocabulary for each style, which stand before the usual prompt (an adversarial prompt).

    A word is a token that the tokenizer reads back from its own text, so that a user can type the prefix.

    The loss is that of UnlearnDiffAtk (Zhang et al., "To generate or not? Safety-driven unlearned diffusion models are
    still easy to generate unsafe images ... for now", 2024). The search differs: each token has a score, the token with
    the highest score is in the prompt, and the gradient is that of the softmax of the scores (straight-through; Bengio
    et al., 2013), instead of projected gradient descent on relaxed tokens.

    Args:
        tokenizer, encoder, wording: as for `LearnedPrompts`.
        styles: the styles.
        tokens: number of words of each prefix.
        seed: seed of the initial scores.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        encoder: CLIPTextModel,
        wording: Wording,
        styles: Sequence[str],
        tokens: int,
        seed: int,
    ) -> None:
        super().__init__(tokenizer, encoder, wording)
        shape, device = (tokens, len(self.table)), self.table.device
        self.learned = {
            style: (INITIAL_SCALE * torch.randn(shape, generator=generator("prefix", seed, style)))
            .to(device)
            .requires_grad_(True)
            for style in styles
        }
        self._words = [str(text).strip() for text in tokenizer.batch_decode([[id_] for id_ in range(len(self.table))])]
        self._is_barred = torch.tensor(self._barred(), device=device)

    def _barred(self) -> list[bool]:
        """Whether each token is no word that a user can type: a special token, or a part of a longer word."""
        read = self.tokenizer(self._words, add_special_tokens=False, padding=False)["input_ids"]
        special = set(self.tokenizer.all_special_ids)
        return [ids != [token] or token in special for token, ids in enumerate(read)]

    def token_embeddings(self, style: str) -> Tensor:
        """The embeddings of the tokens with the highest scores, with the gradient of the softmax."""
        shares = self._scores(style).softmax(dim=1)
        chosen = torch.nn.functional.one_hot(shares.argmax(dim=1), shares.shape[1]).to(shares.dtype)
        return (chosen + shares - shares.detach()) @ self.table

    def prompt_tokens(self, style: str, object_: str, learned: Sequence[int]) -> list[int]:
        """The prefix and the usual prompt."""
        return [*learned, *self.ids(self.wording.prompt(style, object_))]

    def texts(self) -> dict[str, str]:
        """The prefix of each style as text."""
        return {
            style: " ".join(self._words[token] for token in self._scores(style).argmax(dim=1).tolist())
            for style in self.learned
        }

    def _scores(self, style: str) -> Tensor:
        """The scores of all tokens of the vocabulary, (tokens, vocabulary); -inf for those that are no words."""
        return self.learned[style].masked_fill(self._is_barred, -torch.inf)

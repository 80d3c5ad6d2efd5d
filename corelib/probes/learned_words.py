"""Words with learned embeddings, which take the place of a style's name in prompts (textual inversion).

Source: Gal et al., "An image is worth one word", 2022; applied to unlearned models by Pham et al., "Circumventing
concept erasure methods for text-to-image generative models", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.errors import AssetError, ConfigurationError
from corelib.settings.probes import Start
from corelib.settings.prompts import Wording

PLACE = "\x00"
"""Stands for the learned word in a prompt; no prompt of a user contains it."""


class LearnedWords:
    """A learned word for each style, with as many tokens as the style's name.

    Args:
        tokenizer: the tokenizer of the encoder.
        encoder: the text encoder, without gradients and on its device.
        wording: wording of the prompts.
        styles: the styles.
        start: initial value of the words.

    Attributes:
        vectors: the embeddings of the tokens of each word, (tokens of the name, width), which are to be trained.
    """

    def __init__(
        self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, wording: Wording, styles: Sequence[str], start: Start
    ) -> None:
        self._tokenizer, self._encoder, self._wording = tokenizer, encoder, wording
        self._table: Tensor = encoder.get_input_embeddings().weight  # (vocabulary, width)
        self._table_name = next(name for name, tensor in encoder.named_parameters() if tensor is self._table)
        self.vectors = {style: self._initial(style, start).requires_grad_(True) for style in styles}

    def _initial(self, style: str, start: Start) -> Tensor:
        named = self._table[self._ids(self._wording.words(style))].detach().clone()
        return named if start == "name" else self._table.detach().mean(dim=0).expand_as(named).clone()

    def embed(self, style: str, objects: Sequence[str]) -> Tensor:
        """The last hidden state of the prompts of a style and some objects, (objects, tokens, width).

        Raises `ConfigurationError` if a prompt does not name the style, and `AssetError` if it is too long.
        """
        vectors = self.vectors[style]
        ids = torch.tensor([self._prompt_ids(style, object_, len(vectors)) for object_ in objects])
        weights = {self._table_name: torch.cat([self._table, vectors])}
        hidden: Tensor = functional_call(self._encoder, weights, (ids.to(self._table.device),))[0]
        return hidden

    def _prompt_ids(self, style: str, object_: str, count: int) -> list[int]:
        """The tokens of a prompt; those of the learned word follow the vocabulary."""
        marked = self._wording.model_copy(update={"names": {**self._wording.names, style: PLACE}})
        prompt = marked.prompt(style, object_)
        if PLACE not in prompt:
            raise ConfigurationError(
                f"the prompt {prompt!r} does not name the style {style}, expected one that does: its name is replaced "
                "by a learned word."
            )
        word = range(len(self._table), len(self._table) + count)
        ids = [self._tokenizer.bos_token_id]
        for number, text in enumerate(prompt.split(PLACE)):
            ids += [*(word if number else ()), *self._ids(text)]
        ids.append(self._tokenizer.eos_token_id)
        limit = self._tokenizer.model_max_length
        if len(ids) > limit:
            raise AssetError(f"the prompt {prompt!r} has {len(ids)} tokens, expected at most {limit}; shorten it.")
        return [*ids, *[self._tokenizer.pad_token_id] * (limit - len(ids))]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, padding=False)["input_ids"]
        return ids

"""Cached text embeddings of the prompts on which the noise predictor is conditioned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.errors import ArtefactError, AssetError
from corelib.files.atomic import atomic_write
from corelib.files.json_files import read_json, write_json
from corelib.files.torch_files import read_safetensors
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.data import EmbeddingsStage
from corelib.settings.precision import Precision

EMBEDDINGS, PROMPTS = "embeddings.safetensors", "prompts.json"

BATCH_SIZE = 32


def embed_prompts(settings: EmbeddingsStage, context: StageContext) -> StageResult:
    """Stage: cache the embedding of every prompt, (prompts, tokens, width) in fp32. Raises as `embed_texts` does."""
    base = BaseModel(context.inputs["pipeline"])
    device = Device(Precision(gpu="fp32", cpu="fp32"), context.threads)
    tokenizer, encoder = base.tokenizer(), base.text_encoder().to(device.torch_device)
    embeddings = embed_texts(tokenizer, encoder, settings.prompts, device.torch_device)
    with atomic_write(context.folder / EMBEDDINGS) as temporary:
        save_file({"embeddings": embeddings}, temporary)
    write_json(context.folder / PROMPTS, settings.prompts)
    return StageResult([EMBEDDINGS, PROMPTS], {"prompts": len(settings.prompts), "tokens": embeddings.shape[1]})


def embed_texts(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, prompts: list[str], device: torch.device) -> Tensor:
    """The text encoder's last hidden state for every prompt, (prompts, tokens, width), on the CPU.

    Args:
        tokenizer: the tokenizer of the encoder.
        encoder: the text encoder, in fp32 and on `device`.
        prompts: the prompts, which are embedded in batches of `BATCH_SIZE`.
        device: device on which to compute.

    Raises `AssetError` for the first prompt that is too long, or whose embedding is not finite.
    """
    for fault in prompt_length_faults(tokenizer, prompts):
        raise AssetError(f"{fault}.")
    tokens = tokenizer(prompts, padding="max_length", truncation=False, max_length=tokenizer.model_max_length)
    ids = torch.tensor(tokens["input_ids"])
    with torch.no_grad():
        embeddings = torch.cat([encoder(part.to(device))[0].cpu() for part in ids.split(BATCH_SIZE)])
    if not (is_finite := torch.isfinite(embeddings).flatten(1).all(dim=1)).all():
        first = prompts[int(is_finite.int().argmin())]
        raise AssetError(f"the prompt {first!r} has an embedding that is not finite; check the text encoder.")
    return embeddings.contiguous()


def prompt_length_faults(tokenizer: CLIPTokenizer, prompts: list[str]) -> Iterator[str]:
    """Yield a description of each prompt that has more tokens than the text encoder takes."""
    limit = tokenizer.model_max_length
    tokens = tokenizer(prompts, padding="max_length", truncation=False, max_length=limit)["input_ids"]
    for prompt, row in zip(prompts, tokens, strict=True):
        if len(row) > limit:
            yield f"the prompt {prompt!r} has {len(row)} tokens, expected at most {limit}; shorten it"


class EmbeddingCache:
    """Text embeddings by prompt.

    Args:
        prompts: the prompts.
        embeddings: their embeddings, (prompts, tokens, width).
        source: origin of the embeddings, for messages.

    Raises `ArtefactError` for a prompt that was not embedded.
    """

    def __init__(self, prompts: Sequence[str], embeddings: Tensor, source: str) -> None:
        self._embeddings = embeddings
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._source = source

    @classmethod
    def of_run(cls, manifest: Manifest) -> EmbeddingCache:
        """The embeddings that `embed_prompts` cached. Raises `ArtefactError` if the cache is damaged."""
        path, prompts = manifest.file(EMBEDDINGS), read_json(manifest.file(PROMPTS))
        embeddings = read_safetensors(path, ["embeddings"])["embeddings"]
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ArtefactError(f"{manifest.folder / PROMPTS}: not a list of prompts, expected the prompts of {path}.")
        if embeddings.ndim != 3 or len(embeddings) != len(prompts):
            shape = tuple(embeddings.shape)
            raise ArtefactError(f"{path}: embeddings of shape {shape}, expected ({len(prompts)}, tokens, width).")
        return cls(prompts, embeddings, str(manifest.folder))

    def of(self, prompts: list[str]) -> Tensor:
        """The embeddings of `prompts`, (len(prompts), tokens, width)."""
        if unknown := [prompt for prompt in prompts if prompt not in self._rows]:
            raise ArtefactError(f"{self._source}: it has no embedding of the prompt {unknown[0]!r}.")
        return self._embeddings[torch.tensor([self._rows[prompt] for prompt in prompts])]

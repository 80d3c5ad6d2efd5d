"""CLIP as a classifier of images, from a folder that transformers saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from corelib.errors import AssetError
from corelib.models.judge import Judge
from corelib.models.pipeline_parts import (
    Part,
    build_network,
    check_network,
    load_network,
    load_tokenizer,
    read_configuration,
    rename_clip,
)

IMAGE_PROCESSOR_FILE = "preprocessor_config.json"


def _build(configuration: dict[str, Any]) -> CLIPModel:
    return CLIPModel(CLIPConfig.from_dict(configuration))


CLIP = Part(CLIPModel, "model", _build, rename_clip)


class ZeroShotClassifier(Judge):
    """CLIP as a classifier: the class whose prompt has the embedding closest to the image's (Radford et al. 2021).

    Args:
        folder: a folder that transformers saved: configuration, weights, tokenizer and image processor.
        classes: names of the classes.
        prompts: a prompt for each class.
        device: device of the network, which computes in fp32.

    Raises `AssetError` if the folder does not hold such a model.
    """

    def __init__(self, folder: Path, classes: list[str], prompts: list[str], device: torch.device) -> None:
        self.classes = classes
        self.device = device
        self.model = load_network(CLIP, folder).to(device)
        self.processor = _load_image_processor(folder)
        self.prompt_features = self._embed(prompts, load_tokenizer(folder))

    @torch.no_grad()
    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """Class probabilities, (len(images), classes): the softmax of scaled cosine similarities."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        features = self.model.get_image_features(pixel_values=pixels.to(self.device)).pooler_output
        similarities = _normalise(features) @ self.prompt_features.T
        return (self.model.logit_scale.exp() * similarities).float().softmax(dim=1).cpu()

    @torch.no_grad()
    def _embed(self, prompts: list[str], tokenizer: CLIPTokenizer) -> Tensor:
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        if (length := tokens["input_ids"].shape[1]) > tokenizer.model_max_length:
            raise AssetError(
                f"a prompt of CLIP's classes has {length} tokens, expected at most {tokenizer.model_max_length}; "
                "shorten the prompts in `world.zero_shot`."
            )
        tokens = {name: tensor.to(self.device) for name, tensor in tokens.items()}
        return _normalise(self.model.get_text_features(**tokens).pooler_output)


def check_clip(folder: Path, values: bool) -> None:
    """Raise `AssetError` if a folder does not hold a CLIP model, its tokenizer and its image processor.

    Args:
        folder: the folder.
        values: whether to read all weights and check that they are finite.
    """
    if not folder.is_dir():
        raise AssetError(f"{folder}: a file, expected a folder with CLIP's configuration, weights and tokenizer.")
    check_network(CLIP, folder, values)
    _load_image_processor(folder)
    vocabulary, tokens = build_network(CLIP, folder).config.text_config.vocab_size, len(load_tokenizer(folder))
    if tokens > vocabulary:
        raise AssetError(f"{folder}: its tokenizer has {tokens} tokens, but its text encoder has {vocabulary}.")


def _load_image_processor(folder: Path) -> CLIPImageProcessor:
    others = ("CLIPFeatureExtractor", "CLIPImageProcessorFast", "CLIPProcessor")
    read_configuration(folder / IMAGE_PROCESSOR_FILE, CLIPImageProcessor, others)
    try:
        return CLIPImageProcessor.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # which one is raised depends on the file
        raise AssetError(f"{folder / IMAGE_PROCESSOR_FILE}: not usable ({str(error)[:120]}).") from None


def _normalise(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)

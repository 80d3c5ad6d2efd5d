"""Checks that the weights of pipelines and classifiers fit their networks, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corelib.errors import AssetError, short_message
from corelib.models.config_checks import (
    check_class_order,
    check_merges,
    check_schedule,
    check_settings,
    check_tokenizer_files,
)


def inspect_part(part: str, folder: Path, values: bool) -> None:
    """Raise `AssetError` if a part of a pipeline cannot be loaded, or is of an unsupported kind.

    The weights must fit the network, and the settings must be those of a model that predicts noise from text.
    """
    from corelib.models.pipeline_parts import NETWORKS, build_network, check_network, load_scheduler, load_tokenizer

    if part in NETWORKS:
        check_settings(part, folder / "config.json", build_network(NETWORKS[part], folder))
        check_network(NETWORKS[part], folder, values)
    elif part == "tokenizer":
        check_tokenizer_files(folder)
        check_merges(folder, load_tokenizer(folder))
    elif part == "scheduler":
        check_schedule(folder / "scheduler_config.json", load_scheduler(folder))


def inspect_classifier(path: Path, architecture: str, classes: Sequence[str], values: bool) -> None:
    """Raise `AssetError` if a checkpoint does not hold the weights of a classifier of these classes, in this order."""
    from corelib.files.torch_files import read_plain_weights
    from corelib.models.classifier_checkpoint import check_classifier

    check_classifier(path, architecture, len(classes), values)
    check_class_order(path, read_plain_weights(path, "the classifier's weights", mapped=True), classes)


def inspect_resolution(architecture: str, resolution: int) -> None:
    """Raise `AssetError` if a classifier takes no images of this size, as vision transformers of a fixed size."""
    import torch

    from corelib.models.classifier_checkpoint import build_classifier

    network = build_classifier(architecture, 1).to("meta").eval()  # a device on which nothing is computed
    try:
        with torch.no_grad():
            network(torch.empty(1, 3, resolution, resolution, device="meta"))
    except AssertionError as error:  # by which timm refuses a size
        reason = short_message(error).rstrip(".")
        raise AssetError(
            f"world.assets.classifier_resolution is {resolution}, which {architecture} refuses ({reason}); set it to "
            "the size of the images with which the classifier was trained."
        ) from None


def inspect_shipped(folder: Path, facts: Mapping[str, Any]) -> None:
    """Raise `AssetError` if the models of the shipped world do not fit the networks that its record names."""
    for part in facts.get("parts", {}):
        inspect_part(part, folder / facts["pipeline"] / part, values=True)
    for form in facts.get("classifiers", {}).values():
        inspect_classifier(folder / form["weights"], form["architecture"], form["classes"], values=True)


def trained_resolution(unet: Path, vae: Path) -> int | None:
    """The side of the images in pixels for which a U-Net was trained, by its folder's `sample_size`; None if unknown.

    Args:
        unet: diffusers folder of the U-Net.
        vae: diffusers folder of the autoencoder, by whose factor latents are smaller than images.
    """
    from corelib.models.pipeline_parts import NETWORKS, UNET, build_network

    size = build_network(UNET, unet).config["sample_size"]
    halvings = len(build_network(NETWORKS["vae"], vae).config["block_out_channels"]) - 1
    return size * 2**halvings if isinstance(size, int) else None


def part_mismatches(unet: Path, vae: Path, text_encoder: Path, tokenizer: Path) -> Iterator[str]:
    """Descriptions of sizes in which the parts of a pipeline disagree, although each part is valid on its own."""
    from corelib.models.pipeline_parts import NETWORKS, build_network, load_tokenizer

    try:
        noise = build_network(NETWORKS[unet.name], unet).config
        latents = build_network(NETWORKS["vae"], vae).config
        texts = build_network(NETWORKS["text_encoder"], text_encoder).config
        tokens = load_tokenizer(tokenizer)
    except (AssetError, OSError):
        return  # reported by the check of the part itself
    channels = (noise["in_channels"], noise["out_channels"])
    if channels != (latents["latent_channels"],) * 2:
        yield (
            f"{unet}: it has {channels[0]} input and {channels[1]} output channels, but the latents of {vae} have "
            f"{latents['latent_channels']}, expected equal numbers"
        )
    if noise["cross_attention_dim"] != texts.hidden_size:
        yield (
            f"{unet}: it takes text embeddings of width {noise['cross_attention_dim']}, but those of {text_encoder} "
            f"have width {texts.hidden_size}, expected equal widths"
        )
    if len(tokens) != texts.vocab_size:
        yield (
            f"{tokenizer}: it has {len(tokens)} tokens, but {text_encoder} has {texts.vocab_size}, expected equal "
            "numbers"
        )
    if tokens.model_max_length > texts.max_position_embeddings:
        yield (
            f"{tokenizer}: its prompts have {tokens.model_max_length} tokens, but {text_encoder} takes at most "
            f"{texts.max_position_embeddings}"
        )

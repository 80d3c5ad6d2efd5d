"""Checks of assets that are readable but wrong: files of another model, and settings that are not supported here.

Libraries accept such assets silently. They skip a broken link and read an older file, and they fill in a default for a
missing key. A key that requires other inputs than those supplied changes the numbers, or stops a job midway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError, AssetError
from corelib.files.json_files import read_json
from corelib.files.text import escaped, normalise_name

# Settings of networks


UNSUPPORTED_KEYS: Mapping[str, tuple[str, ...]] = {
    "unet": (
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_class_embeds",
        "time_cond_proj_dim",
    ),
    "vae": ("latents_mean", "latents_std", "shift_factor"),
}
"""Keys of U-Nets with other inputs than noise, timestep and text, and of latents scaled by more than one factor."""


def check_settings(part: str, path: Path | str, network: Any) -> None:
    """Raise `AssetError` if a network is configured for features that Stable Diffusion v1 does not have.

    Args:
        part: name of the network's folder, such as `unet`.
        path: the configuration file, or a name of the configuration.
        network: network built from it.
    """
    for key in UNSUPPORTED_KEYS.get(part.removesuffix("_ema"), ()):
        if (value := network.config.get(key)) is not None:
            raise AssetError(
                f"{path}: `{key}` is {str(value)[:80]}, expected none, as in Stable Diffusion v1; use the weights of "
                "such a model."
            )


# Noise schedules


SCHEDULE_KEYS = ("beta_start", "beta_end", "beta_schedule")


def check_schedule(path: Path, scheduler: Any) -> None:
    """Raise `AssetError` if a noise schedule belongs to a model that does not predict noise, or is incomplete.

    Args:
        path: the configuration file.
        scheduler: scheduler built from it.
    """
    check_noise_schedule(str(path), scheduler, read_json(path))


def check_noise_schedule(source: str, scheduler: Any, content: Mapping[str, Any]) -> None:
    """Raise `AssetError` if a noise schedule belongs to a model that does not predict noise, or is incomplete.

    Args:
        source: name of the configuration, for messages.
        scheduler: scheduler built from it.
        content: the configuration as it was given, without the defaults of the scheduler's class.
    """
    config = scheduler.config
    if (prediction_type := config["prediction_type"]) != "epsilon":
        raise AssetError(
            f"{source}: `prediction_type` is {str(prediction_type)[:80]}, expected epsilon, as in Stable Diffusion v1; "
            "use the weights of such a model."
        )
    if unsupported := [key for key in ("rescale_betas_zero_snr", "thresholding") if config[key]]:
        raise AssetError(f"{source}: `{unsupported[0]}` is true, expected false, as in Stable Diffusion v1.")
    if content.get("trained_betas") is None and (missing := [key for key in SCHEDULE_KEYS if content.get(key) is None]):
        raise AssetError(
            f"{source}: it lacks `{'`, `'.join(missing)}`; add the values with which the model was trained."
        )
    alphas = scheduler.alphas_cumprod
    if not bool(((alphas > 0) & (alphas < 1)).all() and (alphas.diff() < 0).all()):
        raise AssetError(f"{source}: the noise does not increase at every step, expected betas between 0 and 1.")


# Classifiers


CLASS_NAME_KEYS = ("class_to_idx", "classes", "class_names")
"""Keys under which training scripts save the class names: a list in output order, or a mapping to output indices."""


def check_class_order(path: Path, content: Any, classes: Sequence[str]) -> None:
    """Raise `AssetError` if a checkpoint records the same classes in another order.

    Args:
        path: the checkpoint.
        content: its content.
        classes: expected classes, in output order.
    """
    for key in CLASS_NAME_KEYS:
        names = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(names, Mapping) and all(isinstance(index, int) for index in names.values()):
            names = sorted(names, key=names.__getitem__)
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            continue
        recorded, expected = [normalise_name(name) for name in names], [normalise_name(name) for name in classes]
        if recorded != expected and sorted(recorded) == sorted(expected):
            index = next(index for index, name in enumerate(recorded) if name != expected[index])
            raise AssetError(
                f"{path}: in its `{key}` the class of output {index} is {escaped(names[index])}, expected "
                f"{classes[index]}; train the classifier again with its classes sorted by name."
            )


# Tokenizers


def check_merges(folder: Path, tokenizer: Any) -> None:
    """Raise `AssetError` if the files in a folder belong to different tokenizers, or if merges are missing.

    A word whose merge is missing is split into letters, which changes the meaning of the prompt.

    Args:
        folder: folder of the tokenizer.
        tokenizer: tokenizer loaded from this folder.
    """
    added = set(tokenizer.added_tokens_encoder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = {word: number for word, number in model["vocab"].items() if word not in added}
    merged = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]}
    composite = [word for word in words if len(word.removesuffix(model["end_of_word_suffix"] or "")) > 1]
    if unmerged := [word for word in composite if word not in merged]:
        raise AssetError(
            f"{folder}: {len(unmerged)} words of its vocabulary, such as {escaped(unmerged[0])}, have no merge, "
            "expected the complete merges.txt of the same tokenizer; fetch its files again."
        )
    path = folder / "vocab.json"
    if path.exists() and {w: number for w, number in _read_vocabulary(path).items() if w not in added} != words:
        raise AssetError(
            f"{path}: its words differ from those of tokenizer.json beside it, expected files of one tokenizer; fetch "
            "both again."
        )


def check_tokenizer_files(folder: Path) -> None:
    """Raise `AssetError` if a file with a tokenizer's vocabulary or merges is missing."""
    if (folder / "tokenizer.json").exists():
        return
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).exists():
            raise AssetError(
                f"{folder / name}: the file is missing, expected one as CLIP's tokenizer has; fetch it again."
            )


def _read_vocabulary(path: Path) -> dict[str, Any]:
    try:
        vocabulary = read_json(path)
    except ArtefactError:
        vocabulary = None
    if not isinstance(vocabulary, dict):
        raise AssetError(f"{path}: not readable as a JSON object, expected the vocabulary of a tokenizer.")
    return vocabulary

"""What is wrong with assets that can be read: files in the place of others, and settings that nothing here follows.

Libraries take all of this in silence: a link that leads nowhere is passed over for an older file, a key that is missing
has a default, and a key that asks for more than it gets changes numbers, or ends a job in its middle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError, AssetError
from corelib.files.json_files import read_json
from corelib.files.printable import escaped

# Settings of networks


NOT_GIVEN: Mapping[str, tuple[str, ...]] = {
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
"""Keys by which a U-Net needs more than noise, time and text, or latents are scaled by more than one factor."""


def check_settings(part: str, path: Path, network: Any) -> None:
    """Raise `AssetError` if a network is configured for more than what it is given here.

    Args:
        part: the folder's name, such as `unet`.
        path: of the configuration.
        network: made from it.
    """
    for key in NOT_GIVEN.get(part.removesuffix("_ema"), ()):
        if (value := network.config.get(key)) is not None:
            raise AssetError(
                f"{path}: `{key}` is {str(value)[:80]}, expected none, as in Stable Diffusion v1; these weights are of "
                "another model."
            )


# Noise schedules


SCHEDULE = ("beta_start", "beta_end", "beta_schedule")


def check_schedule(path: Path, scheduler: Any) -> None:
    """Raise `AssetError` if a noise schedule is of a model that predicts something else, or is not said as a whole.

    Args:
        path: of the configuration.
        scheduler: made from it.
    """
    config, content = scheduler.config, read_json(path)
    if (predicted := config["prediction_type"]) != "epsilon":
        raise AssetError(
            f"{path}: `prediction_type` is {str(predicted)[:80]}, expected epsilon, as in Stable Diffusion v1; these "
            "weights are of another model."
        )
    if switched := [key for key in ("rescale_betas_zero_snr", "thresholding") if config[key]]:
        raise AssetError(f"{path}: `{switched[0]}` is true, expected false, as in Stable Diffusion v1.")
    if content.get("trained_betas") is None and (lacking := [key for key in SCHEDULE if content.get(key) is None]):
        raise AssetError(
            f"{path}: it lacks `{'`, `'.join(lacking)}`, expected the noise schedule with which the model was trained."
        )
    kept = scheduler.alphas_cumprod
    if not bool(((kept > 0) & (kept < 1)).all() and (kept.diff() < 0).all()):
        raise AssetError(f"{path}: its noise does not grow from step to step, expected betas between 0 and 1.")


TRAINED_WITH = "alphas_cumprod"
"""The tensor of a CompVis checkpoint by which it says its noise schedule."""

OF_VELOCITY = ("v_pred", "ztsnr")
"""Empty tensors by which a checkpoint says that its model predicts velocity, or has no signal at the last step."""


def check_schedule_of_checkpoint(path: Path, weights: Mapping[str, Any], folder: Path, scheduler: Any) -> None:
    """Raise `AssetError` if a CompVis checkpoint was trained with another noise schedule than the one that is used.

    Args:
        path: of the checkpoint.
        weights: its tensors.
        folder: of the noise schedule.
        scheduler: made from there.
    """
    if marks := [name for name in OF_VELOCITY if name in weights]:
        raise AssetError(
            f"{path}: it has a tensor `{marks[0]}`, by which it says that its model does not predict noise, expected "
            "none, as in Stable Diffusion v1."
        )
    own, used = weights.get(TRAINED_WITH), scheduler.alphas_cumprod
    if own is not None and not (own.shape == used.shape and own.float().allclose(used, rtol=1e-3, atol=1e-5)):
        raise AssetError(f"{path}: its noise schedule `{TRAINED_WITH}` is not that of {folder}, expected the same.")


# Classifiers


CLASSES = ("class_to_idx", "classes", "class_names")
"""Under which names training scripts save those of the classes, in the order of the outputs or with their places."""


def check_classes(path: Path, content: Any, classes: Sequence[str]) -> None:
    """Raise `AssetError` if a checkpoint has the classes in another order than they are taken in.

    Args:
        path: of the checkpoint.
        content: what is in it.
        classes: as they are taken, in the order of the outputs.
    """
    for key in CLASSES:
        own = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(own, Mapping) and all(isinstance(place, int) for place in own.values()):
            own = sorted(own, key=own.__getitem__)
        if not isinstance(own, list | tuple) or not all(isinstance(name, str) for name in own):
            continue
        found, expected = [plain(name) for name in own], [plain(name) for name in classes]
        if found != expected and sorted(found) == sorted(expected):
            place = next(place for place, name in enumerate(found) if name != expected[place])
            raise AssetError(
                f"{path}: by its `{key}` the output {place} is {escaped(own[place])}, expected {classes[place]}; train "
                "it again with the classes in the order of their names."
            )


def plain(name: str) -> str:
    """A name in lower case, with blanks for underscores."""
    return re.sub(r"[\s_]+", " ", name).strip().lower()


# Tokenizers


def check_words(folder: Path, tokenizer: Any) -> None:
    """Raise `AssetError` if the files of a tokenizer are not of one tokenizer, or lack merges.

    A word whose merge is missing falls apart into letters, and its prompt means something else.

    Args:
        folder: of the tokenizer.
        tokenizer: as it was loaded from there.
    """
    added = set(tokenizer.added_tokens_encoder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = {word: number for word, number in model["vocab"].items() if word not in added}
    merged = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]}
    lone = [word for word in words if len(word.removesuffix(model["end_of_word_suffix"] or "")) > 1]
    if unmerged := [word for word in lone if word not in merged]:
        raise AssetError(
            f"{folder}: its merges make none of {len(unmerged)} words of its vocabulary, such as "
            f"{escaped(unmerged[0])}, expected the whole merges.txt of the same tokenizer; fetch its files again."
        )
    path = folder / "vocab.json"
    if path.exists() and {word: number for word, number in _words(path).items() if word not in added} != words:
        raise AssetError(
            f"{path}: its words are not those of tokenizer.json beside it, expected files of one tokenizer; fetch them "
            "again."
        )


def check_vocabulary(folder: Path) -> None:
    """Raise `AssetError` if a file of a tokenizer's words is missing."""
    if (folder / "tokenizer.json").exists():
        return
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).exists():
            raise AssetError(f"{folder / name}: the file is missing, expected it as CLIP's tokenizer has it.")


def _words(path: Path) -> dict[str, Any]:
    try:
        own = read_json(path)
    except ArtefactError:
        own = None
    if not isinstance(own, dict):
        raise AssetError(f"{path}: not readable as a JSON object, expected the words of a tokenizer.")
    return own

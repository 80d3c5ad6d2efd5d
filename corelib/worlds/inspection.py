"""Whether files of weights are those of the networks that they are for, seen before anything is computed with them.

`make assets` and `preflight` ask, and the jobs that take assets or the shipped world into use. Names, shapes and types
are read from the files, and values only if that is asked for. Every loader asks the same again of what it loads, so
this module decides no number and is part of no digest. It imports torch, diffusers and timm when it needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corelib.errors import AssetError
from corelib.settings.unlearn_canvas import AdoptionStage
from corelib.worlds.oddities import (
    check_classes,
    check_files,
    check_schedule,
    check_schedule_of_checkpoint,
    check_settings,
    check_vocabulary,
    check_words,
    said,
)

CLASSIFIERS = {"style_classifier": "style", "object_classifier": "object"}
PIPELINE = "pipeline/"


@dataclass(frozen=True)
class Inspection:
    """A look at the assets of a study, as far as they are there.

    Attributes:
        settings: which assets, and the form of each classifier.
        paths: where each lies, by its name in the lock: `pipeline/unet`, `style_classifier` and so on.
        values: whether to read all values and see that they are finite.
        compvis_weights: which weights of a CompVis file the study uses; None where that is not known.
        is_locked: whether the files are as they were locked, so that a TorchScript file may be loaded.
    """

    settings: AdoptionStage
    paths: Mapping[str, Path]
    values: bool
    compvis_weights: Literal["raw", "ema"] | None = None
    is_locked: bool = False

    def fault(self, name: str) -> str | None:
        """What is wrong with one of the assets, in words without a final period."""
        path = self.paths[name]
        try:
            check_files(path)
            self._inspect(name, path)
        except AssetError as error:
            return str(error).removesuffix(".")
        except OSError as error:
            return unreadable(error, path)
        return None

    def faults_of_pipeline(self) -> Iterator[str]:
        """In what the parts of the pipeline do not go together, in words; each of them is right in itself."""
        parts = (self.settings.unet, "vae", "text_encoder", "tokenizer")
        places = [self.paths.get(f"{PIPELINE}{part}") for part in parts]
        if all(place is not None and place.exists() for place in places):
            yield from _faults_between(*(place for place in places if place is not None))

    def _inspect(self, name: str, path: Path) -> None:
        if name.startswith(PIPELINE):
            inspect_part(name.removeprefix(PIPELINE), path, self.values)
        elif name in CLASSIFIERS:
            form = self.settings.classifiers[CLASSIFIERS[name]]
            inspect_classifier(path, form.architecture, form.classes, self.values)
        elif name == "compvis":
            from corelib.worlds.compvis import check_compvis

            unet = self.paths.get(f"{PIPELINE}{self.settings.unet}")
            check_compvis(path, None if unet is None else unet.parent, self.compvis_weights, self.values)
            self._compare_schedules(path)
        elif name == "inception_torchvision":
            from corelib.features import check_torchvision_inception

            check_torchvision_inception(path, self.values)
        elif name == "inception":
            self._inspect_program(path)

    def _compare_schedules(self, checkpoint: Path) -> None:
        from corelib.pipeline_parts import load_scheduler
        from corelib.worlds.compvis import read_checkpoint

        folder = self.paths.get(f"{PIPELINE}scheduler")
        if folder is not None and folder.exists():
            weights = read_checkpoint(checkpoint)
            check_schedule_of_checkpoint(checkpoint, weights, folder, load_scheduler(folder))

    def _inspect_program(self, path: Path) -> None:
        if self.is_locked and self.values:
            from corelib.features import clean_inception

            clean_inception(path, resize_inside=False)
            return
        from corelib.state_dicts import UnfitWeights, check_finite
        from corelib.weights import UnsafeWeights, torchscript_values

        try:
            values = torchscript_values(path)
            if self.values and values is not None:
                check_finite(values)
        except (UnfitWeights, UnsafeWeights) as error:
            raise AssetError(f"{path}: not usable as TorchScript ({error}), expected clean-fid's Inception.") from None


def unreadable(error: OSError, path: Path) -> str:
    """What keeps an asset from being read, in words without a final period."""
    place = said(str(error.filename or path))
    if isinstance(error, IsADirectoryError):
        return f"{place}: a folder, expected a file"
    return f"{place}: not readable ({error.strerror or error}), expected the right to read it"


def inspect_part(part: str, folder: Path, values: bool) -> None:
    """Raise `AssetError` if a part of a pipeline cannot be loaded, or is not of the kind that is used here.

    Its weights have to be those of its network, and its settings those of a model that predicts noise from text.
    """
    from corelib.pipeline_parts import NETWORKS, build_network, check_network, load_scheduler, load_tokenizer

    if part in NETWORKS:
        check_settings(part, folder / "config.json", build_network(NETWORKS[part], folder))
        check_network(NETWORKS[part], folder, values)
    elif part == "tokenizer":
        check_vocabulary(folder)
        check_words(folder, load_tokenizer(folder))
    elif part == "scheduler":
        check_schedule(folder / "scheduler_config.json", load_scheduler(folder))


def inspect_classifier(path: Path, architecture: str, classes: Sequence[str], values: bool) -> None:
    """Raise `AssetError` if a checkpoint does not hold the weights of a classifier of these classes, in this order."""
    from corelib.classifier_weights import check_classifier
    from corelib.weights import read_plain_weights

    check_classifier(path, architecture, len(classes), values)
    check_classes(path, read_plain_weights(path, "the classifier's weights", mapped=True), classes)


def inspect_shipped(folder: Path, facts: Mapping[str, Any]) -> None:
    """Raise `AssetError` if the models of the shipped world are not those of the networks that its record names."""
    for part in facts.get("parts", {}):
        inspect_part(part, folder / facts["pipeline"] / part, values=True)
    for form in facts.get("classifiers", {}).values():
        inspect_classifier(folder / form["weights"], form["architecture"], form["classes"], values=True)


def _faults_between(unet: Path, vae: Path, text_encoder: Path, tokenizer: Path) -> Iterator[str]:
    from corelib.pipeline_parts import NETWORKS, build_network, load_tokenizer

    try:
        noise = build_network(NETWORKS[unet.name], unet).config
        latents = build_network(NETWORKS["vae"], vae).config
        texts = build_network(NETWORKS["text_encoder"], text_encoder).config
        tokens = load_tokenizer(tokenizer)
    except (AssetError, OSError):
        return  # said of the part itself
    channels = (noise["in_channels"], noise["out_channels"])
    if channels != (latents["latent_channels"],) * 2:
        yield f"{unet}: it takes {channels[0]} channels and gives {channels[1]}, but {vae} has latents of " + (
            f"{latents['latent_channels']}, expected as many"
        )
    if noise["cross_attention_dim"] != texts.hidden_size:
        yield f"{unet}: it takes texts of {noise['cross_attention_dim']} numbers a token, but {text_encoder} gives " + (
            f"{texts.hidden_size}, expected as many"
        )
    if len(tokens) != texts.vocab_size:
        yield f"{tokenizer}: it has {len(tokens)} tokens, but {text_encoder} knows {texts.vocab_size}, expected as many"
    if tokens.model_max_length > texts.max_position_embeddings:
        yield f"{tokenizer}: its prompts have {tokens.model_max_length} tokens, but {text_encoder} takes " + (
            f"{texts.max_position_embeddings}, expected no more"
        )

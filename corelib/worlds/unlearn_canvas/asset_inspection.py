"""Whether files of weights are those of the networks that they are for, seen before anything is computed with them.

`make assets` and `preflight` ask, and the jobs that take assets or the shipped world into use. Names, shapes and types
are read from the files, and values only if that is asked for. Every loader asks the same again of what it loads, so
this module decides no number and is part of no digest. It imports torch, diffusers and timm when it needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corelib.errors import AssetError
from corelib.files.placeholders import check_files
from corelib.files.printable import escaped
from corelib.models.compatibility import (
    check_schedule_of_checkpoint,
)
from corelib.models.inspection import faults_between, inspect_classifier, inspect_part
from corelib.settings.unlearn_canvas import AdoptionStage

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
            yield from faults_between(*(place for place in places if place is not None))

    def _inspect(self, name: str, path: Path) -> None:
        if name.startswith(PIPELINE):
            inspect_part(name.removeprefix(PIPELINE), path, self.values)
        elif name in CLASSIFIERS:
            form = self.settings.classifiers[CLASSIFIERS[name]]
            inspect_classifier(path, form.architecture, form.classes, self.values)
        elif name == "compvis":
            from corelib.worlds.unlearn_canvas.compvis import check_compvis

            unet = self.paths.get(f"{PIPELINE}{self.settings.unet}")
            check_compvis(path, None if unet is None else unet.parent, self.compvis_weights, self.values)
            self._compare_schedules(path)
        elif name == "inception_torchvision":
            from corelib.models.inception import check_torchvision_inception

            check_torchvision_inception(path, self.values)
        elif name == "inception":
            self._inspect_program(path)

    def _compare_schedules(self, checkpoint: Path) -> None:
        from corelib.models.pipeline_parts import load_scheduler
        from corelib.worlds.unlearn_canvas.compvis import read_checkpoint

        folder = self.paths.get(f"{PIPELINE}scheduler")
        if folder is not None and folder.exists():
            weights = read_checkpoint(checkpoint)
            check_schedule_of_checkpoint(checkpoint, weights, folder, load_scheduler(folder))

    def _inspect_program(self, path: Path) -> None:
        if self.is_locked and self.values:
            from corelib.models.inception import clean_inception

            clean_inception(path, resize_inside=False)
            return
        from corelib.files.pickle_inspection import UnsafeWeights
        from corelib.files.torch_files import torchscript_values
        from corelib.models.state_dicts import UnfitWeights, check_finite

        try:
            values = torchscript_values(path)
            if self.values and values is not None:
                check_finite(values)
        except (UnfitWeights, UnsafeWeights) as error:
            raise AssetError(f"{path}: not usable as TorchScript ({error}), expected clean-fid's Inception.") from None


def unreadable(error: OSError, path: Path) -> str:
    """What keeps an asset from being read, in words without a final period."""
    place = escaped(str(error.filename or path))
    if isinstance(error, IsADirectoryError):
        return f"{place}: a folder, expected a file"
    return f"{place}: not readable ({error.strerror or error}), expected the right to read it"

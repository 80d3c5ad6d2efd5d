"""Checks that weight files fit their networks, before anything is computed with them.

`make assets`, `preflight` and the jobs that adopt assets or the shipped world use these checks. They read names, shapes
and types from the files, and values only on request. Every loader repeats the checks on the weights that it loads, so
this module affects no number and is part of no digest. torch, diffusers and timm are imported only when needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corelib.errors import AssetError
from corelib.files.placeholders import check_no_placeholders
from corelib.files.text import escaped
from corelib.models.model_inspection import inspect_classifier, inspect_part, inspect_resolution, part_mismatches
from corelib.settings.assets import AdoptionStage, ClassifierSpec
from corelib.worlds.assets.compvis import check_checkpoint_schedule

CLASSIFIERS = {"style_classifier": "style", "object_classifier": "object"}

PIPELINE_PREFIX = "pipeline/"


@dataclass(frozen=True)
class AssetInspection:
    """Inspection of the assets of a study; some of them may be missing.

    Attributes:
        settings: the assets, and the form of each classifier.
        paths: path of each asset, by its name in the lock file: `pipeline/unet`, `style_classifier` and so on.
        values: whether to read all values and check that they are finite.
        compvis_weights: the weights of a CompVis file that the study uses; None if unknown.
        is_locked: whether the files match the lock file, so that a TorchScript file may be loaded.
    """

    settings: AdoptionStage
    paths: Mapping[str, Path]
    values: bool
    compvis_weights: Literal["raw", "ema"] | None = None
    is_locked: bool = False

    def fault(self, name: str) -> str | None:
        """Description of the fault of an asset, without final period; None if it has no fault."""
        path = self.paths[name]
        try:
            check_no_placeholders(path)
            self._inspect(name, path)
        except AssetError as error:
            return f"{str(error).removesuffix('.')}{self._advice_on_classes(name, str(error))}"
        except OSError as error:
            return read_error_message(error, path)
        return None

    def _advice_on_classes(self, name: str, error: str) -> str:
        """The key that lists the classes of a classifier of the user's own, if it has another number of classes."""
        found = re.search(r"the classifier has (\d+) classes, expected", error)
        if found is None or name not in CLASSIFIERS:
            return ""
        key = f"world.classes.{'concept' if CLASSIFIERS[name] == 'style' else 'object'}"
        return f"; in a study of your own images, list all {found[1]} of them, in their order, under `{key}`"

    def pipeline_faults(self) -> Iterator[str]:
        """Descriptions of mismatches between the parts of the pipeline, although each part is valid on its own."""
        parts = (self.settings.unet, "vae", "text_encoder", "tokenizer")
        paths = [self.paths.get(f"{PIPELINE_PREFIX}{part}") for part in parts]
        if all(path is not None and path.exists() for path in paths):
            yield from part_mismatches(*(path for path in paths if path is not None))

    def _inspect(self, name: str, path: Path) -> None:
        if name.startswith(PIPELINE_PREFIX):
            inspect_part(name.removeprefix(PIPELINE_PREFIX), path, self.values)
        elif name in CLASSIFIERS:
            form = self.settings.classifiers[CLASSIFIERS[name]]
            assert isinstance(form, ClassifierSpec), "a classifier's file has the form of one"
            inspect_classifier(path, form.architecture, form.classes, self.values)
            inspect_resolution(form.architecture, form.resolution)
        elif name == "clip":
            from corelib.models.zero_shot import check_clip

            check_clip(path, self.values)
        elif name == "compvis":
            from corelib.worlds.assets.compvis import check_compvis

            unet = self.paths.get(f"{PIPELINE_PREFIX}{self.settings.unet}")
            check_compvis(path, None if unet is None else unet.parent, self.compvis_weights, self.values)
            self._compare_schedules(path)
        elif name == "inception_torchvision":
            from corelib.models.inception import check_torchvision_inception

            check_torchvision_inception(path, self.values)
        elif name == "inception":
            self._inspect_torchscript(path)

    def _compare_schedules(self, checkpoint: Path) -> None:
        from corelib.models.pipeline_parts import load_scheduler
        from corelib.worlds.assets.compvis import read_checkpoint

        folder = self.paths.get(f"{PIPELINE_PREFIX}scheduler")
        if folder is not None and folder.exists():
            weights = read_checkpoint(checkpoint)
            check_checkpoint_schedule(checkpoint, weights, folder, load_scheduler(folder))

    def _inspect_torchscript(self, path: Path) -> None:
        if self.is_locked and self.values:
            from corelib.models.inception import load_clean_fid_inception

            load_clean_fid_inception(path, resize_inside=False)
            return
        from corelib.files.pickle_inspection import UnsafeWeights
        from corelib.files.torch_files import torchscript_values
        from corelib.models.weight_checks import WeightsMismatch, check_finite

        try:
            values = torchscript_values(path)
            if self.values and values is not None:
                check_finite(values)
        except (WeightsMismatch, UnsafeWeights) as error:
            raise AssetError(f"{path}: not usable as TorchScript ({error}), expected clean-fid's Inception.") from None


def read_error_message(error: OSError, path: Path) -> str:
    """Description of the error that prevents reading an asset, without final period."""
    name = escaped(str(error.filename or path))
    if isinstance(error, IsADirectoryError):
        return f"{name}: a folder, expected a file"
    return f"{name}: not readable ({error.strerror or error}); check its permissions"

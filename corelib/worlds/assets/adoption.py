"""Adopts the user's own files through links, without modifying them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from corelib.errors import AssetError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import resolve_links
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.assets import AdoptionStage
from corelib.worlds.assets.asset_inspection import AssetInspection
from corelib.worlds.assets.image_index import read_index
from corelib.worlds.assets.presence import MAKE_ASSETS_ADVICE, missing_assets

INDEX_FILE = "images.parquet"
"""The run's own copy of the image index: sha256 of each image, and its location when it was adopted."""

IMAGES, USER_INDEX = "images", "image_index"

CLASSIFIER_ASSETS = {"style": "style_classifier", "object": "object_classifier"}

CLIP = "clip"
"""The asset that recognises styles and objects without training on them."""

NETWORKS = ("compvis", "inception", "inception_torchvision")


def adopt_assets(settings: AdoptionStage, context: StageContext) -> StageResult:
    """Stage: check that every asset exists and matches the lock file, and record its location.

    The run's folder has a link to each asset, under the asset's name. Raises `AssetError` with one sentence that lists
    all faults.
    """
    if faults := list(asset_faults(settings, context.folder, values=True)):
        raise AssetError(f"assets of the study: {'; '.join(faults)} (see `world.assets` of the study).")
    sha256 = settings.sha256
    facts: dict[str, Any] = {name: {"weights": name, "sha256": sha256[name]} for name in NETWORKS if name in sha256}
    if settings.unet is not None:
        parts = {Path(name).name: sha for name, sha in sha256.items() if name.startswith("pipeline/")}
        facts |= {"pipeline": "pipeline", "unet": settings.unet, "parts": parts}
    if settings.classifiers:
        facts["classifiers"] = {
            label: {
                "weights": (asset := CLIP if CLIP in sha256 else CLASSIFIER_ASSETS[label]),
                "sha256": sha256[asset],
                **form.model_dump(),
            }
            for label, form in settings.classifiers.items()
        }
    if IMAGES not in sha256:
        return StageResult([], facts)
    with atomic_write(context.folder / INDEX_FILE) as temporary:
        shutil.copyfile(context.folder / USER_INDEX, temporary)
    return StageResult([INDEX_FILE], {**facts, "images": IMAGES, "image_index": INDEX_FILE, "places": USER_INDEX})


def asset_faults(
    settings: AdoptionStage, folder: Path, values: bool, compvis_weights: Literal["raw", "ema"] | None = None
) -> Iterator[str]:
    """Yield a description of each asset that is missing, differs from the lock file, or does not fit its network.

    Args:
        settings: the assets that are needed.
        folder: folder with links to them.
        values: whether to read all weights and check that they are finite; `make assets` does so before it locks them.
        compvis_weights: the weights of a CompVis file that are used, if known.
    """
    paths = {name: resolve_links(folder / name) for name in settings.sha256}
    yield from missing_assets(settings, paths)
    inspection = AssetInspection(settings, paths, values, compvis_weights, is_locked=True)
    for name, locked in settings.sha256.items():
        if locked is None or not paths[name].exists():
            continue
        if name == IMAGES:
            yield from _image_faults(folder, locked)
        elif (actual := sha256_of_path(paths[name])) != locked:
            yield f"{paths[name]} has the sha256 {actual[:12]}, expected {locked[:12]} as locked"
        elif (fault := inspection.fault(name)) is not None:
            yield fault
    yield from inspection.pipeline_faults()


def _image_faults(folder: Path, locked: str) -> Iterator[str]:
    index = folder / USER_INDEX
    if not index.exists():
        yield f"{resolve_links(index)}, the index of the images, is missing{MAKE_ASSETS_ADVICE}"
        return
    digest = read_index(index).digest
    if digest != locked:
        yield f"{resolve_links(index)} is the index of other images ({digest[:12]}), expected {locked[:12]} as locked"

"""The paper's world: taking the user's own files into use, by reference and without touching them."""

from __future__ import annotations

import os
from pathlib import Path

from corelib.artefacts import sha256_of
from corelib.errors import AssetError
from corelib.settings.unlearn_canvas import AdoptionStage, Assets
from corelib.work import Outcome, Work

PIPELINE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
"""What is needed of a diffusers pipeline beside its U-Net."""


def adopt_assets(settings: AdoptionStage, work: Work) -> Outcome:
    """Stage: check that every asset is there, and record where it lies and its sha256.

    Raises `AssetError` with one sentence that names everything that is missing and where it is expected.
    """
    assets = settings.assets
    if missing := missing_assets(settings):
        raise AssetError(
            f"assets of the paper's world are missing: {'; '.join(missing)} "
            "(paths as in `world.assets` of the study, relative to the working directory)."
        )
    files = {
        "style_classifier": assets.style_classifier,
        "object_classifier": assets.object_classifier,
        "inception": assets.inception,
    }
    hashes = {name: sha256_of(Path(path)) for name, path in files.items()}
    parts = {part: sha256_of(Path(assets.pipeline) / part) for part in (assets.unet, *PIPELINE_PARTS)}
    relative = {name: _from(work.folder, path) for name, path in {**files, "images": assets.images}.items()}
    return Outcome(
        [],
        {
            "images": relative["images"],
            "pipeline": _from(work.folder, assets.pipeline),
            "unet": assets.unet,
            "parts": parts,
            "classifiers": {
                label: {
                    "weights": relative[f"{label}_classifier"],
                    "sha256": hashes[f"{label}_classifier"],
                    "architecture": assets.classifier_architecture,
                    "options": {},
                    "classes": classes,
                    "resolution": assets.classifier_resolution,
                }
                for label, classes in (("style", settings.styles), ("object", settings.objects))
            },
            "inception": {"weights": relative["inception"], "sha256": hashes["inception"]},
        },
    )


def missing_assets(settings: AdoptionStage) -> list[str]:
    """What is not where the study says, in words."""
    assets = settings.assets
    missing = []
    images = Path(assets.images)
    if not images.is_dir():
        missing.append(f"{images}/ (folder with STYLE/OBJECT/INDEX.jpg)")
    else:
        cells = [images / style / object_ for style in settings.styles for object_ in settings.objects]
        if absent := [cell for cell in cells if not cell.is_dir()]:
            missing.append(f"{absent[0]}/ and {len(absent) - 1} more of the {len(cells)} folders STYLE/OBJECT")
    pipeline, parts = Path(assets.pipeline), (assets.unet, *PIPELINE_PARTS)
    if not pipeline.is_dir():
        missing.append(f"{pipeline}/ (the fine-tuned diffusers pipeline: {', '.join(parts)})")
    else:
        missing += [f"{pipeline / part}/ (part of the pipeline)" for part in parts if not (pipeline / part).is_dir()]
    for path, what in _single_files(assets):
        if not Path(path).is_file():
            missing.append(f"{path} ({what})")
    return missing


def _single_files(assets: Assets) -> list[tuple[str, str]]:
    return [
        (assets.style_classifier, "ViT-L style classifier"),
        (assets.object_classifier, "ViT-L object classifier"),
        (assets.inception, "Inception network for FID"),
    ]


def _from(folder: Path, path: str) -> str:
    """A path as seen from a folder, unless it is absolute."""
    return path if os.path.isabs(path) else os.path.relpath(path, folder)

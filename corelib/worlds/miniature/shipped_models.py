"""Stage that adopts the miniature's models shipped with the repository, so that a first table takes minutes."""

from __future__ import annotations

import shutil

from corelib.errors import AssetError
from corelib.files.atomic import atomic_folder, atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import path_inside
from corelib.models.model_inspection import inspect_shipped
from corelib.runs.layout import REPOSITORY
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.pretrained import PretrainedStage

SHIPPED_FOLDER = REPOSITORY / "config/pretrained"


def adopt_pretrained(settings: PretrainedStage, context: StageContext) -> StageResult:
    """Stage: copy the shipped models into the run's folder and check each against its sha256.

    Raises `AssetError` if a model is missing, differs from the shipped one, or does not hold the weights of its
    network.
    """
    for name, sha256 in settings.files.items():
        source, target = path_inside(SHIPPED_FOLDER, name), path_inside(context.folder, name)
        if not source.exists():
            raise AssetError(f"{source}: the file is missing; restore it from the repository.")
        if (actual := sha256_of_path(source)) != sha256:
            raise AssetError(
                f"{source}: its sha256 is {actual[:12]}, expected {sha256[:12]}; restore it from the repository."
            )
        if source.is_dir():
            with atomic_folder(target) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            with atomic_write(target) as temporary:
                shutil.copyfile(source, temporary)
    inspect_shipped(context.folder, settings.facts)
    return StageResult(sorted(settings.files), settings.facts)

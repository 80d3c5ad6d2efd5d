"""Stage that adopts the miniature's models shipped with the repository, so that a first table takes minutes."""

from __future__ import annotations

import shutil

from corelib.errors import AssetError
from corelib.files.atomic import folder_written_whole, written_whole
from corelib.files.hashing import sha256_of
from corelib.files.paths import below
from corelib.models.inspection import inspect_shipped
from corelib.runs.layout import REPOSITORY
from corelib.runs.stage import Outcome, Work
from corelib.settings.pretrained import PretrainedStage

SHIPPED = REPOSITORY / "config/pretrained"


def adopt_pretrained(settings: PretrainedStage, work: Work) -> Outcome:
    """Stage: copy the shipped models into the run's folder and check each against its sha256.

    Raises `AssetError` if a model is missing, differs from the shipped one, or does not hold the weights of its
    network.
    """
    for name, sha256 in settings.files.items():
        source, target = below(SHIPPED, name), below(work.folder, name)
        if not source.exists():
            raise AssetError(f"{source}: the file is missing; restore it from the repository.")
        if (actual := sha256_of(source)) != sha256:
            raise AssetError(
                f"{source}: its sha256 is {actual[:12]}, expected {sha256[:12]}; restore it from the repository."
            )
        if source.is_dir():
            with folder_written_whole(target) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            with written_whole(target) as temporary:
                shutil.copyfile(source, temporary)
    inspect_shipped(work.folder, settings.facts)
    return Outcome(sorted(settings.files), settings.facts)

"""What lies in the folder of a run: which files belong to the run, and which runs it was made of."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from corelib.errors import ArtefactError
from corelib.files.hashing import files_below
from corelib.files.json_files import read_json
from corelib.runs.layout import MANIFEST, RECORD, RUN, RUNS, SHARDS, SPECIFICATION
from corelib.runs.provenance import ATTEMPTS
from corelib.runs.stages import JOBS
from corelib.sampling.grid import BATCHES

NO_RESULT = ("checkpoint.pt", ".lease", ATTEMPTS)
"""Endings of files that are unfinished state: nobody takes them for results."""

UNREADABLE = (ArtefactError, OSError, KeyError, TypeError, AttributeError, ValueError)
"""Errors that reading a damaged file of a run may raise."""


def is_run_folder(path: Path) -> bool:
    """Whether a path below `runs/` is a folder with the name of a run of a stage that there is."""
    is_name = RUN.fullmatch(path.relative_to(RUNS).as_posix()) is not None
    return is_name and path.parent.name in JOBS and path.is_dir()


def unvouched(folder: Path, vouched: Collection[str]) -> list[Path]:
    """The files in a complete run's folder that are neither vouched for nor unfinished state.

    Args:
        folder: of the run.
        vouched: the names of the files and folders that its manifest vouches for.

    Files with a leading dot are what a killed job has left half written. Links at the top of the folder lead to the
    user's own files.
    """
    own = {SPECIFICATION, MANIFEST, RECORD}
    found = []
    for path in files_below(folder):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        is_vouched = any(above.as_posix() in vouched for above in (name, *name.parents))
        is_place = path.is_symlink() and path.parent == folder
        is_share = folder.parent.name == "samples" and name.parts[0] in (BATCHES, SHARDS)
        if not (is_hidden or is_vouched or is_place or is_share or str(name) in own or path.name.endswith(NO_RESULT)):
            found.append(path)
    return found


def runs_behind(names: Collection[str]) -> set[str]:
    """The runs of these names and all that they are built on or waited for, as far as their specifications say so.

    The digests of what a run builds on decide, since they are content: a name that does not have the digest counts, and
    so does every run here that has it.
    """
    found: set[str] = set()
    queue = list(names)
    here: dict[str, list[str]] = {}
    for path in RUNS.glob("*/*"):
        here.setdefault(path.name.rpartition("-")[2], []).append(path.relative_to(RUNS).as_posix())
    while queue:
        name = queue.pop()
        if name in found or not RUN.fullmatch(name):
            continue
        found.add(name)
        try:
            specification = read_json(RUNS / name / SPECIFICATION)
            queue += [str(below_) for below_ in specification["builds_on"].values()]
            queue += [str(below_) for below_ in specification.get("after", {}).values()]
            for digest in specification["inputs"].values():
                queue += here.get(str(digest)[:12], [])
        except UNREADABLE:
            continue
    return found

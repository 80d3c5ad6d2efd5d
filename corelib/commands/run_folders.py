"""What lies in the folder of a run: which files belong to the run, and which runs it was made of."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from corelib.files.hashing import files_below
from corelib.files.sealed_json import if_readable
from corelib.runs.job_provenance import ATTEMPTS
from corelib.runs.layout import MANIFEST, RECORD, RUN, RUNS, SHARDS, SPECIFICATION
from corelib.runs.provenance import read_provenance
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stages import STAGES
from corelib.sampling.grid import BATCHES

NO_RESULT = ("checkpoint.pt", ".lease", ATTEMPTS)
"""Endings of files that are unfinished state: nobody takes them for results."""


def is_run_folder(path: Path) -> bool:
    """Whether a path below `runs/` is a folder with the name of a run of a stage that there is."""
    is_name = RUN.fullmatch(path.relative_to(RUNS).as_posix()) is not None
    return is_name and path.parent.name in STAGES and path.is_dir()


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
    so does every run here that has it. Where a specification is damaged, the copy in the provenance record is read.
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
        if (specification := _specification_or_its_copy(RUNS / name)) is not None:
            queue += [*specification.builds_on.values(), *specification.after.values()]
            queue += [run for digest in specification.inputs.values() for run in here.get(digest[:12], [])]
    return found


def _specification_or_its_copy(folder: Path) -> Specification | None:
    """The specification of a run, from its own file or from the provenance record; None if both are damaged."""
    if (specification := if_readable(read_specification, folder / SPECIFICATION)) is not None:
        return specification
    record = if_readable(read_provenance, folder / RECORD)
    return record.specification if record is not None else None

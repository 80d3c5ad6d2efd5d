"""Folders of runs: the files that belong to a run, and the runs from which it was made."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from corelib.files.hashing import files_below
from corelib.files.sealed_json import read_or_none
from corelib.runs.job_provenance import ATTEMPTS_SUFFIX
from corelib.runs.layout import MANIFEST, RECORD, RUN, RUNS, SHARDS, SPECIFICATION
from corelib.runs.provenance_record import read_provenance
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_registry import STAGES
from corelib.sampling.grid import BATCHES

UNFINISHED_SUFFIXES = ("checkpoint.pt", ".lease", ATTEMPTS_SUFFIX)
"""Suffixes of files with unfinished state, which are not results."""


def is_run_folder(path: Path) -> bool:
    """Whether a path below `runs/` is a folder with the name of a run of an existing stage."""
    is_name = RUN.fullmatch(path.relative_to(RUNS).as_posix()) is not None
    return is_name and path.parent.name in STAGES and path.is_dir()


def matches_run(name: str, text: str) -> bool:
    """Whether a text names a run `STAGE/SLUG-DIGEST`, with or without its stage.

    The text is the whole name or its beginning up to a hyphen. If it extends into the digest, it may end anywhere.
    """
    if not text.rpartition("/")[2]:
        return False
    name = name if "/" in text else name.partition("/")[2]
    slug = name.rpartition("-")[0]
    return name.startswith(text) and (len(text) > len(slug) + 1 or name.startswith(f"{text}-"))


def unlisted_files(folder: Path, listed: Collection[str]) -> list[Path]:
    """The files in a complete run's folder that its manifest does not list and that are not unfinished state.

    Files with a leading dot are partial files of a killed job. Links at the top of the folder lead to the user's own
    files. Neither are returned.

    Args:
        folder: folder of the run.
        listed: names of the files and folders that its manifest lists.
    """
    records = {SPECIFICATION, MANIFEST, RECORD}
    unlisted = []
    for path in files_below(folder):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        is_listed = any(parent.as_posix() in listed for parent in (name, *name.parents))
        is_link = path.is_symlink() and path.parent == folder
        is_share = folder.parent.name == "samples" and name.parts[0] in (BATCHES, SHARDS)
        is_record = str(name) in records
        if not (is_hidden or is_listed or is_link or is_share or is_record or path.name.endswith(UNFINISHED_SUFFIXES)):
            unlisted.append(path)
    return unlisted


def with_dependencies(names: Collection[str]) -> set[str]:
    """These runs and all runs that they build on or wait for, as far as their specifications are readable.

    The digests of inputs are content, their names are not. The result therefore includes every present run with the
    digest of an input, as well as the run that is named, whatever its digest. If a specification is damaged, its copy
    in the provenance record is read.
    """
    behind: set[str] = set()
    queue = list(names)
    names_by_digest: dict[str, list[str]] = {}
    for path in RUNS.glob("*/*"):
        names_by_digest.setdefault(path.name.rpartition("-")[2], []).append(path.relative_to(RUNS).as_posix())
    while queue:
        name = queue.pop()
        if name in behind or not RUN.fullmatch(name):
            continue
        behind.add(name)
        if (specification := _specification_or_its_copy(RUNS / name)) is not None:
            queue += [*specification.builds_on.values(), *specification.after.values()]
            queue += [run for digest in specification.inputs.values() for run in names_by_digest.get(digest[:12], [])]
    return behind


def _specification_or_its_copy(folder: Path) -> Specification | None:
    """The specification of a run, from its own file or from the provenance record; None if both are damaged."""
    if (specification := read_or_none(read_specification, folder / SPECIFICATION)) is not None:
        return specification
    record = read_or_none(read_provenance, folder / RECORD)
    return record.specification if record is not None else None

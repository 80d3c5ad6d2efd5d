"""The content of `runs/`: runs by their specifications, and other files and folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from corelib.errors import ArtefactError
from corelib.maintenance.run_files import is_run_folder, unlisted_files
from corelib.runs.active_jobs import find_active_jobs
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.manifest import read_manifest
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_registry import STAGES


@dataclass(frozen=True)
class RunsHere:
    """The content of `runs/`.

    Attributes:
        specifications: specification of each run, by name.
        leftovers: names of run folders that contain no complete file.
        others: all other files and folders, each with a sentence that gives the reason.
    """

    specifications: dict[str, Specification] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)


def scan_runs() -> RunsHere:
    """Read the content of `runs/` in the working directory."""
    here = RunsHere()
    for path in sorted(RUNS.glob("*")):
        if path.name not in STAGES or path.is_symlink() or not path.is_dir():
            here.others[path] = f"{path}: {'a link' if path.is_symlink() else 'no stage has this name'}."
            continue
        for folder in sorted(path.glob("*")):
            if folder.is_symlink() or not is_run_folder(folder):
                reason = "a link" if folder.is_symlink() else "not the name of a run's folder, SLUG-DIGEST"
                here.others[folder] = f"{folder}: {reason}."
            elif _is_left_over(folder):
                here.leftovers.append(name_of(folder))
            else:
                try:
                    here.specifications[name_of(folder)] = specification_of(folder)
                except ArtefactError as error:
                    here.others[folder] = str(error)
    return here


def name_of(folder: Path) -> str:
    """The name of the run in a folder, `STAGE/SLUG-DIGEST`."""
    return folder.relative_to(RUNS).as_posix()


def has_run_files(folder: Path) -> bool:
    """Whether a folder has the name of a run, and a manifest or a specification, valid or not."""
    has_files = any((folder / name).exists() for name in (SPECIFICATION, MANIFEST))
    return has_files and not folder.is_symlink() and is_run_folder(folder)


def _is_left_over(folder: Path) -> bool:
    """Whether a run's folder is empty except for partial specifications of killed processes.

    A specification is the first file that is written into a run's folder.
    """
    return all(path.name.startswith(f".{SPECIFICATION}.") and path.is_file() for path in folder.iterdir())


def specification_of(folder: Path) -> Specification:
    """The specification in a run's folder. Raises `ArtefactError` if it does not match the name of the folder."""
    specification = read_specification(folder / SPECIFICATION)
    if RUNS / specification.name != folder:
        raise ArtefactError(f"{folder / SPECIFICATION}: its run does not have the name of the folder.")
    return specification


def first_foreign_file(name: str) -> Path | None:
    """The first file in a complete run's folder that is not part of the run.

    None if there is none, or if the run is not complete: its files are then unknown.
    """
    try:
        foreign = unlisted_files(RUNS / name, read_manifest(RUNS / name / MANIFEST).files)
    except (ArtefactError, OSError):
        return None
    return next(iter(foreign), None)


def active_runs() -> set[str]:
    """The names of the runs that a job may be computing."""
    return {"/".join(job.run.split("/")[:2]) for job in find_active_jobs() if not job.owner.is_gone()}

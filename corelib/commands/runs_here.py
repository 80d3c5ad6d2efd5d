"""What lies in `runs/` and `results/`: the runs by their specifications, and what is no run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from corelib.commands.run_folders import is_run_folder, unvouched
from corelib.errors import ArtefactError
from corelib.files.sealed_json import if_readable
from corelib.runs.active_jobs import running_jobs
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.provenance import provenance_path, read_provenance
from corelib.runs.run import slugged
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stages import PRODUCTS, STAGES
from corelib.study.targets import product_files


@dataclass(frozen=True)
class RunsHere:
    """What lies in `runs/`.

    Attributes:
        specifications: of the runs, by name.
        leftovers: the names of folders in which nothing was begun.
        others: what is neither, and why not, in one sentence each.
    """

    specifications: dict[str, Specification] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)


def runs_here() -> RunsHere:
    """Look through `runs/` of the working directory."""
    there = RunsHere()
    for path in sorted(RUNS.glob("*")):
        if path.name not in STAGES or path.is_symlink() or not path.is_dir():
            there.others[path] = f"{path}: {'a link' if path.is_symlink() else 'no stage is called so'}."
            continue
        for folder in sorted(path.glob("*")):
            if folder.is_symlink() or not is_run_folder(folder):
                said = "a link" if folder.is_symlink() else "not the name of a run's folder, SLUG-DIGEST"
                there.others[folder] = f"{folder}: {said}."
            elif _is_left_over(folder):
                there.leftovers.append(name_of(folder))
            else:
                try:
                    there.specifications[name_of(folder)] = _specification_of(folder)
                except ArtefactError as error:
                    there.others[folder] = str(error)
    return there


def name_of(folder: Path) -> str:
    """The name of a run, `STAGE/SLUG-DIGEST`, by its folder."""
    return folder.relative_to(RUNS).as_posix()


def was_a_run(folder: Path) -> bool:
    """Whether a folder has the name of a run, and a manifest or a specification, sound or not."""
    has_files = any((folder / name).exists() for name in (SPECIFICATION, MANIFEST))
    return has_files and not folder.is_symlink() and is_run_folder(folder)


def _is_left_over(folder: Path) -> bool:
    """Whether a run's folder is empty but for specifications that were being written when their process was killed.

    A specification is the first file that is written into a run's folder.
    """
    return all(path.name.startswith(f".{SPECIFICATION}.") and path.is_file() for path in folder.iterdir())


def _specification_of(folder: Path) -> Specification:
    """The specification in a run's folder. Raises `ArtefactError` if it does not belong to the folder's name."""
    specification = read_specification(folder / SPECIFICATION)
    if RUNS / _run_name(specification) != folder:
        raise ArtefactError(f"{folder / SPECIFICATION}: not the specification of a run of the name of its folder.")
    return specification


def _run_name(specification: Specification) -> str:
    return f"{specification.stage}/{slugged(specification.slug)}-{specification.digest[:12]}"


def foreign_file(name: str) -> Path | None:
    """A file in a complete run's folder that is no part of it. Of a run that is not complete nobody can say."""
    try:
        foreign = unvouched(RUNS / name, read_manifest(RUNS / name / MANIFEST).files)
    except (ArtefactError, OSError):
        return None
    return next(iter(foreign), None)


def active_runs() -> set[str]:
    """The names of the runs that a job may compute now."""
    return {"/".join(job.run.split("/")[:2]) for job in running_jobs() if not job.owner.is_gone()}


def runs_of_products() -> dict[Path, set[str]]:
    """The manifests of the products that lie in `results/`, and the names of the runs of which each was made.

    Where a manifest is missing, the record may still be there. Files with neither are no product's. Raises
    `ArtefactError` if neither the provenance record, nor the manifest with the specification in `runs/`, says what a
    product was made of.
    """
    found = {}
    for path in product_files()[0]:
        if not (path.exists() or provenance_path(path).exists()):
            continue
        record, manifest = if_readable(read_provenance, provenance_path(path)), if_readable(read_manifest, path)
        if record is not None and (manifest is None or manifest.seal == record.manifest.seal):
            found[path] = _names_in(record.manifest, record.specification)
        elif manifest is not None and (specification := _specification_of_product(manifest)) is not None:
            found[path] = _names_in(manifest, specification)
        else:
            raise ArtefactError(
                f"{path}: neither it nor its provenance record says which runs {path.stem} was made of, so these would "
                f"count as unnamed; ask for the target again, or move {path.with_suffix('')}.* elsewhere."
            )
    return found


def _specification_of_product(manifest: ManifestRecord) -> Specification | None:
    """The specification of a product in `runs/`; None if it is missing or damaged, or if there are several."""
    if manifest.stage not in PRODUCTS or not manifest.digest.isalnum():
        return None
    folders = list((RUNS / manifest.stage).glob(f"*-{manifest.digest[:12]}"))
    return if_readable(_specification_of, folders[0]) if len(folders) == 1 else None


def _names_in(manifest: ManifestRecord, specification: Specification) -> set[str]:
    """The run of a product, those that it builds on, and the trained models behind these."""
    return {_run_name(specification), *specification.builds_on.values(), *manifest.trained}

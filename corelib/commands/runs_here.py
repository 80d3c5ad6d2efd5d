"""What lies in `runs/` and `results/`: the runs by their specifications, and what is no run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corelib.commands.run_folders import UNREADABLE, is_run_folder, unvouched
from corelib.errors import ArtefactError
from corelib.files.json_files import read_json
from corelib.files.sealed_json import read_sealed
from corelib.runs.active_jobs import running_jobs
from corelib.runs.layout import MANIFEST, RUNS, SPECIFICATION
from corelib.runs.run import slugged
from corelib.runs.specification import digest_of
from corelib.runs.stages import JOBS, PRODUCTS
from corelib.study.targets import product_files

Specification = Mapping[str, Any]


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
        if path.name not in JOBS or path.is_symlink() or not path.is_dir():
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
    content = read_json(folder / SPECIFICATION)
    try:
        digest = digest_of(content)
        name = f"{content['stage']}/{slugged(content['slug'])}-{digest[:12]}"
        belongs = content["digest"] == digest and RUNS / name == folder and isinstance(content["settings"], dict)
        builds_on(content)
    except UNREADABLE:
        belongs = False
    if not belongs:
        raise ArtefactError(f"{folder / SPECIFICATION}: not the specification of a run of the name of its folder.")
    return dict(content)


def builds_on(specification: Specification) -> set[str]:
    """The names of the runs that a run builds on."""
    return {str(name) for name in specification["builds_on"].values()}


def foreign_file(name: str) -> Path | None:
    """A file in a complete run's folder that is no part of it. Of a run that is not complete nobody can say."""
    try:
        foreign = unvouched(RUNS / name, read_json(RUNS / name / MANIFEST)["files"])
    except UNREADABLE:
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
        if not (path.exists() or path.with_suffix(".provenance.json").exists()):
            continue
        record, manifest = _sealed_or_none(path.with_suffix(".provenance.json")), _sealed_or_none(path)
        try:
            if record is not None and manifest in (None, record["manifest"]):
                found[path] = _names_in(record["manifest"], record["specification"])
            elif manifest is not None and manifest["stage"] in PRODUCTS and manifest["digest"].isalnum():
                (folder,) = (RUNS / manifest["stage"]).glob(f"*-{manifest['digest'][:12]}")
                found[path] = _names_in(manifest, _specification_of(folder))
        except UNREADABLE:
            pass
        if path not in found:
            raise ArtefactError(
                f"{path}: neither it nor its provenance record says which runs {path.stem} was made of, so these would "
                f"count as unnamed; ask for the target again, or move {path.with_suffix('')}.* elsewhere."
            )
    return found


def _sealed_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return read_sealed(path)
    except ArtefactError:
        return None


def _names_in(manifest: Mapping[str, Any], specification: Specification) -> set[str]:
    """The run of a product, those that it builds on, and the trained models behind these."""
    own = f"{manifest['stage']}/{slugged(specification['slug'])}-{manifest['digest'][:12]}"
    return {own, *builds_on(specification), *manifest["trained"]}

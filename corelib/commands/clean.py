"""Cleaning: removing the runs that nothing here needs any more, or some runs with all that was made of them.

Only a run is ever removed: a folder with a run's name, and in it the specification that belongs to that name.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from corelib.commands.verify import is_run_folder, runs_behind, unvouched
from corelib.costs.forecast import in_bytes
from corelib.errors import ArtefactError, ConfigurationError
from corelib.files.sealed_json import if_readable
from corelib.runs.active_jobs import LOGS, running_jobs
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SHARDS, SPECIFICATION
from corelib.runs.lease import Lease, Taken
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.owner import read_owner
from corelib.runs.pins import differing_versions
from corelib.runs.provenance import provenance_path, read_provenance
from corelib.runs.requests import CONTROLLER
from corelib.runs.run import slugged
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stages import PRODUCTS, STAGES
from corelib.study.overlays import study_names
from corelib.study.plan import Plan
from corelib.study.targets import below_here, plan_of, product_files

Specifications = Mapping[str, Specification]
"""Of the runs that lie here, by their names."""


@dataclass(frozen=True)
class Removable:
    """A run's folder that may go, and what removing it frees; or the manifest of a table or figure.

    Attributes:
        path: of the folder or file.
        bytes: that removing it frees.
        made: when it was made, in words.
        reason: why it counts as unused, in words.
    """

    path: Path
    bytes: int
    made: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Unnamed:
    """What lies in `runs/` that no study names.

    Attributes:
        runs: those that may go, in the order of their reasons.
        kept: what no study names but is kept, each reason in one sentence.
        left_alone: what is no run, each in one sentence.
    """

    runs: list[Removable]
    kept: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)


def unnamed_runs(configuration: Path) -> Unnamed:
    """Look through `runs/` for what no product needs: neither those of any study, nor those that lie in `results/`.

    Kept is also what a job may compute now, with all that it builds on. Of a job on another machine only its silence is
    known, and clocks differ: as long as its lease lies there, it may.

    Raises `ConfigurationError` if a study can't be planned, since its runs would count as unnamed, and `ArtefactError`
    if a product in `results/` does not say what it was made of.
    """
    studies = study_names(configuration)
    plans = [plan_of(study, configuration) for study in studies]
    named = {name for plan in plans for product in plan.products().values() for name in product.with_all_inputs()}
    there = _looked_through()
    shown = {path: runs_behind(names) for path, names in _products().items()}
    computing = runs_behind(_computing())
    made_for = _made_for(there.specifications)
    found: list[Removable] = []
    kept: dict[str, list[str]] = {}
    left_alone = [sentence for path, sentence in there.others.items() if _name(path) not in named]
    for name in sorted({*there.specifications, *there.leftovers} - named):
        if showing := [str(path.with_suffix("")) for path, behind in shown.items() if name in behind]:
            shows = "shows" if len(showing) == 1 else "show"
            reason = f"no study that is here names them, but {_listed(showing)} {shows} them"
            kept.setdefault(reason, []).append(name)
        elif name in computing:
            kept.setdefault("a job that may be alive computes them or reads them", []).append(name)
        elif name in there.leftovers:
            found.append(_removable(name, "Empty, or with nothing but what a killed job has left half written"))
        elif strange := _strange(name):
            left_alone.append(
                f"{strange}: no part of the run in whose folder it lies; move it elsewhere to let the run go."
            )
        else:
            found.append(_removable(name, _why(made_for.get(name, []), there.specifications, studies)))
    sizes = {reason: in_bytes(sum(_size(RUNS / name) for name in names)) or "0 B" for reason, names in kept.items()}
    sentences = [f"{len(names)} runs, {sizes[reason]}: {reason}." for reason, names in kept.items()]
    return Unnamed(sorted(found, key=lambda run: (run.reason, run.path)), sentences, left_alone)


def runs_made_of(asked: Sequence[str]) -> list[Removable]:
    """Some runs, every run here that was made of them, and the manifests of tables and figures that show those.

    Without its manifest a table is made again when it is asked for, and with it what is missing behind it.

    Args:
        asked: `STAGE/RUN`, or a run's name in any stage: the whole name, its beginning up to a hyphen, or any beginning
            that reaches into the digest; also of a run that is gone, if there is something that was made of it. A run
            whose specification is damaged has to be called by its whole name.

    Raises `ConfigurationError` if no run is called so, or one that would go may be computed now, or has a file in its
    folder that is no part of it.
    """
    there = _looked_through()
    specifications = there.specifications
    below = {name: set(specification.builds_on.values()) for name, specification in specifications.items()}
    known = specifications.keys() | {name for names in below.values() for name in names}
    found: set[str] = set()
    for said in asked:
        wanted = (below_here(said) if "/" in said else said).removeprefix(f"{RUNS}/").rstrip("/")
        called = {name for name in known if _is_called(name, wanted)}
        if wanted in there.leftovers or (RUNS / wanted in there.others and _was_a_run(RUNS / wanted)):
            called |= {wanted}
        if not called:
            raise ConfigurationError(
                f"{said}: no run in {RUNS} is called so, expected STAGE/RUN, or its beginning up to a hyphen."
            )
        found |= called
    while more := {name for name in below.keys() - found if below[name] & found}:
        found |= more
    if computing := sorted(found & _computing()):
        raise ConfigurationError(f"{RUNS / computing[0]}: it may be computed now, expected a run that is at rest.")
    here = [name for name in sorted(found) if (RUNS / name).is_dir() and not (RUNS / name).is_symlink()]
    if strange := next((file for name in here if (file := _strange(name))), None):
        raise ConfigurationError(
            f"{strange}: no part of the run in whose folder it lies, expected none; move it elsewhere."
        )
    products = [path for path, names in _products().items() if names & found and path.exists()]
    return [*(Removable(path, path.stat().st_size) for path in products), *(_removable(name) for name in here)]


def _is_called(name: str, wanted: str) -> bool:
    """Whether a run is called so: by its name, with or without the stage, or its beginning up to a hyphen.

    Within the digest, any beginning counts.
    """
    if not wanted.rpartition("/")[2]:
        return False
    called = name if "/" in wanted else name.partition("/")[2]
    slug = called.rpartition("-")[0]
    return called.startswith(wanted) and (len(wanted) > len(slug) + 1 or called.startswith(f"{wanted}-"))


@contextmanager
def nothing_is_built_here() -> Iterator[None]:
    """Keep Snakemake from starting in this folder while the block runs.

    Raises `ConfigurationError` if it works here already: perhaps by a study that has been edited since.
    """
    owner, lease = read_owner(CONTROLLER), Lease(Path.cwd() / CONTROLLER)
    try:
        if owner is not None and not owner.is_gone():
            raise Taken(owner)
        lease.take(patience=0)
    except Taken as other:
        raise ConfigurationError(
            f"{Path.cwd()}: Snakemake works here, {other}, expected none; wait for it (if it is none any more, delete "
            f"{CONTROLLER})."
        ) from None
    try:
        yield
    finally:
        lease.give_back()


def check_that_names_are_certain(configuration: Path) -> None:
    """Raise `ConfigurationError` where runs in use may count as unnamed.

    Other packages, or a lock of assets that is not here, give all runs other addresses.
    """
    if said := differing_versions(configuration.parent):
        raise ConfigurationError(
            f"{said[0]}, and those of the pinned one would count as unnamed; expected it as pinned."
        )
    if not any(RUNS.glob(f"assets/*/{MANIFEST}")):
        return
    for study in study_names(configuration):
        if missing := _unlocked(plan_of(study, configuration)):
            raise ConfigurationError(
                f"study {study}: {missing} is not locked here, so the runs made of it would count as unnamed; expected "
                "the lock with which they were made (`make assets`)."
            )


def _unlocked(plan: Plan) -> str | None:
    """The first asset that a study needs and that is not locked."""
    if plan.study.world.kind != "unlearn_canvas":
        return None
    settings, _ = plan.papers_world.assets()
    return next((name for name, sha256 in settings.sha256.items() if sha256 is None), None)


# What lies there


@dataclass(frozen=True)
class _There:
    """What lies in `runs/`.

    Attributes:
        specifications: of the runs, by name.
        leftovers: the names of folders in which nothing was begun.
        others: what is neither, and why not, in one sentence each.
    """

    specifications: dict[str, Specification] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)


def _looked_through() -> _There:
    there = _There()
    for path in sorted(RUNS.glob("*")):
        if path.name not in STAGES or path.is_symlink() or not path.is_dir():
            there.others[path] = f"{path}: {'a link' if path.is_symlink() else 'no stage is called so'}."
            continue
        for folder in sorted(path.glob("*")):
            if folder.is_symlink() or not is_run_folder(folder):
                said = "a link" if folder.is_symlink() else "not the name of a run's folder, SLUG-DIGEST"
                there.others[folder] = f"{folder}: {said}."
            elif _is_left_over(folder):
                there.leftovers.append(_name(folder))
            else:
                try:
                    there.specifications[_name(folder)] = _specification_of(folder)
                except ArtefactError as error:
                    there.others[folder] = str(error)
    return there


def _name(folder: Path) -> str:
    return folder.relative_to(RUNS).as_posix()


def _was_a_run(folder: Path) -> bool:
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
    if RUNS / _name_of(specification) != folder:
        raise ArtefactError(f"{folder / SPECIFICATION}: not the specification of a run of the name of its folder.")
    return specification


def _name_of(specification: Specification) -> str:
    return f"{specification.stage}/{slugged(specification.slug)}-{specification.digest[:12]}"


def _strange(name: str) -> Path | None:
    """A file in a complete run's folder that is no part of it. Of a run that is not complete nobody can say."""
    try:
        strange = unvouched(RUNS / name, read_manifest(RUNS / name / MANIFEST).files)
    except (ArtefactError, OSError):
        return None
    return next(iter(strange), None)


def _computing() -> set[str]:
    return {"/".join(job.run.split("/")[:2]) for job in running_jobs() if not job.owner.is_gone()}


def _products() -> dict[Path, set[str]]:
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
    return {_name_of(specification), *specification.builds_on.values(), *manifest.trained}


# In words


def _made_for(specifications: Specifications) -> dict[str, list[str]]:
    """The products whose specifications lie here, by the names of the runs behind each."""
    found: dict[str, list[str]] = {}
    for product in specifications:
        if product.partition("/")[0] in PRODUCTS:
            for name in runs_behind([product]):
                found.setdefault(name, []).append(product)
    return found


def _why(products: Collection[str], specifications: Specifications, studies: Collection[str]) -> str:
    """Why a run counts as unused: what it was made for, and why nothing that is here names it."""
    if not products:
        return "Made for a table or figure whose specification is not here any more; no study that is here names them"
    made: dict[str, list[str]] = {}
    for name in products:
        called = str(specifications[name].settings.get("name", "gate"))
        made.setdefault(specifications[name].slug.removesuffix(f"-{slugged(called)}"), []).append(called)
    known = {slugged(study): study for study in studies}
    parts = []
    for study, names in sorted(made.items()):
        what = f"{_listed(sorted(set(names)))} of the study {known.get(study, study)}"
        if study in known:
            parts.append(f"{what} as it was before the study, the code or the packages were changed")
        else:
            parts.append(f"{what}, which is not here")
    return f"Made for {'; and for '.join(parts)}; no study that is here names them"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _when(folder: Path) -> str:
    """When a run was completed, or else planned."""
    if (record := if_readable(read_provenance, folder / RECORD)) is not None:
        return f"finished {datetime.fromisoformat(record.finished):%Y-%m-%d %H:%M}"
    written = (folder / SPECIFICATION) if (folder / SPECIFICATION).exists() else folder
    word = "planned" if folder.parent.name in PRODUCTS else "not finished, planned"
    return f"{word} {datetime.fromtimestamp(written.stat().st_mtime):%Y-%m-%d %H:%M}"


def _removable(name: str, reason: str = "") -> Removable:
    return Removable(RUNS / name, _size(RUNS / name), _when(RUNS / name), reason)


# Removing


def remove(removable: Removable) -> None:
    """Remove a run's folder and its log; what its links lead to stays. Of a table or figure, its manifest.

    The manifest goes first and the specification last: should this be interrupted, what is left is an unfinished run.
    Raises `ConfigurationError` if a job has begun to work at the run meanwhile.
    """
    path = removable.path
    if path.is_file():
        path.unlink()
        return
    leases = [path / "manifest.lease", *path.glob(f"{SHARDS}/*.lease")]
    if any((owner := read_owner(lease)) is not None and not owner.is_gone() for lease in leases):
        raise ConfigurationError(f"{path}: it may be computed now, expected a run that is at rest.")
    (path / MANIFEST).unlink(missing_ok=True)
    (path / RECORD).unlink(missing_ok=True)
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name == SPECIFICATION, entry.name)):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    path.rmdir()
    stage, name = path.relative_to(RUNS).parts
    (LOGS / stage / f"{name}.log").unlink(missing_ok=True)
    shutil.rmtree(LOGS / stage / name, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())

"""The runs that nothing here needs any more, or some runs with all that was made of them, and why.

Only a run counts: a folder with a run's name, and in it the specification that belongs to that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from corelib.commands.run_folders import runs_behind
from corelib.commands.runs_here import (
    active_runs,
    foreign_file,
    name_of,
    runs_here,
    runs_of_products,
    was_a_run,
)
from corelib.costs.forecast import in_bytes
from corelib.errors import ConfigurationError
from corelib.files.sealed_json import if_readable
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SPECIFICATION
from corelib.runs.pins import differing_versions
from corelib.runs.provenance import read_provenance
from corelib.runs.run import slugged
from corelib.runs.specification import Specification
from corelib.runs.stages import PRODUCTS
from corelib.study.overlays import study_names
from corelib.study.plan import Plan
from corelib.study.targets import below_here, plan_of

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
    there = runs_here()
    shown = {path: runs_behind(names) for path, names in runs_of_products().items()}
    computing = runs_behind(active_runs())
    made_for = _made_for(there.specifications)
    found: list[Removable] = []
    kept: dict[str, list[str]] = {}
    left_alone = [sentence for path, sentence in there.others.items() if name_of(path) not in named]
    for name in sorted({*there.specifications, *there.leftovers} - named):
        if showing := [str(path.with_suffix("")) for path, behind in shown.items() if name in behind]:
            shows = "shows" if len(showing) == 1 else "show"
            reason = f"no study that is here names them, but {_in_words(showing)} {shows} them"
            kept.setdefault(reason, []).append(name)
        elif name in computing:
            kept.setdefault("a job that may be alive computes them or reads them", []).append(name)
        elif name in there.leftovers:
            found.append(_removable(name, "Empty, or with nothing but what a killed job has left half written"))
        elif foreign := foreign_file(name):
            left_alone.append(
                f"{foreign}: no part of the run in whose folder it lies; move it elsewhere to let the run go."
            )
        else:
            found.append(_removable(name, _why(made_for.get(name, []), there.specifications, studies)))
    sizes = {reason: in_bytes(sum(_size(RUNS / name) for name in names)) for reason, names in kept.items()}
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
    there = runs_here()
    specifications = there.specifications
    below = {name: set(specification.builds_on.values()) for name, specification in specifications.items()}
    known = specifications.keys() | {name for names in below.values() for name in names}
    found: set[str] = set()
    for said in asked:
        wanted = (below_here(said) if "/" in said else said).removeprefix(f"{RUNS}/").rstrip("/")
        called = {name for name in known if _is_called(name, wanted)}
        if wanted in there.leftovers or (RUNS / wanted in there.others and was_a_run(RUNS / wanted)):
            called |= {wanted}
        if not called:
            raise ConfigurationError(
                f"{said}: no run in {RUNS} is called so, expected STAGE/RUN, or its beginning up to a hyphen."
            )
        found |= called
    while more := {name for name in below.keys() - found if below[name] & found}:
        found |= more
    if computing := sorted(found & active_runs()):
        raise ConfigurationError(f"{RUNS / computing[0]}: it may be computed now, expected a run that is at rest.")
    here = [name for name in sorted(found) if (RUNS / name).is_dir() and not (RUNS / name).is_symlink()]
    if foreign := next((file for name in here if (file := foreign_file(name))), None):
        raise ConfigurationError(
            f"{foreign}: no part of the run in whose folder it lies, expected none; move it elsewhere."
        )
    products = [path for path, names in runs_of_products().items() if names & found and path.exists()]
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
        what = f"{_in_words(sorted(set(names)))} of the study {known.get(study, study)}"
        if study in known:
            parts.append(f"{what} as it was before the study, the code or the packages were changed")
        else:
            parts.append(f"{what}, which is not here")
    return f"Made for {'; and for '.join(parts)}; no study that is here names them"


def _in_words(names: Sequence[str]) -> str:
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


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())

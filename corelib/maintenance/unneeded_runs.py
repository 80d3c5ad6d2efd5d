"""Unused runs with the reasons, or some runs with everything that was made of them.

A folder is a run only if it has the name of a run and contains the specification of that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from corelib.errors import ConfigurationError, UserError
from corelib.files.sealed_json import read_or_none
from corelib.files.text import counted, format_bytes
from corelib.maintenance.products_on_disk import runs_of_products
from corelib.maintenance.run_files import matches_run, with_dependencies
from corelib.maintenance.runs_on_disk import (
    active_runs,
    first_foreign_file,
    has_run_files,
    name_of,
    scan_runs,
)
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SPECIFICATION, slugify
from corelib.runs.pins import differing_versions
from corelib.runs.provenance_record import read_provenance
from corelib.runs.specification import Specification
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.row_names import ROW_FORM
from corelib.study.study_files import study_file, study_names, workflow_folder
from corelib.study.targets import relative_target

Specifications = Mapping[str, Specification]
"""The specifications of the present runs, by name."""


@dataclass(frozen=True)
class Removable:
    """A run's folder, or the manifest of a table or figure, that may be removed.

    Attributes:
        path: path of the folder or file.
        bytes: disk space that its removal frees, in bytes.
        made: time at which it was made, in words.
        reason: reason why it counts as unused, in words.
    """

    path: Path
    bytes: int
    made: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CleanPlan:
    """The content of `runs/` that no study names.

    Attributes:
        runs: the removable runs, sorted by reason.
        kept: for each reason to keep runs that no study names, one sentence.
        left_alone: for each file or folder that is not a run, one sentence.
    """

    runs: list[Removable]
    kept: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)


def unnamed_runs(configuration: Path) -> CleanPlan:
    """Find the runs in `runs/` that no product needs, neither a product of any study nor one in `results/`.

    Runs that a job may be computing are kept, with all runs that they build on. A job on another machine counts as
    alive while its lease exists: all that is known of it is the time of its last renewal, and clocks differ.

    Raises `ConfigurationError` if a study cannot be planned, since its runs would count as unused, and `ArtefactError`
    if the runs behind a product in `results/` are unknown.
    """
    studies = study_names(configuration)
    plans = [_plan(study, configuration) for study in studies]
    named = {name for plan in plans for product in plan.products().values() for name in product.with_all_inputs()}
    here = scan_runs()
    shown = {path: with_dependencies(names) for path, names in runs_of_products().items()}
    in_progress = with_dependencies(active_runs())
    made_for = _made_for(here.specifications)
    removable: list[Removable] = []
    kept: dict[str, list[str]] = {}
    left_alone = [sentence for path, sentence in here.others.items() if name_of(path) not in named]
    for name in sorted({*here.specifications, *here.leftovers} - named):
        if showing := [str(path.with_suffix("")) for path, behind in shown.items() if name in behind]:
            verb = "shows" if len(showing) == 1 else "show"
            reason = f"no study here names them, but {_in_words(showing)} {verb} them"
            kept.setdefault(reason, []).append(name)
        elif name in in_progress:
            kept.setdefault("a job that may be alive computes or reads them", []).append(name)
        elif name in here.leftovers:
            removable.append(_removable(name, "Empty, or only partial files of a killed job"))
        elif foreign := first_foreign_file(name):
            left_alone.append(
                f"{foreign}: not part of the run in this folder; move it elsewhere to make the run removable."
            )
        else:
            removable.append(_removable(name, _reason(made_for.get(name, []), here.specifications, studies)))
    sizes = {reason: format_bytes(sum(_size(RUNS / name) for name in names)) for reason, names in kept.items()}
    sentences = [f"{counted(len(names), 'run')}, {sizes[reason]}: {reason}." for reason, names in kept.items()]
    return CleanPlan(sorted(removable, key=lambda run: (run.reason, run.path)), sentences, left_alone)


def runs_made_of(asked: Sequence[str]) -> list[Removable]:
    """Some runs, all runs here that were made of them, and the manifests of the tables and figures that show these.

    When a table without a manifest is requested, it is rebuilt together with the missing runs behind it.

    Args:
        asked: runs as `STAGE/RUN`, or as `RUN` in any stage. `RUN` is the whole name of a run, its beginning up to a
            hyphen, or any beginning that extends into the digest. The run itself may be absent if there are runs that
            were made of it. A run whose specification is damaged must be given by its whole name.

    Raises `ConfigurationError` if no run matches, if a run to be removed may be in progress, or if its folder contains
    a file that is not part of it.
    """
    here = scan_runs()
    specifications = here.specifications
    inputs = {name: set(specification.builds_on.values()) for name, specification in specifications.items()}
    known = specifications.keys() | {name for names in inputs.values() for name in names}
    selected: set[str] = set()
    for argument in asked:
        text = (relative_target(argument) if "/" in argument else argument).removeprefix(f"{RUNS}/").rstrip("/")
        matches = {name for name in known if matches_run(name, text)}
        if text in here.leftovers or (RUNS / text in here.others and has_run_files(RUNS / text)):
            matches |= {text}
        if not matches:
            raise ConfigurationError(
                f"{argument}: no run in {RUNS} has this name, expected STAGE/RUN, or its beginning up to a hyphen, or "
                f"the row of a table: {ROW_FORM}."
            )
        selected |= matches
    while made_of_selected := {name for name in inputs.keys() - selected if inputs[name] & selected}:
        selected |= made_of_selected
    if in_progress := sorted(selected & active_runs()):
        raise ConfigurationError(f"{RUNS / in_progress[0]}: the run may be in progress; stop its job first.")
    present = [name for name in sorted(selected) if (RUNS / name).is_dir() and not (RUNS / name).is_symlink()]
    if foreign := next((file for name in present if (file := first_foreign_file(name))), None):
        raise ConfigurationError(f"{foreign}: not part of the run in this folder; move it elsewhere.")
    products = [path for path, names in runs_of_products().items() if names & selected and path.exists()]
    return [*(Removable(path, path.stat().st_size) for path in products), *(_removable(name) for name in present)]


def check_addresses_certain(configuration: Path) -> None:
    """Raise `ConfigurationError` if runs in use might count as unused.

    With other package versions, or without the lock of the assets, all runs have other addresses.
    """
    if sentences := differing_versions(workflow_folder(configuration).parent):
        raise ConfigurationError(
            f"{sentences[0]}, so the runs of the pinned version would count as unused; install the pinned version."
        )
    if not any(RUNS.glob(f"assets/*/{MANIFEST}")):
        return
    for study in study_names(configuration):
        if missing := _unlocked(_plan(study, configuration)):
            raise ConfigurationError(
                f"study {study}: {missing} is not locked here, so the runs made from it would count as unused; restore "
                "the lock with which they were made (`make assets`)."
            )


def _plan(study: str, configuration: Path) -> Plan:
    """The plan of a study. Raises `ConfigurationError` for an invalid study: why it matters, and how to go on."""
    try:
        plan = load_plan(study, configuration)
        plan.products()
    except UserError as error:
        raise ConfigurationError(
            f"{str(error).removesuffix('.')}; `clean` reads every study, because the runs of a study that it cannot "
            f"read would count as unused; correct {study_file(study, configuration)} or move it out of its folder, or "
            "name the runs to remove (`clean RUN` reads no study)."
        ) from None
    return plan


def _unlocked(plan: Plan) -> str | None:
    """The first asset of a study that is not locked."""
    if plan.study.world.kind == "miniature":
        return None
    settings, _ = plan.asset_world.assets()
    return next((name for name, sha256 in settings.sha256.items() if sha256 is None), None)


# In words


def _made_for(specifications: Specifications) -> dict[str, list[str]]:
    """The products with a specification in `runs/`, by the names of the runs behind them."""
    products: dict[str, list[str]] = {}
    for product in specifications:
        if product.partition("/")[0] in PRODUCTS:
            for name in with_dependencies([product]):
                products.setdefault(name, []).append(product)
    return products


def _reason(products: Collection[str], specifications: Specifications, studies: Collection[str]) -> str:
    """Why a run counts as unused: the products for which it was made, and why no study names it."""
    if not products:
        return "Made for a table or figure whose specification is not here any more; no study here names them"
    names_by_study: dict[str, list[str]] = {}
    for product in products:
        specification = specifications[product]
        name = str(specification.settings.get("name", PRODUCTS[specification.stage].names))
        study = specifications[product].slug.removesuffix(f"-{slugify(name)}")
        names_by_study.setdefault(study, []).append(name)
    known = {slugify(study): study for study in studies}
    parts = []
    for study, names in sorted(names_by_study.items()):
        subject = f"{_in_words(sorted(set(names)))} of the study {known.get(study, study)}"
        if study in known:
            parts.append(f"{subject}, before the study, the code or the packages were changed")
        else:
            parts.append(f"{subject}, which is not here")
    return f"Made for {'; and for '.join(parts)}; no study here names them"


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _when(folder: Path) -> str:
    """The time at which a run was finished or, if it is not, planned, in words."""
    if (record := read_or_none(read_provenance, folder / RECORD)) is not None:
        return f"finished {datetime.fromisoformat(record.finished):%Y-%m-%d %H:%M}"
    written = (folder / SPECIFICATION) if (folder / SPECIFICATION).exists() else folder
    word = "planned" if folder.parent.name in PRODUCTS else "not finished, planned"
    return f"{word} {datetime.fromtimestamp(written.stat().st_mtime):%Y-%m-%d %H:%M}"


def _removable(name: str, reason: str = "") -> Removable:
    return Removable(RUNS / name, _size(RUNS / name), _when(RUNS / name), reason)


def _size(folder: Path) -> int:
    """The size of the files in a folder in bytes; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())

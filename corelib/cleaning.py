"""Cleaning: removing the runs that no study names any more, or some runs with all that was made of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corelib.addresses import RESULTS, RUNS, SPECIFICATION
from corelib.artefacts import MANIFEST, read_json
from corelib.errors import ArtefactError, ConfigurationError
from corelib.leases import read_owner
from corelib.plan import Plan
from corelib.preflight import differing_versions
from corelib.requests import CONTROLLER
from corelib.running import LOGS, running_jobs
from corelib.studies import study_names
from corelib.targets import plan_of


@dataclass(frozen=True)
class Removable:
    """A run's folder that may go, and what removing it frees; or the manifest of a table or figure."""

    path: Path
    bytes: int


def unnamed_runs(configuration: Path) -> list[Removable]:
    """Every run in the working directory that no product of any study needs, except those that may compute now.

    Of a job on another machine only its silence is known, and clocks differ: as long as its lease lies there, it may.

    Raises `ConfigurationError` if a study can't be planned: its runs would count as unnamed.
    """
    plans = [plan_of(study, configuration) for study in study_names(configuration)]
    named = {name for plan in plans for product in plan.products().values() for name in product.with_all_inputs()}
    named |= set(_products().values())
    kept = named | _computing()
    return [Removable(path, _size(path)) for path in _folders() if _name(path) not in kept]


def runs_made_of(asked: Sequence[str]) -> list[Removable]:
    """Some runs, every run here that was made of them, and the manifests of tables and figures that show those.

    Without its manifest a table is made again when it is asked for, and with it what is missing behind it.

    Args:
        asked: `STAGE/RUN`, the beginning of such a name, or of a run's name in any stage; also one that is gone, if
            there is something that was made of it.

    Raises `ConfigurationError` if no run is called so, or one that would go may be computed now.
    """
    folders = {_name(path): path for path in _folders()}
    below = {name: set(_builds_on(path)) for name, path in folders.items()}
    known = folders.keys() | {name for names in below.values() for name in names}
    found: set[str] = set()
    for beginning in asked:
        wanted = beginning.removeprefix(f"{RUNS}/").rstrip("/")
        called = {name for name in known if (name if "/" in wanted else name.partition("/")[2]).startswith(wanted)}
        if not called:
            raise ConfigurationError(
                f"{beginning}: no run in {RUNS} is called so, expected STAGE/RUN or its beginning."
            )
        found |= called
    while more := {name for name in below.keys() - found if below[name] & found}:
        found |= more
    if computing := sorted(found & _computing()):
        raise ConfigurationError(f"{RUNS / computing[0]}: it may be computed now, expected a run that is at rest.")
    products = [path for path, name in _products().items() if name in found]
    here = [folders[name] for name in sorted(found & folders.keys())]
    return [
        *(Removable(path, _size(path)) for path in here),
        *(Removable(path, path.stat().st_size) for path in products),
    ]


def check_that_nothing_is_built_here() -> None:
    """Raise `ConfigurationError` if Snakemake works in this folder: perhaps by a study that has been edited since."""
    owner = read_owner(CONTROLLER)
    if owner is not None and not owner.is_gone():
        raise ConfigurationError(
            f"{Path.cwd()}: Snakemake works here, {owner}, expected none; wait for it (if it is none any more, delete "
            f"{CONTROLLER})."
        )


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
    settings, _ = plan.assets()
    return next((name for name, sha256 in settings.sha256.items() if sha256 is None), None)


def _folders() -> list[Path]:
    stages = [path for path in RUNS.glob("*") if path.is_dir() and not path.is_symlink()]
    return sorted(path for stage in stages for path in stage.glob("*") if path.is_dir() and not path.is_symlink())


def _name(folder: Path) -> str:
    return folder.relative_to(RUNS).as_posix()


def _computing() -> set[str]:
    return {"/".join(job.run.split("/")[:2]) for job in running_jobs() if not job.owner.is_gone()}


def _builds_on(folder: Path) -> list[str]:
    """The names of the runs that a run builds on; none where that is not readable."""
    try:
        return [str(name) for name in read_json(folder / SPECIFICATION)["builds_on"].values()]
    except (ArtefactError, KeyError, TypeError, AttributeError):
        return []


def _products() -> dict[Path, str]:
    """The manifests of tables and figures in `results/`, and the name of the run of each."""
    found = {}
    for path in sorted(RESULTS.rglob("*.json")):
        content = read_json(path)
        stage, digest = (content.get(key) if isinstance(content, dict) else None for key in ("stage", "digest"))
        if isinstance(stage, str) and isinstance(digest, str) and f"{stage}{digest}".isalnum():
            for folder in (RUNS / stage).glob(f"*-{digest[:12]}"):
                found[path] = _name(folder)
    return found


def remove(run: Removable) -> None:
    """Remove a run's folder and its log; what its links lead to stays. Of a table or figure, its manifest."""
    if run.path.is_file():
        run.path.unlink()
        return
    shutil.rmtree(run.path)
    stage, name = run.path.relative_to(RUNS).parts
    (LOGS / stage / f"{name}.log").unlink(missing_ok=True)
    shutil.rmtree(LOGS / stage / name, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())

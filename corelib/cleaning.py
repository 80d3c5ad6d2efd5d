"""Cleaning: removing the runs that no study names any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corelib.addresses import RUNS
from corelib.artefacts import read_json
from corelib.running import LOGS, running_jobs
from corelib.studies import study_names
from corelib.targets import RESULTS, plan_of


@dataclass(frozen=True)
class Unnamed:
    """A run's folder that no study names, and what removing it frees."""

    folder: Path
    bytes: int


def unnamed_runs(configuration: Path) -> list[Unnamed]:
    """Every run in the working directory that no product of any study needs, except those that may compute now.

    Of a job on another machine only its silence is known, and clocks differ: as long as its lease lies there, it may.

    Raises `ConfigurationError` if a study can't be planned: its runs would count as unnamed.
    """
    named = {
        name
        for study in study_names(configuration)
        for product in plan_of(study, configuration).products().values()
        for name in product.with_all_inputs()
    }
    named |= {f"{stage}/{run}" for stage, run in _published_runs()}
    computing = {"/".join(job.run.split("/")[:2]) for job in running_jobs() if not job.owner.is_gone()}
    stages = [path for path in RUNS.glob("*") if path.is_dir() and not path.is_symlink()]
    folders = sorted(path for stage in stages for path in stage.glob("*") if path.is_dir() and not path.is_symlink())
    kept = named | computing
    return [Unnamed(path, _size(path)) for path in folders if path.relative_to(RUNS).as_posix() not in kept]


def _published_runs() -> Iterator[tuple[str, str]]:
    """Stage and name of the runs of which tables and figures lie in `results/`: specifications, and small."""
    for path in RESULTS.rglob("*.json"):
        content = read_json(path)
        stage, digest = (content.get(key) if isinstance(content, dict) else None for key in ("stage", "digest"))
        if isinstance(stage, str) and isinstance(digest, str) and f"{stage}{digest}".isalnum():
            for folder in (RUNS / stage).glob(f"*-{digest[:12]}"):
                yield stage, folder.name


def remove(run: Unnamed) -> None:
    """Remove a run's folder and its log; what its links lead to stays."""
    shutil.rmtree(run.folder)
    stage, name = run.folder.relative_to(RUNS).parts
    (LOGS / stage / f"{name}.log").unlink(missing_ok=True)
    shutil.rmtree(LOGS / stage / name, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())

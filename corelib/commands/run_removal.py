"""Removing runs, while nothing is built in the working directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corelib.commands.unneeded_runs import Removable
from corelib.errors import ConfigurationError
from corelib.runs.active_jobs import LOGS
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SHARDS, SPECIFICATION
from corelib.runs.lease import Lease, Taken
from corelib.runs.owner import is_held, read_owner
from corelib.runs.requests import CONTROLLER


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
    if any(is_held(lease) for lease in leases):
        raise ConfigurationError(f"{path}: it may be computed now, expected a run that is at rest.")
    (path / MANIFEST).unlink(missing_ok=True)
    (path / RECORD).unlink(missing_ok=True)
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name == SPECIFICATION, entry.name)):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    path.rmdir()
    stage, name = path.relative_to(RUNS).parts
    (LOGS / stage / f"{name}.log").unlink(missing_ok=True)
    shutil.rmtree(LOGS / stage / name, ignore_errors=True)

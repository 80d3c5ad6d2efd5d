"""Removal of runs, while Snakemake cannot run in the working directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.maintenance.unneeded_runs import Removable
from corelib.runs.active_jobs import LOG_FOLDER
from corelib.runs.job_log import earlier_log
from corelib.runs.layout import MANIFEST, RECORD, RUNS, SHARDS, SPECIFICATION
from corelib.runs.lease import Lease, LeaseTaken
from corelib.runs.lease_owner import is_held, read_owner
from corelib.runs.requests import CONTROLLER_LEASE


@contextmanager
def folder_locked() -> Iterator[None]:
    """Prevent Snakemake from starting in this folder while the block runs.

    Raises `ConfigurationError` if Snakemake already runs here: it may use a study that has been edited since.
    """
    owner, lease = read_owner(CONTROLLER_LEASE), Lease(Path.cwd() / CONTROLLER_LEASE)
    try:
        if owner is not None and not owner.is_gone():
            raise LeaseTaken(owner)
        lease.take(patience=0)
    except LeaseTaken as other:
        raise ConfigurationError(
            f"{Path.cwd()}: Snakemake runs here, {other}; wait for it to end (if it has died, delete "
            f"{CONTROLLER_LEASE})."
        ) from None
    try:
        yield
    finally:
        lease.give_back()


def remove_run(removable: Removable) -> None:
    """Remove the folder and the log of a run, but not the targets of its links; or the manifest of a table or figure.

    The manifest is removed first and the specification last, so that an interruption leaves an unfinished run. Raises
    `ConfigurationError` if a job may be computing the run.
    """
    path = removable.path
    if path.is_file():
        path.unlink()
        return
    leases = [path / "manifest.lease", *path.glob(f"{SHARDS}/*.lease")]
    if any(is_held(lease) for lease in leases):
        raise ConfigurationError(f"{path}: the run may be in progress; stop its job first.")
    (path / MANIFEST).unlink(missing_ok=True)
    (path / RECORD).unlink(missing_ok=True)
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name == SPECIFICATION, entry.name)):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    path.rmdir()
    stage, name = path.relative_to(RUNS).parts
    log = LOG_FOLDER / stage / f"{name}.log"
    log.unlink(missing_ok=True)
    earlier_log(log).unlink(missing_ok=True)
    shutil.rmtree(LOG_FOLDER / stage / name, ignore_errors=True)

"""Bookkeeping of the Snakemake process: requests that trigger jobs, and the products that are wanted at stable names.

Snakemake decides by modification times and, if it has checksums of earlier jobs, by those. A request is an input file
that is newer than the outputs and has content that no earlier input had. A job that reads it therefore runs in either
case.

A table has a stable name, and a job of an earlier Snakemake process may still be about to write it. This process
therefore records the digest that is wanted at each name before it judges the product, and a job that holds its lease
compares this digest before it writes. Either the job sees that another product is wanted, or this process waits for the
job and judges its result.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from corelib.errors import ArtefactError
from corelib.files.atomic import write_text
from corelib.runs.lease import EXPIRY
from corelib.runs.lease_owner import is_held, read_owner

BOOKKEEPING_FOLDER = Path(".snakemake/corelib")
"""Folder of these files, in Snakemake's own folder; like the rest of that folder, it may be deleted."""

CONTROLLER_LEASE = BOOKKEEPING_FOLDER / "controller.lease"
"""Lease of the one Snakemake process that runs in a folder."""

REQUESTS_FOLDER, WANTED_FOLDER = BOOKKEEPING_FOLDER / "requests", BOOKKEEPING_FOLDER / "wanted"

MARGIN_SECONDS = 2.0
"""Seconds by which a request is newer than the outputs; some file systems store whole seconds only."""

MAX_AGE_SECONDS = 3600.0
"""Age in seconds at which requests are removed. A concurrent dry run may still need younger ones."""


def create_request(manifest: Path, outputs: Iterable[Path]) -> Path:
    """Create an input file that makes a job run, whatever Snakemake remembers of earlier jobs.

    Args:
        manifest: the manifest that the job writes, below the working directory.
        outputs: the output files of the job. Existing outputs are wrong. Those that are newer than the request, because
            a clock was set back or differs, get an earlier modification time.

    Returns:
        The absolute path of the file: Snakemake caches the content of relative folders.
    """
    nonce = uuid.uuid4().hex
    path = Path.cwd() / REQUESTS_FOLDER / manifest.with_suffix("") / nonce
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{manifest} {nonce}\n", encoding="utf-8")
    now = time.time()
    os.utime(path, (now, now))
    for output in outputs:
        with suppress(OSError):  # missing, or owned by another user
            if output.stat().st_mtime > now - MARGIN_SECONDS:
                os.utime(output, (now - MARGIN_SECONDS, now - MARGIN_SECONDS))
    return path


def remove_old_requests() -> None:
    """Remove the requests of earlier invocations."""
    for folder, folders, files in os.walk(REQUESTS_FOLDER, topdown=False):
        for path in (Path(folder, name) for name in files):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - MAX_AGE_SECONDS:
                    path.unlink()
        for path in (Path(folder, name) for name in folders):
            with suppress(OSError):  # not empty
                path.rmdir()


def record_wanted(manifest: Path, digest: str) -> None:
    """Record which product is wanted at a stable name."""
    path = WANTED_FOLDER / manifest
    with suppress(OSError):
        if path.read_text(encoding="utf-8") == digest:
            return
    write_text(path, digest)


def check_still_wanted(manifest: Path, digest: str) -> None:
    """Raise `ArtefactError` if another product is now wanted at a stable name."""
    try:
        wanted = (WANTED_FOLDER / manifest).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if wanted != digest:
        raise ArtefactError(
            f"{manifest}: the configuration has changed since this job was submitted, and now requires "
            f"{wanted[:12]}, not {digest[:12]}, so nothing is written; ask for the target again."
        )


def is_folder_free() -> bool:
    """Whether no living Snakemake process holds the lease of this folder."""
    return not is_held(CONTROLLER_LEASE)


def wait_for_writer(manifest: Path) -> None:
    """Wait until no job of an earlier Snakemake process is about to write a product.

    A living job renews its lease. A job on another machine whose lease has expired counts as dead.
    """
    lease = manifest.with_suffix(".lease")
    announced = False
    while True:
        try:
            owner, renewed = read_owner(lease), lease.stat().st_mtime_ns
        except OSError:
            return
        if owner is not None and owner.is_gone():
            return
        if not announced:
            print(f"{manifest}: still being written by {owner or 'a job'}; waiting for it.", file=sys.stderr)
            announced = True
        if not _changes(lease, renewed):
            return


def _changes(lease: Path, renewed: int) -> bool:
    """Wait until a lease is renewed, released or expired. Returns False if it has expired."""
    began = time.monotonic()
    while time.monotonic() - began < EXPIRY:
        time.sleep(0.2)
        try:
            owner, last_renewal = read_owner(lease), lease.stat().st_mtime_ns
        except OSError:
            return True
        if last_renewal != renewed or (owner is not None and owner.is_gone()):
            return True
    return False

"""What Snakemake's side keeps for itself: requests that make a job run, and what is wanted at stable names.

Snakemake decides by ages and, where it has checksums of earlier jobs, by those. A request is an input file that is
newer than the outputs and has content that no earlier input had, so the job that reads it is run in either case.

A table lies at a stable name, and a job that an earlier Snakemake has left behind may still be about to write there.
The digest that is wanted at each name is noted before the product is judged, and a job looks at it, holding its lease,
before it writes: either the job finds that another product is wanted, or it is waited for and its result is judged.
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
from corelib.runs.owner import is_held, read_owner

BOOKKEEPING = Path(".snakemake/corelib")
"""In Snakemake's own folder, and as dispensable as the rest of it."""

CONTROLLER = BOOKKEEPING / "controller.lease"
"""Held by the one Snakemake that works in a folder."""

REQUESTS, WANTED = BOOKKEEPING / "requests", BOOKKEEPING / "wanted"

MARGIN = 2.0
"""Seconds by which a request is newer than the outputs; some file systems keep whole seconds only."""

KEPT = 3600.0
"""Seconds after which another process's requests are removed: a dry run beside this one may still need its own."""


def request(manifest: Path, outputs: Iterable[Path]) -> Path:
    """Make a new input file that calls for a job to run, whatever Snakemake remembers of earlier ones.

    Args:
        manifest: what the job makes, below the working directory.
        outputs: its output files. Those that lie there are wrong; such as are newer than the request, because a clock
            was set back or differs, are dated back.

    Returns:
        The file, as an absolute path: Snakemake remembers which relative folders it has looked into.
    """
    nonce = uuid.uuid4().hex
    path = Path.cwd() / REQUESTS / manifest.with_suffix("") / nonce
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{manifest} {nonce}\n", encoding="utf-8")
    now = time.time()
    os.utime(path, (now, now))
    for output in outputs:
        with suppress(OSError):  # missing, or somebody else's
            if output.stat().st_mtime > now - MARGIN:
                os.utime(output, (now - MARGIN, now - MARGIN))
    return path


def remove_old_requests() -> None:
    """Remove what earlier invocations have asked for."""
    for folder, folders, files in os.walk(REQUESTS, topdown=False):
        for path in (Path(folder, name) for name in files):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - KEPT:
                    path.unlink()
        for path in (Path(folder, name) for name in folders):
            with suppress(OSError):  # not empty
                path.rmdir()


def note_wanted(manifest: Path, digest: str) -> None:
    """Note which product is wanted at a stable name."""
    path = WANTED / manifest
    with suppress(OSError):
        if path.read_text(encoding="utf-8") == digest:
            return
    write_text(path, digest)


def check_still_wanted(manifest: Path, digest: str) -> None:
    """Raise `ArtefactError` if another product than this one is wanted at a stable name by now."""
    try:
        wanted = (WANTED / manifest).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if wanted != digest:
        raise ArtefactError(
            f"{manifest}: the configuration has changed since this job was started, and {wanted[:12]} is wanted there "
            f"instead of {digest[:12]}; nothing is written, ask for the target again."
        )


def is_free() -> bool:
    """Whether no living Snakemake works in this folder, so that this one may."""
    return not is_held(CONTROLLER)


def wait_for_writer(manifest: Path) -> None:
    """Wait until no job that an earlier Snakemake has left behind is about to write a product.

    A job renews its lease while it lives; of one on another machine that is silent for long enough nothing is expected.
    """
    lease = manifest.with_suffix(".lease")
    said = False
    while True:
        try:
            owner, renewed = read_owner(lease), lease.stat().st_mtime_ns
        except OSError:
            return
        if owner is not None and owner.is_gone():
            return
        if not said:
            print(f"{manifest}: still being written by {owner or 'a job'}; waiting for it.", file=sys.stderr)
            said = True
        if not _changes(lease, renewed):
            return


def _changes(lease: Path, renewed: int) -> bool:
    """Wait for a lease to be renewed or given back; whether that happened before it expired."""
    began = time.monotonic()
    while time.monotonic() - began < EXPIRY:
        time.sleep(0.2)
        try:
            owner, now = read_owner(lease), lease.stat().st_mtime_ns
        except OSError:
            return True
        if now != renewed or (owner is not None and owner.is_gone()):
            return True
    return False

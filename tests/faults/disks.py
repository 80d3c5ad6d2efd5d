"""Full and read-only disks, simulated by a file system in memory with a ballast file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attempts import Job, Place, attempt
from outcomes import CLEAR, SAME, UNCLEAR, Bench, Outcome, sentence_of

SIZE = 96 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
FULL, READ_ONLY = "No space left on device", "Read-only file system"


@contextmanager
def small_disk(bench: Bench, job: Job) -> Iterator[Place]:
    """A working directory on its own disk."""
    folder = Path(tempfile.mkdtemp(dir=bench.scratch))
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small", str(disk)], check=True)
    try:
        place = Place(bench.reference, job, disk / "work", put=shutil.copyfile)
        for parent in {(place.folder / path).parent for path in (job.manifest, job.log)}:
            parent.mkdir(parents=True, exist_ok=True)
        place.terminal_path = folder / "terminal"
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def fill_the_disk(bench: Bench, job: Job, pages: int) -> Outcome:
    """Run a job with a number of free pages on the disk; then free space, and run it again."""
    with small_disk(bench, job) as place:
        ballast = place.folder / "ballast"
        with ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, (_free(place) - pages) * PAGE)
        ended = attempt(job, place)
        fault = _fault(place, ended.status, FULL)
        ballast.unlink()
        if fault is None:
            return _run_again(bench, job, place, "disk full" if ended.status else "disk nearly full", ended.status)
        return Outcome(job.label, "disk full", UNCLEAR, detail=f"{pages} pages: {fault}")


def write_protect(bench: Bench, job: Job) -> Outcome:
    """Run a job in a read-only working directory; then make it writable, and run it again."""
    with small_disk(bench, job) as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place.folder.parent)], check=True)
        ended = attempt(job, place)
        fault = (
            _fault(place, ended.status, READ_ONLY)
            if ended.status
            else "the job succeeded, although nothing can be written"
        )
        subprocess.run(["mount", "-o", "remount,rw", str(place.folder.parent)], check=True)
        if fault is None:
            return _run_again(bench, job, place, "read-only", ended.status)
        return Outcome(job.label, "read-only", UNCLEAR, detail=fault)


def _free(place: Place) -> int:
    return os.statvfs(place.folder).f_bavail


def _fault(place: Place, status: int, reason: str) -> str | None:
    """The fault of a failed job; None if the job succeeded, or failed with one sentence and left no partial files."""
    if status == 0:
        return None
    sentence = sentence_of(place)
    if sentence is None or reason not in sentence or sentence.startswith("None"):
        return f"status {status}, no sentence with this reason: {place.log[-1500:]} / {place.terminal[-1500:]}"
    if left := [name for name in place.unfinished() if not name.endswith("/checkpoint.pt")]:
        return f"left behind: {left}"
    return None


def _run_again(bench: Bench, job: Job, place: Place, kind: str, before: int) -> Outcome:
    ended = attempt(job, place)
    if ended.status != 0:
        return Outcome(job.label, kind, UNCLEAR, detail=f"second attempt: {place.log[-600:]}")
    result, detail = bench.compare(job, place)
    return Outcome(job.label, kind, CLEAR if result == SAME and before != 0 else result, detail=detail)

"""Outcomes of disturbances, and the undisturbed attempts with which they are compared."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from attempts import RECORD, Job, Place, Reference, attempt

PAGE = os.sysconf("SC_PAGE_SIZE")

SAME, CLEAR = "same bits", "one clear error"
WRONG, LOST, UNCLEAR = "WRONG", "LOST", "UNCLEAR"
"""Bits that differ from an undisturbed run; saved work that was repeated; a failure without one clear error."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one disturbance of a job.

    Attributes:
        label: the stage.
        kind: kind of disturbance.
        result: one of the constants above.
        kills: number of kills.
        inside: number of kills inside a write or while a state was saved.
        detail: details of a failure.
    """

    label: str
    kind: str
    result: str
    kills: int = 0
    inside: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed attempt at a job."""

    seconds: float
    events: list[str]
    pages: int
    listing: dict[str, str] = field(repr=False)


class Bench:
    """The test bench: a reference, undisturbed attempts, and a folder for working directories."""

    def __init__(self, reference: Reference, scratch: Path) -> None:
        self.reference, self.scratch = reference, scratch
        self.undisturbed: dict[Path, Undisturbed] = {}

    @contextmanager
    def place(self, job: Job) -> Iterator[Place]:
        """A temporary working directory for attempts at a job."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            yield Place(self.reference, job, folder / "work")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run_undisturbed(self, job: Job) -> Undisturbed:
        """Run a job undisturbed, and check that its result is that of Snakemake's job."""
        with self.place(job) as place:
            ended = attempt(job, place, watch=True)
            assert ended.status == 0, f"{job.manifest}: {place.log or place.terminal}"
            listing = place.listing()
            made = [place.folder / name for name in listing if (place.folder / name).stat().st_nlink == 1]
            pages = sum(1 + path.stat().st_size // PAGE for path in made if path.is_file())
        for name, found in listing.items():
            built = self.reference.folder / name
            is_record = RECORD.fullmatch(name) is not None
            assert found != "not sealed", f"{name}: its seal does not match its content"
            assert not found or is_record or sha256(built.read_bytes()).hexdigest() == found, (
                f"{name}: differs from the result of Snakemake's job"
            )
        assert listing[str(job.manifest)]
        return Undisturbed(ended.seconds, ended.events, pages, listing)

    def compare(self, job: Job, place: Place) -> tuple[str, str]:
        """Compare the files of a successful job with those of an undisturbed one: the same files with the same bits."""
        expected, found = self.undisturbed[job.manifest].listing, place.listing()
        for name in expected:
            if found.get(name) != expected[name]:
                return WRONG, f"{name}: differs from the undisturbed result" if name in found else f"{name}: missing"
        left = sorted(found.keys() - expected.keys())
        if job.shard:  # partial images of other shards are removed when the shards are gathered
            left = [name for name in left if "/images/." not in name and "/batches/." not in name]
        if left:
            return LOST, f"left behind: {', '.join(left[:4])}"
        return SAME, ""


def sentence_of(place: Place) -> str | None:
    """The error of a failed job, at the end of its log or otherwise on the terminal; None if there is none."""
    for text in (place.log, place.terminal):
        lines = [line for line in text.splitlines() if line.strip()]
        if "Traceback" in text:
            return None
        if lines and (found := re.search(r"Error: (.+)$", lines[-1])):
            return found.group(1)
    return None

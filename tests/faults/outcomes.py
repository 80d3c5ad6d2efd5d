"""What may come of a disturbance, and what an undisturbed attempt leaves to compare it with."""

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

from attempts import Job, Place, Reference, attempt

PAGE = os.sysconf("SC_PAGE_SIZE")

SAME, CLEAR = "same bits", "one clear error"
WRONG, LOST, UNCLEAR = "WRONG", "LOST", "UNCLEAR"
"""Other bits than an undisturbed run's; work that was saved is done again; a failure that is not one clear sentence."""


@dataclass(frozen=True)
class Outcome:
    """What came of one disturbance of one job.

    Attributes:
        label: the stage.
        kind: of disturbance.
        said: one of the above.
        kills: how many there were, and how many of them inside a write or the saving of a state.
        detail: what to look at.
    """

    label: str
    kind: str
    said: str
    kills: int = 0
    inside: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Undisturbed:
    """What a job does when it is left alone."""

    seconds: float
    events: list[str]
    pages: int
    listing: dict[str, str] = field(repr=False)


class Bench:
    """Where jobs are disturbed: a reference, undisturbed attempts, and room for working directories."""

    def __init__(self, reference: Reference, scratch: Path) -> None:
        self.reference, self.scratch = reference, scratch
        self.undisturbed: dict[Path, Undisturbed] = {}

    @contextmanager
    def place(self, job: Job) -> Iterator[Place]:
        """A working directory for attempts at a job; gone afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            yield Place(self.reference, job, folder / "work")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def leave_alone(self, job: Job) -> Undisturbed:
        """Do a job undisturbed, and check that this harness does what Snakemake does."""
        with self.place(job) as place:
            ended = attempt(job, place, watch=True)
            assert ended.status == 0, f"{job.manifest}: {place.log or place.terminal}"
            listing = place.listing()
            made = [place.folder / name for name in listing if (place.folder / name).stat().st_nlink == 1]
            pages = sum(1 + path.stat().st_size // PAGE for path in made if path.is_file())
        for name, found in listing.items():
            built = self.reference.folder / name
            is_record = ".provenance." in name
            assert found != "not sealed", f"{name}: it does not have its seal"
            assert not found or is_record or sha256(built.read_bytes()).hexdigest() == found, (
                f"{name}: not as Snakemake's job made it"
            )
        assert listing[str(job.manifest)]
        return Undisturbed(ended.seconds, ended.events, pages, listing)

    def compared(self, job: Job, place: Place) -> tuple[str, str]:
        """What a job has come to that ended well: all files there, no others, and the same bits."""
        expected, found = self.undisturbed[job.manifest].listing, place.listing()
        for name in expected:
            if found.get(name) != expected[name]:
                return WRONG, f"{name}: other bits than undisturbed" if name in found else f"{name}: missing"
        left = sorted(found.keys() - expected.keys())
        if job.shard:  # whose run other shards work in as well: half written images go when they are gathered
            left = [name for name in left if "/images/." not in name and "/batches/." not in name]
        if left:
            return LOST, f"left behind: {', '.join(left[:4])}"
        return SAME, ""


def sentence_of(place: Place) -> str | None:
    """The one sentence in which a job has failed, where it is one: at the end of its log, or else on the terminal."""
    for said in (place.log, place.terminal):
        lines = [line for line in said.splitlines() if line.strip()]
        if "Traceback" in said:
            return None
        if lines and (found := re.search(r"Error: (.+)$", lines[-1])):
            return found.group(1)
    return None

"""Who made a number: the runs, commits and devices behind it, from the records beside the runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.artefacts import MANIFEST, Manifest, read_sealed
from corelib.errors import ArtefactError

RECORD = Path(MANIFEST).with_suffix(".provenance.json").name
SHARDS = "shards/*.provenance.json"
"""The records of the jobs that sampled a run's images; the run's own is that of the job that gathered them."""

PREDICTIONS, FID, FID_OF_ORIGINAL = "predictions", "fid", "fid_of_original"
BELOW = ("samples", "delta")
"""The roles by which what looks at images leads to the images, and these to their model."""


@dataclass(frozen=True)
class Origin:
    """One job that had a part in a number.

    Attributes:
        stage, run: what it made.
        commit: of the code; None outside a checkout.
        device: on which it computed, or those, if it was interrupted and went on elsewhere.
        host: the machine, or the cluster's name for it.
        finished: when.
    """

    stage: str
    run: str
    commit: str | None
    device: str
    host: str
    finished: str


def origins_of(cells: Manifest) -> dict[str, list[Origin]]:
    """The jobs behind an evaluated run's accuracies, its FID, and the original model's: model, images, evaluation.

    By the roles of the cells' inputs; empty lists where there are no records. Raises `ArtefactError` if a record is not
    as it was written.
    """
    own = read_record(cells.folder / RECORD, f"{cells.folder.parent.name}/{cells.folder.name}")
    builds_on = own["specification"]["builds_on"] if own else {}
    return {
        role: list(_chain(cells.folder.parents[1], builds_on[role])) if role in builds_on else []
        for role in (PREDICTIONS, FID, FID_OF_ORIGINAL)
    }


def _chain(runs: Path, name: str) -> Iterator[Origin]:
    """The jobs of a run and of what it looks at, first things first."""
    record = read_record(runs / name / RECORD, name)
    if record is None:
        return
    builds_on = record["specification"]["builds_on"]
    for role in BELOW:
        if role in builds_on:
            yield from _chain(runs, builds_on[role])
    stage, _, run = name.partition("/")
    shards = [found for path in sorted((runs / name).glob(SHARDS)) if (found := read_record(path, name))]
    for job in shards or [record]:
        devices = dict.fromkeys(attempt["device"] for attempt in (*job["earlier_attempts"], job))
        where = job["node"] or job["host"]
        yield Origin(stage, run, job["commit"], ", ".join(devices), where, job["finished"])


def read_record(path: Path, name: str) -> dict[str, Any] | None:
    """The record of a job that had a part in the run of that name; None if there is none.

    Raises `ArtefactError` if it is not as it was written.
    """
    if not path.exists():
        return None
    try:
        return read_sealed(path)
    except ArtefactError:
        raise ArtefactError(
            f"{path}: not the record as it was written, expected who made {name}; run `python -m corelib clean {name} "
            "--delete` and ask for the target again."
        ) from None

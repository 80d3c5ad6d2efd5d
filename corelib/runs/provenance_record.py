"""Provenance records: the job, machine, code, inputs, time and memory behind the files of a manifest."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from corelib.errors import ArtefactError
from corelib.files.json_files import read_json
from corelib.files.sealed_json import SealedRecord, has_its_seal, parse_record
from corelib.runs.manifest import ManifestRecord
from corelib.runs.specification import Specification

PROVENANCE_SUFFIX = ".provenance.json"
"""Suffix of a record's file name, in place of a manifest's `.json`."""


def _checked_time(text: str) -> str:
    datetime.fromisoformat(text)  # which raises `ValueError`
    return text


Time = Annotated[str, AfterValidator(_checked_time)]
"""A date and time in ISO 8601."""


class Machine(BaseModel):
    """The machine, device and job of a process, and when it began.

    Attributes:
        began: time at which the process began.
        host: name of the machine.
        node: the scheduler's name of the machine; None without a scheduler.
        scheduler_job: number of the scheduler's job; None if there is none.
        device: name of the GPU, or `cpu`.
        processor: model of the CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    began: Time
    host: str
    node: str | None
    scheduler_job: str | None
    device: str
    processor: str


class Attempt(Machine):
    """An interrupted attempt at a run.

    Attributes:
        saved: time of its last checkpoint; missing if it saved none.
    """

    saved: Time | None = None

    @property
    def seconds_to_checkpoint(self) -> float:
        """The time from its beginning to its last checkpoint, by the machine's clock; 0 if it saved none."""
        if self.saved is None:
            return 0.0
        return max(0.0, (datetime.fromisoformat(self.saved) - datetime.fromisoformat(self.began)).total_seconds())


class Provenance(Machine, SealedRecord):
    """The provenance record beside a manifest.

    Attributes:
        specification: the specification of the run.
        manifest: a copy of the manifest: Snakemake deletes manifests, but not this record.
        version: version of this software.
        commit: commit of the code, with `+` if the working tree differed from it; None outside a checkout.
        python: version of Python.
        packages: version of each numerical package with its local build tag, by name.
        machine: architecture of the CPU.
        visible_devices: the value of `CUDA_VISIBLE_DEVICES`; None if it is not set.
        arithmetic: kernels, library versions and variables that affect rounding.
        threads: number of CPU threads.
        finished: time at which the job finished.
        wall_seconds: from `began` to `finished`, by a monotonic clock.
        peak_memory_mib: peak resident memory of the process, in MiB.
        records: sha256 of each file of the stage that describes the computation, not the result, by its path.
        earlier_attempts: the interrupted attempts.
        log: lines of the job's log.
    """

    KIND: ClassVar[str] = "provenance record"

    specification: Specification
    manifest: ManifestRecord
    version: str
    commit: str | None
    python: str
    packages: dict[str, str]
    machine: str
    visible_devices: str | None
    arithmetic: dict[str, Any]
    threads: int
    finished: Time
    wall_seconds: float
    peak_memory_mib: int
    records: dict[str, str]
    earlier_attempts: list[Attempt]
    log: list[str]


def provenance_path(manifest: Path) -> Path:
    """The path of the provenance record beside a manifest."""
    return manifest.with_suffix(PROVENANCE_SUFFIX)


def read_provenance(path: Path) -> Provenance:
    """Read a provenance record.

    Raises `ArtefactError` if it is missing or malformed, if its seal does not match its content, or if the
    specification and the manifest in it are damaged or do not belong to one run.
    """
    content = read_json(path)
    record = parse_record(content, Provenance, path)
    is_whole = record.specification.has_its_digest() and has_its_seal(content["manifest"])
    if not is_whole or record.manifest.digest != record.specification.digest:
        raise ArtefactError(
            f"{path}: its specification and its manifest do not belong to one run; delete it and ask for the target "
            "again."
        )
    return record

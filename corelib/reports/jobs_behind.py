"""Provenance of a number: the runs, commits and devices behind it, from the provenance records of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from corelib.files.csv_files import as_csv
from corelib.files.paths import unresolved_path_inside
from corelib.files.sealed_json import read_or_none
from corelib.runs.layout import RECORD, SPECIFICATION
from corelib.runs.manifest import Manifest
from corelib.runs.model_stages import PIPELINE_STAGES, SEARCH_STAGES
from corelib.runs.provenance_record import read_provenance
from corelib.runs.specification import read_specification

SHARD_RECORDS = "shards/*.provenance.json"
"""Records of the jobs that sampled a run's images. The run's own record is that of the job that gathered them."""

PREDICTIONS, FID, FID_OF_ORIGINAL = "predictions", "fid", "fid_of_original"

NOT_ON_RECORD = "not on record"

UPSTREAM_ROLES = ("samples", "delta", "start")
"""Input roles to follow: from an evaluation to its images, from images to their model, and from a model to that of the
task before."""

UPSTREAM_STAGES = (*PIPELINE_STAGES, *SEARCH_STAGES)
"""Stages to follow in any other role: pipelines and embeddings of other stages are shared by all rows."""

JOB_COLUMNS = ("stage", "run", "commit", "device", "host", "finished")
"""The columns of a CSV file that name a job; the fields of `JobProvenance`."""


@dataclass(frozen=True)
class JobProvenance:
    """One job that contributed to a number.

    Attributes:
        stage, run: the run that it made, and its stage.
        commit: commit of the code; None outside a checkout.
        device: its device; all of them, if it was interrupted and resumed on another one.
        host: the machine, or the cluster's name for it.
        finished: time at which it finished.
    """

    stage: str
    run: str
    commit: str | None
    device: str
    host: str
    finished: str


def provenance_of_cells(cells: Manifest) -> dict[str, list[JobProvenance]]:
    """The jobs behind an evaluated run's accuracies, its FID, and the original model's FID, by input role of the cells.

    A list goes from the model to the images and their evaluation; it is empty if there is no specification. A job whose
    record is missing or damaged is listed as not on record: the number is not in doubt, and `verify` names the record.
    """
    behind = builds_on(cells.folder)
    return {
        role: list(_jobs_behind(cells.folder.parents[1], behind[role])) if role in behind else []
        for role in (PREDICTIONS, FID, FID_OF_ORIGINAL)
    }


def provenance_of_run(run: Manifest) -> list[JobProvenance]:
    """The jobs of a run, of its images, and of the model that made them, without repetition."""
    return list(dict.fromkeys(_jobs_behind(run.folder.parents[1], f"{run.stage}/{run.folder.name}")))


def jobs_csv(columns: Sequence[str], numbers: Iterable[tuple[Sequence[object], Iterable[JobProvenance]]]) -> str:
    """The jobs behind some numbers as CSV, a line for each number and job.

    Args:
        columns: names of the columns that name a number.
        numbers: for each number, its entries in these columns and the jobs behind it, each once.
    """
    return as_csv(
        [[*columns, *JOB_COLUMNS], *([*number, *astuple(job)] for number, behind in numbers for job in behind)]
    )


def _jobs_behind(runs: Path, name: str) -> Iterator[JobProvenance]:
    """The jobs of a run and of the runs behind it, in the order of data flow."""
    for role, needed in builds_on(unresolved_path_inside(runs, name)).items():
        if role in UPSTREAM_ROLES or needed.partition("/")[0] in UPSTREAM_STAGES:
            yield from _jobs_behind(runs, needed)
    stage, _, run = name.partition("/")
    records = sorted((runs / name).glob(SHARD_RECORDS)) or [runs / name / RECORD]
    for path in records:
        yield _read_origin(stage, run, path)


def _read_origin(stage: str, run: str, path: Path) -> JobProvenance:
    if (job := read_or_none(read_provenance, path)) is None:
        return JobProvenance(stage, run, None, NOT_ON_RECORD, NOT_ON_RECORD, "")
    devices = dict.fromkeys(attempt.device for attempt in (*job.earlier_attempts, job))
    return JobProvenance(stage, run, job.commit, ", ".join(devices), job.node or job.host, job.finished)


def builds_on(folder: Path) -> Mapping[str, str]:
    """The runs that a run builds on, by role; empty if its specification is missing or damaged."""
    specification = read_or_none(read_specification, folder / SPECIFICATION)
    return {} if specification is None else specification.builds_on

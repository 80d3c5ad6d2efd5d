"""What the rows of a study cost: time, memory and disk of each job, from the provenance records of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corelib.files.csv_files import as_csv
from corelib.files.paths import unresolved_path_inside
from corelib.files.sealed_json import read_or_none
from corelib.reports.jobs_behind import FID_OF_ORIGINAL, NOT_ON_RECORD, SHARD_RECORDS, builds_on
from corelib.runs.layout import RECORD
from corelib.runs.manifest import Manifest
from corelib.runs.model_stages import MODEL_STAGES
from corelib.runs.provenance_record import Provenance, read_provenance
from corelib.settings.reports import TableRow

SHARED = ("", "all rows", "shared")
"""Task, row and title under which the jobs are counted on which several rows build."""

TRAINING_STAGES = ("saliency", "generated", *MODEL_STAGES)
"""Stages that make the model of a row."""

OWN_STAGES = (*TRAINING_STAGES, "samples", "predictions", "fid")
"""Stages whose jobs are counted with a row; all others are shared."""

COST_COLUMNS = (
    "task", "row", "seeds", "stage", "jobs", "wall_seconds", "gpu_hours", "peak_memory_mib", "disk_mib", "devices",
)  # fmt: skip

COST_HEADER = (
    "task", "row", "models", "training (s)", "sampling (s)", "evaluation (s)", "all (s)", "GPU-hours", "memory (MiB)",
    "disk (MiB)",
)  # fmt: skip
"""The columns of the table for readers."""

TOTAL = "all"
"""The entry in the column `stage` of a line for all stages of a row."""


@dataclass(frozen=True)
class JobCost:
    """What a job took.

    Attributes:
        stage, run: the run that it made, and its stage.
        seconds: wall time, with the time of interrupted attempts up to their last checkpoint.
        memory_mib: peak resident memory of the process, in MiB.
        device: the GPU, or `cpu`.
        disk_bytes: size of the files that it made.
    """

    stage: str
    run: str
    seconds: float
    memory_mib: int
    device: str
    disk_bytes: int

    @property
    def gpu_seconds(self) -> float:
        """The wall time, if the job had a GPU; each job has at most one."""
        return 0.0 if self.device == "cpu" else self.seconds


@dataclass(frozen=True)
class RowCosts:
    """The jobs of one row for one task, or those that several rows share.

    Attributes:
        task, row, title: of the row.
        seeds: number of its models; 0 for shared jobs.
        jobs: the jobs of all its training seeds.
    """

    task: str
    row: str
    title: str
    seeds: int
    jobs: Sequence[JobCost]

    def of(self, stage: str) -> RowCosts:
        """The jobs of one stage."""
        return RowCosts(self.task, self.row, self.title, self.seeds, [job for job in self.jobs if job.stage == stage])

    @property
    def stages(self) -> list[str]:
        """The stages of the jobs, in the order in which data flows."""
        return list(dict.fromkeys(job.stage for job in self.jobs))

    @property
    def seconds(self) -> float:
        """The wall time of all jobs."""
        return sum(job.seconds for job in self.jobs)

    @property
    def gpu_hours(self) -> float:
        """The hours of all jobs that had a GPU."""
        return sum(job.gpu_seconds for job in self.jobs) / 3600

    @property
    def memory_mib(self) -> int:
        """The largest peak memory of a job."""
        return max((job.memory_mib for job in self.jobs), default=0)

    @property
    def disk_mib(self) -> float:
        """The size of all files."""
        return sum(job.disk_bytes for job in self.jobs) / 2**20

    @property
    def devices(self) -> str:
        """The devices of the jobs."""
        return ", ".join(sorted({job.device for job in self.jobs}))


def costs_of_rows(rows: Sequence[TableRow], inputs: Mapping[str, Manifest]) -> list[RowCosts]:
    """The costs of each row, and those of the jobs that several rows share; rows of several tables count once.

    Runs whose provenance record is missing are not counted.
    """
    shared: dict[str, list[JobCost]] = {}
    found: dict[tuple[str, str], RowCosts] = {}
    for row in rows:
        own: dict[str, list[JobCost]] = {}
        for seed in row.seeds:
            cells = inputs[seed.cells]
            runs, name = cells.folder.parents[1], f"{cells.stage}/{cells.folder.name}"
            of_original = set(_runs_behind(runs, builds_on(cells.folder).get(FID_OF_ORIGINAL)))
            for run in _runs_behind(runs, name):
                is_own = not row.is_original and run.split("/")[0] in OWN_STAGES and run not in of_original
                target = own if is_own else shared
                if run not in target:
                    target[run] = list(_jobs_of(runs, run))
        if own:
            jobs = [job for made in own.values() for job in made]
            found[row.task, row.row] = RowCosts(row.task, row.row, row.plain_title, len(row.seeds), jobs)
    jobs = [job for made in shared.values() for job in made]
    return [*found.values(), *([RowCosts(*SHARED, 0, jobs)] if jobs else [])]


def _runs_behind(runs: Path, name: str | None, seen: set[str] | None = None) -> Iterator[str]:
    """The names of a run and of all runs behind it, in the order in which data flows; none for None."""
    seen = set() if seen is None else seen
    if name is None or name in seen:
        return
    seen.add(name)
    for needed in builds_on(unresolved_path_inside(runs, name)).values():
        yield from _runs_behind(runs, needed, seen)
    yield name


def _jobs_of(runs: Path, name: str) -> Iterator[JobCost]:
    """The jobs that made a run: that of its manifest, and those of its shards."""
    stage, _, run = name.partition("/")
    for path in [runs / name / RECORD, *sorted((runs / name).glob(SHARD_RECORDS))]:
        record = read_or_none(read_provenance, path)
        if record is not None:
            size = sum(_size(runs / name / file) for file in record.manifest.files) if path.name == RECORD else 0
            yield JobCost(stage, run, _seconds(record), record.peak_memory_mib, record.device, size)


def _seconds(record: Provenance) -> float:
    earlier = sum(attempt.seconds_to_checkpoint for attempt in record.earlier_attempts)
    return record.wall_seconds + earlier


def _size(path: Path) -> int:
    """The size of a file, or of all files in a folder, in bytes; 0 if it is missing."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def costs_csv(costs: Sequence[RowCosts]) -> str:
    """The costs as CSV: a line for each row and stage, and one for all stages of the row."""
    lines = [(entry, stage, entry.of(stage)) for entry in costs for stage in entry.stages]
    lines += [(entry, TOTAL, entry) for entry in costs]
    lines.sort(key=lambda line: costs.index(line[0]))
    return as_csv(
        [
            COST_COLUMNS,
            *(
                [
                    entry.task,
                    entry.row,
                    entry.seeds or "",
                    stage,
                    len(part.jobs),
                    f"{part.seconds:.1f}",
                    f"{part.gpu_hours:.3f}",
                    part.memory_mib,
                    f"{part.disk_mib:.1f}",
                    part.devices,
                ]
                for entry, stage, part in lines
            ),
        ]
    )


def costs_markdown(costs: Sequence[RowCosts]) -> str:
    """The costs as Markdown: a line for each row, with the time of its stages."""
    rows = [list(COST_HEADER), ["---", "---", *["---:"] * (len(COST_HEADER) - 2)]]
    rows += [cost_entries(entry) for entry in costs]
    return "# Costs\n\n" + NOTE + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


NOTE = (
    "Wall time of the jobs of each row, summed over its training seeds and including process start-up; peak resident "
    "memory of a process; size of the files. All rows share the base model, the data and the original model's images. "
    "Jobs of probes and distances are not counted."
)


def cost_entries(entry: RowCosts) -> list[str]:
    """A line of the table of costs, as text."""
    beginning = [entry.task, entry.title, str(entry.seeds) if entry.seeds else ""]
    if not entry.jobs:
        return [*beginning, *[NOT_ON_RECORD] * 4, *[""] * 3]
    groups = (TRAINING_STAGES, ("samples",), ("predictions", "fid"))
    times = [sum(entry.of(stage).seconds for stage in group) for group in groups]
    return [
        *beginning,
        *(f"{time:.0f}" if entry.seeds else "" for time in times),  # shared jobs are of other stages
        f"{entry.seconds:.0f}",
        f"{entry.gpu_hours:.2f}",
        str(entry.memory_mib),
        f"{entry.disk_mib:.1f}",
    ]

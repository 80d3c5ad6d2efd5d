"""Measure how Snakemake's start grows with the number of jobs, beside a trivial Snakefile with equally many jobs.

    python benchmarks/dag.py [--jobs 600 6000 60000] [--report FOLDER]

Each measurement is a process of its own: `snakemake -n`, and a real run that is killed when it is about to start its
first job. By then, it has checked everything and written the specification of each run. The study is the miniature with
many rows: methods that differ in their learning rate, each trained with several seeds. A row has six jobs.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOW = ("Snakefile", "rules", "workflow_scripts", "corelib", "config", "envs", "profiles")

JOBS_PER_ROW = 6
"""Jobs of a row: training, sampling, collection of the images, classification, FID, counts."""

MAX_SEEDS = 100
"""Maximum number of training seeds of a study."""

STARTED = "Select jobs to execute"
"""Snakemake's message before it starts the first jobs."""


@dataclass(frozen=True)
class Start:
    """The start of one Snakemake process.

    Attributes:
        snakefile: "this workflow" or "trivial".
        run: "dry run", or "real run" until its first job.
        jobs: number of jobs.
        cpu_seconds: CPU time of the process in seconds.
        wall_seconds: wall time in seconds.
        peak_mib: peak memory in MiB.
    """

    snakefile: str
    run: str
    jobs: int
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float


def main() -> None:
    """Measure all sizes and print a line for each process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[600, 6_000], help="numbers of jobs (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, help="folder for dag.csv")
    options = parser.parse_args()
    starts: list[Start] = []
    print(f"{'snakefile':<15}{'run':<10}{'jobs':>7}{'CPU s':>9}{'wall s':>9}{'MiB':>7}{'ms/job':>8}", flush=True)
    for jobs in options.jobs:
        with tempfile.TemporaryDirectory() as folder:
            for start in measure(jobs, Path(folder)):
                starts.append(start)
                per_job = 1000 * start.cpu_seconds / start.jobs
                print(
                    f"{start.snakefile:<15}{start.run:<10}{start.jobs:>7}{start.cpu_seconds:>9.1f}"
                    f"{start.wall_seconds:>9.1f}{start.peak_mib:>7.0f}{per_job:>8.2f}",
                    flush=True,
                )
    if options.report:
        write_csv(options.report / "dag.csv", starts)


def measure(jobs: int, folder: Path) -> list[Start]:
    """Both Snakefiles with about that many jobs, each as a dry run and as the start of a real run."""
    rows = max(1, jobs // JOBS_PER_ROW)
    ours, trivial = folder / "ours", folder / "trivial"
    target = write_study(ours, rows)
    write_trivial(trivial, rows)
    starts = []
    for name, place, targets in (("this workflow", ours, [target]), ("trivial", trivial, [])):
        for run in ("dry run", "real run"):
            cpu, wall, peak = start_snakemake(place, targets, is_dry=run == "dry run")
            starts.append(Start(name, run, rows * JOBS_PER_ROW, cpu, wall, peak))
    return starts


def write_study(folder: Path, rows: int) -> str:
    """Write a copy of the workflow with a study of that many rows; return its table."""
    folder.mkdir(parents=True)
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    seeds = next(count for count in range(min(rows, MAX_SEEDS), 0, -1) if rows % count == 0)
    methods = rows // seeds
    lines = ["base: mini", "methods:"]
    lines += [
        f"  rate_{number}: {{like: core, learning_rate: {1.0e-5 * (1 + number / methods):.9f}}}"
        for number in range(methods)
    ]
    names = ", ".join(f"rate_{number}" for number in range(methods))
    lines += [
        f"training: {{seeds: [{', '.join(map(str, range(seeds)))}]}}",
        "tables:",
        f"  table1: {{tasks: [Forget06], rows: [{names}], published: null}}",
        *(f"  table{number}: null" for number in (2, 3, 4)),
        "figures: {figure2: null, figure3: null}",
    ]
    (folder / "config/studies/many.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "results/many/table1.csv"


def write_trivial(folder: Path, rows: int) -> None:
    """Write a Snakefile of six rules in a chain, each with one job a row."""
    folder.mkdir(parents=True)
    rules = [f'rule all:\n    input:\n        expand("made/{{row}}.{JOBS_PER_ROW - 1}", row=range({rows}))\n']
    for number in range(JOBS_PER_ROW):
        inputs = "" if number == 0 else f'    input:\n        "made/{{row}}.{number - 1}"\n'
        rules.append(
            f'rule step_{number}:\n{inputs}    output:\n        "made/{{row}}.{number}"\n'
            '    shell:\n        "touch {output}"\n'
        )
    (folder / "Snakefile").write_text("\n\n".join(rules), encoding="utf-8")


def start_snakemake(folder: Path, targets: Sequence[str], is_dry: bool) -> tuple[float, float, float]:
    """Start Snakemake; return CPU seconds, wall seconds and peak MiB until its end, or until its first job."""
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", "1", "--scheduler", "greedy", "--nolock"]
    command += ["--dry-run", "--quiet", "all"] if is_dry else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"CORELIB_WARM_START": "off"}  # the server would be killed with the process
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        messages, is_started = [], False
        for line in process.stderr:
            messages.append(line)
            if line.startswith(STARTED):
                is_started = True
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if not is_started and (process.returncode != 0 or not is_dry):
        raise SystemExit(f"snakemake in {folder} ended with {process.returncode}:\n{''.join(messages[-20:])}")
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def write_csv(path: Path, starts: Sequence[Start]) -> None:
    """Write the measurements as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Start)])
        writer.writeheader()
        writer.writerows(asdict(start) for start in starts)


if __name__ == "__main__":
    main()

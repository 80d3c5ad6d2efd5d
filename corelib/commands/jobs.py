"""`python -m corelib jobs`: list the jobs that run, and those that wait in Slurm's queue."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from corelib.cluster.slurm_queue import queued_jobs
from corelib.commands.arguments import CONFIGURATION
from corelib.runs.active_jobs import WATCH_SECONDS, find_active_jobs
from corelib.study.row_names import EXAMPLE, ROW_FORM, models_of_row

HELP = "list the running and the queued jobs, with their machines and progress"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `row`."""
    parser.add_argument(
        "row", nargs="*", help=f"list only the jobs of one row of a table, {ROW_FORM}, such as {EXAMPLE}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print each active job, and each other job in the queue."""
    serves = _filter(arguments.row)
    queue = queued_jobs(Path.cwd())
    running = find_active_jobs({job.number for job in queue if not job.waits}, patience=WATCH_SECONDS)
    computing = {job.owner.job for job in running if job.lives}
    shown = [
        *(job for job in running if serves(job.run)),
        *(job for job in queue if job.number not in computing and serves(job.name)),
    ]
    of_row = f" of {' '.join(arguments.row)}" if arguments.row else ""
    print(*(shown or [f"No job{of_row} is running here."]), sep="\n")
    return 0


def _filter(words: list[str]) -> Callable[[str], bool]:
    """Whether the name of a job belongs to a run that a row needs; always true without a row."""
    if not words:
        return lambda name: True
    models = models_of_row(words, CONFIGURATION)
    names = {name.partition("/")[2] for model in models for name in model.runs["cells"].with_all_inputs()}
    return lambda name: any(run in name for run in names)

"""`python -m corelib jobs`: list the jobs that run, and those that wait in Slurm's queue."""

from __future__ import annotations

import argparse
from pathlib import Path

from corelib.cluster.slurm_queue import queued_jobs
from corelib.runs.active_jobs import WATCH_SECONDS, find_active_jobs

HELP = "list the jobs that run now, with their machines and their progress"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print each active job, and each other job in the queue."""
    queue = queued_jobs(Path.cwd())
    running = find_active_jobs({job.number for job in queue if not job.waits}, patience=WATCH_SECONDS)
    computing = {job.owner.job for job in running if job.lives}
    print(*running, *(job for job in queue if job.number not in computing), sep="\n")
    if not running and not queue:
        print("No job is running here.")
    return 0

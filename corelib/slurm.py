"""What is asked of Slurm besides what Snakemake's executor asks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PATIENCE = 60
"""Seconds until an answer of the controller is given up."""

COMMENT = "rule_"
"""With which the executor's comments on its jobs begin."""


def cancel_waiting_jobs(folder: Path) -> None:
    """Cancel the jobs that an earlier Snakemake in this folder has left in the queue, not those that run.

    They have nothing to lose. Were they to start after a new job has made the same run, Snakemake would delete its
    manifest first, and give it back only when the job has found that there is nothing to do.
    """
    if shutil.which("squeue") is None:
        return
    asked = ["squeue", "--me", "--noheader", "--states=PENDING", "--format=%i|%k|%Z"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _say(f"squeue has not answered in {PATIENCE} seconds: what an earlier Snakemake has left in the queue stays.")
        return
    rows = [line.split("|", 2) for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
    left = [number for number, comment, place in rows if comment.startswith(COMMENT) and Path(place) == folder]
    if not left:
        return
    try:
        subprocess.run(["scancel", "--state=PENDING", *left], check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _say(f"scancel has not answered in {PATIENCE} seconds: {len(left)} jobs of an earlier Snakemake may stay.")
    else:
        _say(f"Cancelled {len(left)} jobs that an earlier Snakemake has left in the queue.")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)

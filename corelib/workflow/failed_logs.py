"""What the terminal shows of a job that failed: the end of its log, where the sentence or the traceback is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from corelib.cluster.slurm_queue import how_it_ended

LINES = 25
"""Of a log, counted from its end; a traceback through a library is about as long."""

SCHEDULERS = ".snakemake/slurm_logs"
"""Where Slurm's own logs lie: what Snakemake says of itself on the node, of interest if the job said nothing."""


def ends_of(logs: Iterable[str]) -> Iterator[str]:
    """The last lines of a failed job's log, or, if the job did not come to write one, of the scheduler's."""
    paths = [Path(log) for log in logs]
    own = [path for path in paths if SCHEDULERS not in path.as_posix()]
    theirs = [path for path in paths if path not in own]
    for path in theirs:
        if said := how_it_ended(path):
            yield said
    chosen = [path for path in own if _has_content(path)] or theirs
    for path in chosen:
        lines = _lines(path)
        whole = len(lines) <= LINES
        yield f"Logfile {path}:" if whole else f"The last {LINES} of {len(lines)} lines of {path}:"
        yield from (f"    {line}" for line in lines[-LINES:])


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"not readable: {error.strerror}"]

"""`python -m corelib logs`: print the paths of the logs of a row or of some runs, for `tail` or an editor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from corelib.commands.arguments import CONFIGURATION
from corelib.errors import ConfigurationError
from corelib.maintenance.run_files import matches_run
from corelib.runs.active_jobs import LOG_FOLDER
from corelib.study.row_names import EXAMPLE, ROW_FORM, models_of_row, names_row

HELP = "print the paths of the logs of a row or of runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `runs`."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help=f"one row of a table, {ROW_FORM}, such as {EXAMPLE}; or names of runs, or their beginnings up to a hyphen",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the path of each log, in the order in which the jobs run. Raises `ConfigurationError` if there is none."""
    words = arguments.runs
    if names_row(words):
        names = [run.name for model in models_of_row(words, CONFIGURATION) for run in model.runs.values()]
        found = [log for name in dict.fromkeys(names) for log in _logs_of(name)]
    else:
        known = {path.relative_to(LOG_FOLDER).with_suffix("").as_posix() for path in LOG_FOLDER.glob("*/*")}
        texts = [word.removeprefix("runs/").removeprefix(f"{LOG_FOLDER}/").rstrip("/") for word in words]
        matches = [name for name in sorted(known) if any(matches_run(name, text) for text in texts)]
        found = [log for name in matches for log in _logs_of(name)]
    if not found:
        raise ConfigurationError(f"{' '.join(words)}: no log in {LOG_FOLDER}/, because no job of it has started yet.")
    print(*found, sep="\n")
    return 0


def _logs_of(name: str) -> Iterator[Path]:
    """The logs of a run, or of the shards of its images and their collection."""
    if (log := LOG_FOLDER / f"{name}.log").exists():
        yield log
    yield from sorted((LOG_FOLDER / name).glob("*.log"))

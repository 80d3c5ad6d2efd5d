"""`python -m corelib clean`: list or remove unused runs, or some runs with everything that was made of them."""

from __future__ import annotations

import argparse
import itertools
from contextlib import nullcontext

from corelib.commands.arguments import CONFIGURATION
from corelib.errors import ConfigurationError
from corelib.files.text import counted, format_bytes
from corelib.maintenance.run_removal import folder_locked, remove_run
from corelib.maintenance.unneeded_runs import CleanPlan, check_addresses_certain, runs_made_of, unnamed_runs
from corelib.study.row_names import EXAMPLE, ROW_FORM, models_of_row, names_row

HELP = "list the runs that no study names and no table or figure here shows, with the reasons"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `runs` and `--delete`."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="list these runs instead, with everything that was made from them: names, beginnings of names up to a "
        f"hyphen, or one row of a table, {ROW_FORM}, such as {EXAMPLE}",
    )
    parser.add_argument("--delete", action="store_true", help="remove the listed runs")


def run(arguments: argparse.Namespace) -> int:
    """Print each removable run, and remove it with `--delete`."""
    with folder_locked() if arguments.delete else nullcontext():
        found, count = _made_of(arguments.runs) if arguments.runs else _unnamed(arguments.delete)
        if found.left_alone:
            print("Kept, because these are not runs:", *found.left_alone, sep="\n  ")
        if found.kept:
            print("Kept:", *found.kept, sep="\n  ")
        for reason, removable in itertools.groupby(found.runs, lambda run: run.reason):
            if reason:
                print(f"{reason}:")
            for one in removable:
                print(f"{format_bytes(one.bytes):>10}  {one.path}{f', {one.made}' if one.made else ''}")
                if arguments.delete:
                    remove_run(one)
    freed = format_bytes(sum(one.bytes for one in found.runs))
    print(
        f"{freed:>10}  {count}{', removed' if arguments.delete else '; --delete removes them' if found.runs else ''}."
    )
    return 0


def _made_of(runs: list[str]) -> tuple[CleanPlan, str]:
    """Some runs with everything that was made of them, and the noun phrase for the last line."""
    return CleanPlan(runs_made_of(_models(runs) if names_row(runs) else runs)), (
        "these runs and everything that was made from them"
    )


def _models(words: list[str]) -> list[str]:
    """The names of the models of a row that are here."""
    models = models_of_row(words, CONFIGURATION)
    present = [found.model for found in models if found.model.folder.is_dir()]
    if not present:
        absent = models[0].model.folder
        raise ConfigurationError(f"{' '.join(words)}: its run {absent} is not here, so there is nothing to remove.")
    return [run.name for run in present]


def _unnamed(delete: bool) -> tuple[CleanPlan, str]:
    """The runs that no study names, and the noun phrase for the last line."""
    if delete:
        check_addresses_certain(CONFIGURATION)
    found = unnamed_runs(CONFIGURATION)
    return found, f"{counted(len(found.runs), 'run')} that no study names"

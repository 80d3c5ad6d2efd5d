"""`python -m corelib clean`: the runs that nothing needs any more, or some runs with all that was made of them."""

from __future__ import annotations

import argparse
import itertools
from contextlib import nullcontext

from corelib.commands.arguments import CONFIGURATION
from corelib.commands.run_removal import nothing_is_built_here, remove
from corelib.commands.unneeded_runs import Unnamed, check_that_names_are_certain, runs_made_of, unnamed_runs
from corelib.costs.forecast import in_bytes

HELP = "the runs that no study names and no table or figure here shows, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs, and whether they are removed."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="instead, these runs and all that was made of them")
    parser.add_argument("--delete", action="store_true", help="remove them")


def run(arguments: argparse.Namespace) -> int:
    """Print each run that may go, and remove it with `--delete`."""
    with nothing_is_built_here() if arguments.delete else nullcontext():
        found, count = _made_of(arguments.runs) if arguments.runs else _unnamed(arguments.delete)
        if found.left_alone:
            print("Left alone, because they are no runs:", *found.left_alone, sep="\n  ")
        if found.kept:
            print("Kept:", *found.kept, sep="\n  ")
        for reason, removable in itertools.groupby(found.runs, lambda run: run.reason):
            if reason:
                print(f"{reason}:")
            for one in removable:
                print(f"{in_bytes(one.bytes):>10}  {one.path}{f', {one.made}' if one.made else ''}")
                if arguments.delete:
                    remove(one)
    freed = in_bytes(sum(one.bytes for one in found.runs))
    print(
        f"{freed:>10}  {count}{', removed' if arguments.delete else '; --delete removes them' if found.runs else ''}."
    )
    return 0


def _made_of(runs: list[str]) -> tuple[Unnamed, str]:
    """Some runs with all that was made of them, and how the last line calls them."""
    return Unnamed(runs_made_of(runs)), "these, and what was made of them"


def _unnamed(delete: bool) -> tuple[Unnamed, str]:
    """The runs that no study names, and how the last line calls them."""
    if delete:
        check_that_names_are_certain(CONFIGURATION)
    found = unnamed_runs(CONFIGURATION)
    return found, f"{len(found.runs)} runs that no study names"

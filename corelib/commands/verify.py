"""`python -m corelib verify`: check the hashes, specifications and digests of all files in `runs/` and `results/`."""

from __future__ import annotations

import argparse

from corelib.maintenance.verification import verify_results

HELP = "check whether all hashes, specifications and digests in runs/ and results/ match"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print all faults, and the number of runs and products. Returns 1 if there are faults."""
    found = verify_results()
    for sentence in (*found.faults, *found.affected):
        print(sentence)
    if found.others:
        print("Not checked, because these belong to no run and no product:", *found.others, sep="\n  ")
    print(found)
    if found.faults:
        print(
            "`python -m corelib clean RUN --delete` removes a run and everything made from it; then ask for the "
            "targets again."
        )
    return 1 if found.faults else 0

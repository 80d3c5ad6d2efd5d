"""`python -m corelib verify`: whether what lies in `runs/` and `results/` is what it says it is."""

from __future__ import annotations

import argparse

from corelib.commands.verification import verify_results

HELP = "whether all hashes, specifications and digests in runs/ and results/ belong together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print every fault, and how much was checked; 1 if there are faults."""
    found = verify_results()
    for sentence in (*found.faults, *found.affected):
        print(sentence)
    if found.others:
        print("Not looked at, because they belong to no run and no product:", *found.others, sep="\n  ")
    print(found)
    if found.faults:
        print("`python -m corelib clean RUN --delete` removes a run and all that was made of it, to be made again.")
    return 1 if found.faults else 0

"""`python -m corelib products`: print the targets of a study, for Snakemake's command line."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION, add_study
from corelib.study.loading import load_study
from corelib.study.targets import targets_of

HELP = "print the targets for all tables and figures of a study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study`."""
    add_study(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the targets on one line."""
    print(*targets_of(arguments.study, load_study(arguments.study, CONFIGURATION)))
    return 0

"""`python -m corelib study new`: write the file of a study that differs from another one in a few leaves."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION
from corelib.study.new_study import ASSIGNMENT, study_text, write_new_study
from corelib.study.study_files import PAPER
from corelib.study.targets import targets_of

HELP = "write the file of a new study, which differs from another one in some leaves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action `new` with `name`, `--base` and `--set`."""
    new = parser.add_subparsers(required=True).add_parser("new", description=f"{HELP[0].upper()}{HELP[1:]}.")
    new.add_argument("name", help="name of the new study; its file is config/studies/NAME.yaml")
    new.add_argument("--base", default=PAPER, help="the study that it overlays (default: the paper's)")
    new.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help=f"a leaf that differs, such as {ASSIGNMENT}; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the study, write its file, and print the file and the target to ask for."""
    text = study_text(arguments.base, arguments.assignments)
    file, study = write_new_study(arguments.name, text, CONFIGURATION)
    print(f"# {file}\n{text}")
    print(f"snakemake -c2 {targets_of(arguments.name, study)[0]}")
    print(f"`python -m corelib products {arguments.name}` prints all its targets.")
    return 0

"""Arguments that several commands share, and the folder of the configuration."""

from __future__ import annotations

import argparse

from corelib.study.row_names import EXAMPLE, ROW_FORM
from corelib.study.study_files import PAPER, configuration_folder

CONFIGURATION = configuration_folder()


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add `study`, the name of a study; that of the paper by default."""
    parser.add_argument(
        "study",
        default=PAPER,
        nargs="?",
        help="name of a study: paper, or the name of a file in config/studies/ without .yaml, such as mini",
    )


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add `targets`, files that Snakemake can build; all products of the paper by default."""
    parser.add_argument(
        "targets",
        nargs="*",
        default=["all"],
        help="targets as for Snakemake, such as results/mini/table1.csv; or one row of a table, "
        f"{ROW_FORM}, such as {EXAMPLE}; by default all tables, figures and the gate of the paper",
    )

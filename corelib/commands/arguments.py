"""Arguments that several commands share, and the configuration that they read."""

from __future__ import annotations

import argparse

from corelib.runs.layout import REPOSITORY
from corelib.study.overlays import PAPER

CONFIGURATION = REPOSITORY / "config"


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add `study`, the name of a study; the paper's by default."""
    parser.add_argument(
        "study",
        default=PAPER,
        nargs="?",
        help="a study's name: paper, or of a file in config/studies/ its name without .yaml, such as mini",
    )


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add `targets`, files that Snakemake can be asked for; all products of the paper by default."""
    parser.add_argument(
        "targets",
        nargs="*",
        default=["all"],
        help="as for Snakemake, such as results/mini/table1.csv; all tables, figures and the gate of the paper by "
        "default",
    )

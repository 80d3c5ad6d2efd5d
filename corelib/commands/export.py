"""`python -m corelib export`: a run's model or its images in the form that other programs expect."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a run's model for diffusers, or its images for an evaluator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is exported, of which run, and where to."""
    parser.add_argument("what", choices=["model", "images"])
    parser.add_argument("run", help="a run of the stage `unlearning` or `samples`: its name, or the beginning of it")
    parser.add_argument("folder", type=Path, help="where it is put; not there yet")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the folder."""
    from corelib.commands.run_export import export_images, export_model  # here: no other command needs torch

    export = export_model if arguments.what == "model" else export_images
    export(arguments.run, arguments.folder)
    print(arguments.folder)
    return 0

"""`python -m corelib export`: write the model or the images of a run in the form that other programs expect."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "export the model of a run for diffusers, or its images for an evaluator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `what`, `run` and `folder`."""
    parser.add_argument("what", choices=["model", "images"])
    parser.add_argument("run", help="a run of the stage `unlearning` or `samples`: its name, or the beginning of it")
    parser.add_argument("folder", type=Path, help="destination, which must not exist")


def run(arguments: argparse.Namespace) -> int:
    """Export the model or the images, and print the folder."""
    from corelib.maintenance.run_export import export_images, export_model  # imported here: it needs torch

    export = export_model if arguments.what == "model" else export_images
    export(arguments.run, arguments.folder)
    print(arguments.folder)
    return 0

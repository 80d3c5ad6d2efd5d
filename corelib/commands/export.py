"""`python -m corelib export`: write the model or the images of a row, or the numbers of a study, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from corelib.commands.arguments import CONFIGURATION
from corelib.errors import ConfigurationError
from corelib.files.text import counted
from corelib.runs.model_stages import PIPELINE_STAGES
from corelib.study.row_names import EXAMPLE, ROW_FORM, is_product_path, only_model_of_row

HELP = "export the model of a row for diffusers, its images for an evaluator, or all numbers of a study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `what`, `source` and `folder`."""
    parser.add_argument("what", choices=["model", "images", "results"])
    parser.add_argument(
        "source",
        nargs="+",
        help=f"for a model or images: a row of a table, {ROW_FORM}, such as {EXAMPLE}; or a run of the stage "
        "`unlearning` or `samples`: its name, or the beginning of it up to a hyphen; for results: the name of a study",
    )
    parser.add_argument("folder", type=Path, help="folder to write; it must not exist yet")


def run(arguments: argparse.Namespace) -> int:
    """Export the model, the images or the numbers, and print the folder."""
    if arguments.what == "results":
        return _run_results(arguments.source, arguments.folder)
    from corelib.maintenance.run_export import export_images, export_model  # imported here: it needs torch

    export = export_model if arguments.what == "model" else export_images
    export(_run_of(arguments.what, arguments.source), arguments.folder)
    print(arguments.folder)
    return 0


def _run_results(words: list[str], folder: Path) -> int:
    """Export the numbers of a study; also print how many there are, and which products are not among them."""
    from corelib.maintenance.results_export import RESULTS_JSON, export_results

    if len(words) > 1:
        raise ConfigurationError(f"{' '.join(words)}: expected the name of one study, such as mini.")
    exported = export_results(words[0], folder, CONFIGURATION)
    print(folder)
    missing = "everything is built"
    if exported.missing:
        missing = f"not built or not up to date: {', '.join(exported.missing)} ({folder / RESULTS_JSON} says why)"
    print(f"{counted(exported.numbers, 'number')} of {', '.join(exported.products)}; {missing}")
    return 0


def _run_of(what: str, words: list[str]) -> str:
    """The run that the words name, as the user wrote it or as `STAGE/RUN`."""
    if not is_product_path(words[0]):
        if len(words) > 1:
            raise ConfigurationError(f"{' '.join(words)}: expected one run, or a row: {ROW_FORM}, such as {EXAMPLE}.")
        return words[0]
    found = only_model_of_row(words, CONFIGURATION)
    run = found.model if what == "model" else found.runs["samples"]
    if what == "model" and run.stage == "samples":
        raise ConfigurationError(f"{found.label}: it is the original model; choose the row of an unlearned model.")
    if what == "model" and run.stage in PIPELINE_STAGES:
        folder = run.folder / "pipeline"
        raise ConfigurationError(f"{found.label}: its model is already a diffusers folder, {folder}; copy that folder.")
    if not run.manifest.exists():
        raise ConfigurationError(
            f"{found.label}: its run {run.folder} is not built; build it first: snakemake {words[0]}."
        )
    return run.name

"""Errors for unknown targets, with the targets that exist."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS, RUNS
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.loading import load_study
from corelib.study.study_files import PAPER, misnamed_study_file, misplaced_study_file, study_names
from corelib.study.targets import (
    PRODUCT_NAMES,
    files_of,
    product_of,
    relative_target,
    targets_of,
)

_KNOWN = "|".join(
    rf"{product.names}\.({'|'.join(map(re.escape, (*product.endings, 'json')))})" for product in PRODUCTS.values()
)

UNKNOWN_PRODUCT_PATTERN = rf"(?!(/[A-Za-z0-9_-]+)?/({_KNOWN})$)(/.*)?"
"""Pattern of the path below `results` of a target that no rule makes."""

OUTSIDE_PATTERN = rf"(?!(.*/)?\.snakemake/|{RESULTS}(/|$)|{RUNS}/|logs/).+"
"""Pattern of a target that is not in a folder of results: an absolute path, a study's name, or a name without a folder.

It excludes requests: Snakemake searches the outputs of rules for all input files that are missing.
"""


def unknown_target_error(target: str, configuration: Path) -> ConfigurationError:
    """The error for an unknown target. It names the most similar target of the study, or all of them.

    Raises `ConfigurationError` if there is no such study.
    """
    path = relative_target(target)
    if Path(path).is_absolute():
        return ConfigurationError(
            f"{target}: outside {Path.cwd()}, expected a target inside it, such as {RESULTS / 'table1.csv'}."
        )
    if Path(target).is_absolute() and not re.fullmatch(f"{RESULTS}{UNKNOWN_PRODUCT_PATTERN}", path):
        return ConfigurationError(f"{target}: an absolute path, expected {path}.")
    if Path(path).parts[0] != RESULTS.name:
        return _outside_error(target, configuration)
    parts = Path(path).parts[1:]
    study = parts[0] if parts and (len(parts) > 1 or parts[0] in study_names(configuration)) else PAPER
    targets = targets_of(study, load_study(study, configuration))
    return ConfigurationError(f"{target}: there is no such target, expected {_nearest(Path(path).name, targets)}.")


def _nearest(name: str, targets: list[str]) -> str:
    """The file of a study that has nearly this name; all targets of the study if there is none."""
    product, _, ending = name.lower().partition(".")
    products = {product_of(Path(target)): Path(target) for target in targets}
    similar = difflib.get_close_matches(product, products, n=1)
    if not similar:
        return " or ".join(targets)
    files = {file.name.partition(".")[2]: file for file in files_of(products[similar[0]])}
    endings = difflib.get_close_matches(ending, files, n=1)
    return str(files[endings[0]] if endings else products[similar[0]])


def _outside_error(target: str, configuration: Path) -> ConfigurationError:
    """The error for a target outside `results/`: a product without its folder, a study, or its file."""
    path, studies = Path(target), study_names(configuration)
    if (product := _product_without_folder(path, configuration)) is not None:
        return ConfigurationError(f"{target}: there is no such target, expected {product}.")
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if (misnamed := misnamed_study_file(name, configuration)) is not None:
        return ConfigurationError(f"{misnamed}: the file of a study ends in .yaml; rename it to {name}.yaml.")
    if (misplaced := misplaced_study_file(name, configuration, path)) is not None:
        return ConfigurationError(f"{misplaced[0]}: the file of a study, expected it to be {misplaced[1]}; move it.")
    by_lower_case = {study.lower(): study for study in studies}
    similar = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if name not in studies and not similar:
        return ConfigurationError(
            f"{target}: there is no such target, expected a path such as {RESULTS}/mini/table1.csv; "
            "`snakemake -c1` without a target lists the studies."
        )
    study = name if name in studies else by_lower_case[similar[0]]
    first = targets_of(study, load_study(study, configuration))[0]
    what = "a study, not a target" if study == name else f"not a target; perhaps you mean the study {study}"
    return ConfigurationError(
        f"{target}: {what}, expected one of its targets, such as {first}, or all: "
        f"$(.venv/bin/python -m corelib products {study})."
    )


def _product_without_folder(path: Path, configuration: Path) -> str | None:
    """The target that `table1.csv` or `mini/table1` means; None if the path is not that of a product of a study."""
    study = path.parent.name or PAPER
    if study not in study_names(configuration) or not re.fullmatch(PRODUCT_NAMES, product_of(path)):
        return None
    known = targets_of(study, load_study(study, configuration))
    target = next((target for target in known if product_of(Path(target)) == product_of(path)), None)
    if target is None or not path.suffix:
        return target
    return str(Path(target).with_name(path.name))


def overview(configuration: Path) -> str:
    """The studies and their targets, for Snakemake without a target."""
    lines = []
    for study in study_names(configuration):
        try:
            first, *others = targets_of(study, load_study(study, configuration))
            lines.append(f"  {study:<26} {first} and {len(others)} more")
        except ConfigurationError as error:
            lines.append(f"  {study:<26} not valid: {error}")
    return "\n".join(
        [
            "no target, expected one or more targets of these studies:",
            *lines,
            "`python -m corelib products STUDY` prints all targets of one; `snakemake all` builds all of the paper's.",
        ]
    )

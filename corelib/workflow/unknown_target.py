"""Targets that nothing makes: said in one sentence what can be asked for instead."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS
from corelib.study.loading import load_study
from corelib.study.overlays import PAPER, study_names
from corelib.study.targets import below_here, targets_of

NO_PRODUCT = (
    r"(?!(/[A-Za-z0-9_-]+)?/"
    r"(table\w+\.((cells\.|provenance\.)?csv|md|tex|json)|figure\w+\.(png|json)|gate\.(csv|md|json))$)(/.*)?"
)
"""What follows `results` in a target that is of no rule's form."""

ABSOLUTE = r"/(?!.*/\.snakemake/).*"
"""An absolute path, but not of a request, which Snakemake looks for among the outputs of rules as well."""


def refusal(target: str, configuration: Path) -> ConfigurationError:
    """What is wrong with a target, and which of its study's targets is meant.

    Raises `ConfigurationError` if there is no such study.
    """
    path = below_here(target)
    if Path(path).is_absolute():
        return ConfigurationError(
            f"{target}: outside of {Path.cwd()}, expected a target below it, such as {RESULTS / 'table1.csv'}."
        )
    if Path(target).is_absolute() and not re.fullmatch(f"{RESULTS}{NO_PRODUCT}", path):
        return ConfigurationError(f"{target}: an absolute path, expected {path}.")
    parts = Path(path).parts[1:]
    study = parts[0] if parts and (len(parts) > 1 or parts[0] in study_names(configuration)) else PAPER
    known = {Path(product).name: product for product in targets_of(study, load_study(study, configuration))}
    near = difflib.get_close_matches(Path(target).name.lower(), known, n=1)
    expected = known[near[0]] if near else " or ".join(known.values())
    return ConfigurationError(f"{target}: there is no such target, expected {expected}.")

"""Errors for unknown targets, with the targets that exist."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS
from corelib.study.loading import load_study
from corelib.study.study_files import PAPER, study_names
from corelib.study.targets import PRODUCT_ENDINGS, relative_target, targets_of

_KNOWN = "|".join(
    rf"{name}\.({'|'.join(map(re.escape, (*endings, 'json')))})" for name, endings in PRODUCT_ENDINGS.items()
)

UNKNOWN_PRODUCT_PATTERN = rf"(?!(/[A-Za-z0-9_-]+)?/({_KNOWN})$)(/.*)?"
"""Pattern of the path below `results` of a target that no rule makes."""

ABSOLUTE_PATTERN = r"/(?!.*/\.snakemake/).*"
"""Pattern of an absolute path, except of requests: Snakemake searches the outputs of rules for these as well."""


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
    parts = Path(path).parts[1:]
    study = parts[0] if parts and (len(parts) > 1 or parts[0] in study_names(configuration)) else PAPER
    known = {Path(product).name: product for product in targets_of(study, load_study(study, configuration))}
    matches = difflib.get_close_matches(Path(target).name.lower(), known, n=1)
    expected = known[matches[0]] if matches else " or ".join(known.values())
    return ConfigurationError(f"{target}: there is no such target, expected {expected}.")

"""Targets in `results/` that nothing makes: said in one sentence what can be asked for instead."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corelib.errors import ConfigurationError, UserError
from corelib.studies import PAPER, load_study, study_names
from corelib.targets import RESULTS, targets_of

NO_PRODUCT = (
    r"(?!(/[A-Za-z0-9_-]+)?/"
    r"(table\w+\.((cells\.|provenance\.)?csv|md|tex|json)|figure\w+\.(png|json)|gate\.(csv|md|json))$)(/.*)?"
)
"""What follows `results` in a target that is of no rule's form."""


def refusing(configuration: Path) -> Callable[[Any], list[str]]:
    """The input function of the rule for such targets: it ends Snakemake with a sentence."""

    @functools.cache  # Snakemake may ask again while it is already stopping; one sentence is enough
    def say(target: str) -> None:
        try:
            sentence: UserError = refusal(target, configuration)
        except UserError as error:  # of a study that there is not, or that cannot be read
            sentence = error
        print(f"\nError: {sentence}\n", file=sys.stderr, flush=True)

    def inputs(wildcards: Any) -> list[str]:
        say(f"{RESULTS}{wildcards.rest}")
        raise SystemExit(1)

    return inputs


def refusal(target: str, configuration: Path) -> ConfigurationError:
    """What is wrong with a target, and which of its study's targets is meant.

    Raises `ConfigurationError` if there is no such study.
    """
    parts = Path(target).parts[1:]
    study = parts[0] if parts and (len(parts) > 1 or parts[0] in study_names(configuration)) else PAPER
    known = {Path(product).name: product for product in targets_of(study, load_study(study, configuration))}
    near = difflib.get_close_matches(Path(target).name.lower(), known, n=1)
    expected = known[near[0]] if near else " or ".join(known.values())
    return ConfigurationError(f"{target}: there is no such target, expected {expected}.")

"""Hyperparameters on Snakemake's command line: the error names the study that sets them instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corelib.errors import ConfigurationError
from corelib.study.new_study import assignments_of, study_text
from corelib.study.schema import Study

MAX_ASSIGNMENTS = 3
"""Maximum number of leaves that an error spells out."""


def check_no_hyperparameters(values: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Raise `ConfigurationError` if Snakemake's configuration has leaves of a study.

    Args:
        values: Snakemake's configuration.
        files: the files of `--configfile`, except that of a cluster's site.
    """
    found = {key: value for key, value in values.items() if key in (*Study.model_fields, "base")}
    if not found:
        return
    reason = "hyperparameters belong in a study, because results are named after their study"
    if files or "base" in found:
        place = f"--configfile {files[0]}" if files else "--config base"
        raise ConfigurationError(
            f"{place}: {reason}; save it as config/studies/NAME.yaml, with `base: mini` as its first line if it "
            "differs from the study mini, and ask for results/NAME/table1.csv."
        )
    assignments = assignments_of(found)
    if len(assignments) > MAX_ASSIGNMENTS:
        raise ConfigurationError(
            f"--config {', '.join(found)}: {reason}; write its leaves to config/studies/NAME.yaml, after a line "
            "`base: mini` if it differs from the study mini, and ask for results/NAME/table1.csv."
        )
    lines = "` and `".join(study_text("mini", assignments).splitlines())
    options = " ".join(f"--set '{assignment}'" for assignment in assignments)
    raise ConfigurationError(
        f"--config {' '.join(assignments)}: {reason}; write config/studies/NAME.yaml with the lines `{lines}` (or "
        f"`python -m corelib study new NAME --base mini {options}`), and ask for results/NAME/table1.csv."
    )

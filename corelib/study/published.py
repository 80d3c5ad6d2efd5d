"""The paper's numbers, from `config/published.csv`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from corelib.study.wording import error_in, to_yaml

COLUMN_PATTERNS = (r"\w+", r"[\w-]+", r"[\w-]+", r"\w+", r"\d{1,3}(\.\d+)?", r"\d{0,9}", r"\d{0,9}")
"""The pattern of each column of the paper's numbers."""


def load_published(folder: Path) -> list[list[str]]:
    """Read the paper's numbers, as (table, task, row, metric, value, k, n).

    Raises `ConfigurationError` if the file is not readable or a line has another form.
    """
    file = folder / "published.csv"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            _, *lines = csv.reader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise error_in(file, f"not readable ({error}), expected the paper's numbers") from None
    for line in lines:
        if len(line) != len(COLUMN_PATTERNS) or not all(
            re.fullmatch(*pair) for pair in zip(COLUMN_PATTERNS, line, strict=True)
        ):
            raise error_in(
                file, f"a line is {to_yaml(line)}, expected table, task, row, metric, value, k, n (or no k, n)"
            )
    return lines

"""How values and errors of a configuration are worded."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.files.printable import printable


def shown(value: object) -> str:
    """A value as YAML spells it, cut where it is long."""
    text = _in_yaml(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _in_yaml(value: object) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{', '.join(map(_in_yaml, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {_in_yaml(below)}' for name, below in value.items())}}}"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case _:
            return repr(value)


LONGEST_SENTENCE = 2000
"""Characters of what is said of a fault, whatever the names in it are."""


def error_in(place: Path | str, what: str) -> ConfigurationError:
    """One sentence on one line, whatever the user's names and values contain."""
    said = printable(" ".join(f"{place}: {what}.".split()))
    return ConfigurationError(said if len(said) <= LONGEST_SENTENCE else f"{said[: LONGEST_SENTENCE - 4]}... .")


def suggestion(name: str, known: list[str]) -> str:
    """What the user may have meant by an unknown name."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f", expected `{near[0]}`"
    return f", expected one of {', '.join(known)}" if known else ""

"""Wording of the values and errors of a configuration."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.files.text import printable


def to_yaml(value: object) -> str:
    """A value as YAML spells it, cut if it is long."""
    text = _in_yaml(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _in_yaml(value: object) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{', '.join(map(_in_yaml, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {_in_yaml(entry)}' for name, entry in value.items())}}}"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case _:
            return repr(value)


MAX_SENTENCE_LENGTH = 2000
"""Maximum number of characters of an error sentence, however long the names in it are."""


def error_in(place: Path | str, fault: str) -> ConfigurationError:
    """An error of one sentence on one line, whatever the user's names and values contain.

    Args:
        place: the file, or the file and line, with which the sentence begins.
        fault: the rest of the sentence, without a full stop.
    """
    sentence = printable(" ".join(f"{place}: {fault}.".split()))
    return ConfigurationError(
        sentence if len(sentence) <= MAX_SENTENCE_LENGTH else f"{sentence[: MAX_SENTENCE_LENGTH - 4]}... ."
    )


def suggest_name(name: str, known: list[str]) -> str:
    """The continuation of an error about an unknown name: the most similar known name, or all known names."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f", expected `{near[0]}`"
    return f", expected one of {', '.join(known)}" if known else ""


MIN_SIMILARITY = 0.75
"""Minimum similarity of a name to a known one that the user may have meant; 1 is equality."""


def expected_one_of(name: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the known names, with the one that the user may have meant first."""
    meant = nearest_name(name, known)
    if meant is None:
        return f"expected one of {', '.join(known)}"
    others = [other for other in known if other != meant]
    return f"expected `{meant}`" + (f", or else one of {', '.join(others)}" if others else "")


def nearest_first(name: str, known: Sequence[str]) -> list[str]:
    """Known names, of which the first is the most similar one to an unknown name, if any is similar."""
    near = nearest_name(name, known)
    return [*([near] if near is not None else []), *(other for other in known if other != near)]


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """The known name that the user may have meant; names that differ in their numbers alone are as different as any."""
    by_lower_case = {other.lower(): other for other in known if _without_digits(other) != _without_digits(name)}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=MIN_SIMILARITY)
    return by_lower_case[near[0]] if near else None


def _without_digits(name: str) -> str:
    return re.sub(r"\d", "", name)

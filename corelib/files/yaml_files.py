"""YAML files that people write, read within limits and without guessing.

Plain values follow the core schema of YAML 1.2. A value that YAML 1.1 and 1.2, or widespread readers of either, read
differently, such as `010`, `3:08` or `yes`, is refused. The parser is ruamel.yaml's; this module converts its events to
values, so that every error has a line number.

Aliases can expand exponentially, and integers can be arbitrarily long. The limits below are far above what a study
needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from corelib.files.paths import read_bytes

MAX_YAML_BYTES = 256 * 2**10
"""Maximum size of a file in bytes. The paper's study has 18 thousand; reading 100 thousand takes a second."""

MAX_VALUES = 100_000
"""Maximum number of values in a file. An alias counts as many as the value to which it refers."""

MAX_DEPTH = 100
"""Maximum nesting depth of sections and lists. The paper's study has 7."""

MAX_NUMBER_LENGTH = 40
"""Maximum number of characters of a number."""

MERGE = "<<"

CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
"""Plain words that are not text, in YAML 1.1 and 1.2 alike."""

INTEGER = re.compile(r"[-+]?[0-9]+")

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

AMBIGUOUS = [
    (re.compile(pattern), expected)
    for pattern, expected in (
        (r"(?i:y|n|yes|no|on|off)", "`true` or `false`"),
        (r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", "a number without leading zeros"),
        (r"[-+]?0([xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)", "a decimal number"),
        (r"[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?", "a decimal number"),
        (r"(?=.*_)[-+]?(\.[0-9]|[0-9])[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?", "a number without `_`"),
        (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(([Tt]|[ \t]+)[0-9].*)?", ""),
        (r"=|<<", ""),
    )
]
"""Plain values that YAML readers disagree about, and what to write instead if text is not meant."""

LINE_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Characters that end a line in YAML 1.1 but not in YAML 1.2."""


class UnreadableYaml(ValueError):
    """A YAML file cannot be read. The message is a clause without a full stop.

    Attributes:
        line: number of the line; None if it is not known.
        is_after: whether the fault may also be in the line before.
    """

    def __init__(self, reason: str, line: int | None = None, is_after: bool = False) -> None:
        super().__init__(reason)
        self.line, self.is_after = line, is_after

    def location_in(self, path: Path | str) -> str:
        """The file with the line number, for the beginning of a sentence."""
        before = ", or the one before it" if self.is_after else ""
        return f"{path}, line {self.line}{before}" if self.line else str(path)


def read_yaml(path: Path) -> Any:
    """Read a YAML file: sections, lists, texts, numbers. Raises `UnreadableYaml`."""
    try:
        return parse_yaml(read_bytes(path, MAX_YAML_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableYaml(str(error)) from None


def parse_yaml(text: str) -> Any:
    """Read the text of a YAML file; None if it has no value. Raises `UnreadableYaml`."""
    if match := LINE_BREAKS.search(text):
        reason = f"YAML readers disagree about whether U+{ord(match[0]):04X} ends a line, expected a line break"
        raise UnreadableYaml(f"{reason} or an escape in double quotes", _line_at(text, match.start()))
    events = _events(text)
    next(events)  # the start of the stream
    first = next(events)
    if isinstance(first, StreamEndEvent):
        return None
    if first.version not in (None, (1, 2)):
        version = ".".join(map(str, first.version))
        raise UnreadableYaml(f"the file declares YAML {version}, expected YAML 1.2", _line_of(first))
    document = _Document(events)
    value = document.value(next(events))
    next(events)  # the end of the document
    if isinstance(second := next(events), DocumentStartEvent):
        raise UnreadableYaml("another document begins here, expected a single document", _line_of(second))
    return value


class _Document:
    """Converts the events of a document to values.

    Attributes:
        count: number of values read so far; an alias counts as many as the value to which it refers.
        anchors: the value of each anchor and its number of values; None until its end has been read.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.count = 0
        self.anchors: dict[str, tuple[Any, int] | None] = {}

    def value(self, event: Any, level: int = 0) -> Any:
        """Read the value that begins with `event`, nested in `level` sections and lists."""
        line = _line_of(event)
        if isinstance(event, AliasEvent):
            return self._value_of_alias(event.anchor, line)
        if event.tag is not None:
            tag = _shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            raise UnreadableYaml(f"a value has the tag {tag}, expected the value without a tag", line)
        if level > MAX_DEPTH:
            raise UnreadableYaml(f"sections and lists are nested more than {MAX_DEPTH} deep", line)
        if event.anchor is not None:
            if event.anchor in self.anchors:
                raise UnreadableYaml(f"the anchor {_shown(f'&{event.anchor}')} is written twice, expected once", line)
            self.anchors[event.anchor] = None
        before = self.count
        self._add(1, line)
        value = self._new_value(event, level, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.count - before
        return value

    def _new_value(self, event: Any, level: int, line: int) -> Any:
        if isinstance(event, SequenceStartEvent):
            return [self.value(entry, level + 1) for entry in self._until(SequenceEndEvent)]
        if isinstance(event, MappingStartEvent):
            return self._section(level)
        return _value_of_plain(event.value, line) if _is_plain(event) else event.value

    def _value_of_alias(self, name: str, line: int) -> Any:
        if name not in self.anchors:
            raise UnreadableYaml(f"the alias {_shown(f'*{name}')} refers to no earlier anchor", line)
        anchored = self.anchors[name]
        if anchored is None:
            raise UnreadableYaml(f"the alias {_shown(f'*{name}')} is within the value to which it refers", line)
        value, count = anchored
        self._add(count, line)
        return value

    def _section(self, level: int) -> dict[str, Any]:
        """Read a section to its end; its own keys override the merged ones."""
        section: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        for event in self._until(MappingEndEvent):
            line = _line_of(event)
            if isinstance(event, ScalarEvent) and _is_plain(event) and event.value == MERGE and event.tag is None:
                if merged is not None:
                    raise UnreadableYaml(
                        f"the key `{MERGE}` is written twice, expected once; merge several sections by a list", line
                    )
                merged = _merged(self.value(next(self.events), level + 1), line)
                continue
            key = self.value(event, level + 1)
            if not isinstance(key, str):
                description = f"key {_shown(event.value)}" if isinstance(event, ScalarEvent) else "key"
                raise UnreadableYaml(f"the {description} is not text; put it in quotes", line)
            if key in section:
                raise UnreadableYaml(f"the key {_shown(key)} is written twice, expected once", line)
            section[key] = self.value(next(self.events), level + 1)
        return (merged or {}) | section

    def _until(self, end: type[Event]) -> Iterator[Any]:
        while not isinstance(event := next(self.events), end):
            yield event

    def _add(self, count: int, line: int) -> None:
        self.count += count
        if self.count > MAX_VALUES:
            raise UnreadableYaml(f"with its aliases expanded, it has more than {MAX_VALUES:,} values", line)


def _merged(parts: Any, line: int) -> dict[str, Any]:
    """The section that `<<` merges; of several sections with the same key, the first one counts."""
    sections = parts if isinstance(parts, list) else [parts]
    if not all(isinstance(section, dict) for section in sections):
        raise UnreadableYaml(f"the value of `{MERGE}` is not a section, expected one or a list of sections", line)
    return {key: value for section in reversed(sections) for key, value in section.items()}


def _value_of_plain(text: str, line: int) -> Any:
    """The value of an unquoted text."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    for pattern, expected in AMBIGUOUS:
        if pattern.fullmatch(text):
            instead = f"{expected}, or quotes around it for text" if expected else "quotes around it for text"
            raise UnreadableYaml(f"YAML readers disagree about what {_shown(text)} means, expected {instead}", line)
    if not FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_NUMBER_LENGTH:
        raise UnreadableYaml(f"a number of {len(text):,} characters, expected at most {MAX_NUMBER_LENGTH}", line)
    if INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if math.isinf(number) or (number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        size = "large" if number else "small"
        raise UnreadableYaml(f"the number {text} is too {size} for floating point", line)
    return number


def _events(text: str) -> Iterator[Any]:
    """The events of ruamel.yaml's parser, in which values have no types."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except ReaderError as error:
        reason = f"unacceptable character U+{ord(text[error.position]):04X}"
        raise UnreadableYaml(reason, _line_at(text, error.position)) from None
    except MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except (YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError, AssertionError) as error:
        # the parser's own faults on unusual input, such as an escape that stands for no character
        raise UnreadableYaml(f"the parser failed ({error})") from None


NO_COLON = "could not find expected ':'"

UNEXPECTED_COLON = "mapping values are not allowed here"


def _syntax_error(error: MarkedYAMLError, text: str) -> UnreadableYaml:
    """The error for a fault of the syntax, at the line that the user has to change."""
    problem_line, context_line = (
        mark.line + 1 if mark is not None else None for mark in (error.problem_mark, error.context_mark)
    )
    begin = f" that begins in line {context_line}" if context_line and context_line != problem_line else ""
    if begin and error.problem == NO_COLON:  # the parser notices it only at the next colon
        return UnreadableYaml(f"{error.context}, {error.problem}", context_line)
    reason = ", ".join(part for part in (error.context and f"{error.context}{begin}", error.problem) if part)
    is_after = False
    if error.problem == UNEXPECTED_COLON and error.problem_mark is not None and error.problem_mark.line > 0:
        before = text.splitlines()[error.problem_mark.line][: error.problem_mark.column]
        is_after = ": " not in before  # the line before lacks its colon, or has another indentation
    return UnreadableYaml(reason, problem_line, is_after)


def _is_plain(event: Any) -> bool:
    """Whether a text is unquoted and not a block."""
    return not event.style


def _line_of(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _line_at(text: str, position: int) -> int:
    return len(re.findall("\r\n?|\n", text[:position])) + 1


def _shown(text: str) -> str:
    """A text in backticks, cut if it is long."""
    return f"`{text}`" if len(text) <= MAX_NUMBER_LENGTH else f"`{text[:MAX_NUMBER_LENGTH]}...`"

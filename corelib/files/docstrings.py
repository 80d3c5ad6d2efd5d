"""Parsing of docstrings with a section "Attributes", as all records of this library have them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

SECTION = re.compile(r"^(Attributes|Args|Raises|Returns):$")

ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.+)$")
"""An attribute, or several with the same description, such as `template, photo_style: as in ...`."""


@dataclass
class Docstring:
    """The parts of a docstring, each on one line.

    Attributes:
        text: the text before the first section.
        attributes: the description of each attribute.
    """

    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def parse_docstring(docstring: str | None) -> Docstring:
    """Parse a docstring. Lines of an attribute that are indented further continue its description."""
    parsed, section, names = Docstring(), "", list[str]()
    for line in inspect.cleandoc(docstring or "").splitlines():
        if header := SECTION.match(line):
            section = header[1]
        elif not section:
            parsed.text = f"{parsed.text} {line.strip()}".strip()
        elif section == "Attributes" and (entry := ENTRY.match(line)):
            names = entry[1].split(", ")
            parsed.attributes |= dict.fromkeys(names, entry[2])
        elif section == "Attributes" and line.startswith(" " * 8):
            parsed.attributes |= {name: f"{parsed.attributes[name]} {line.strip()}" for name in names}
        elif line and not line.startswith(" "):
            section = ""
            parsed.text = f"{parsed.text} {line}".strip()
    return parsed

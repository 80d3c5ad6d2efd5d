"""YAML files that people write, read within bounds.

A few lines of YAML can stand for more values than memory holds, by names for parts that name parts in their turn, and
a number of any length is one. What is looked through here is small by intention.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from corelib.artefacts import content_of

LARGEST_FILE = 256 * 2**10
"""Bytes. The paper's study has 18 thousand, and reading takes a second for 100 thousand."""

MOST_VALUES = 100_000
"""Of a file, with each name for a part counting as much as the part."""

LONGEST_NUMBER = 40
"""Characters."""

MERGE = "tag:yaml.org,2002:merge"
INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class UnreadableYaml(ValueError):
    """What is wrong with a file, in words, and in which line of it if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(path: Path) -> Any:
    """What is in a YAML file: sections, lists, texts, numbers. Raises `UnreadableYaml`."""
    try:
        return yaml.load(content_of(path, LARGEST_FILE).decode("utf-8"), _Loader)
    except UnreadableYaml:
        raise
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableYaml(problem, error.problem_mark.line + 1 if error.problem_mark else None) from None
    except (OSError, RecursionError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UnreadableYaml(str(error)) from None
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # of a value that its YAML type cannot take
        raise UnreadableYaml(f"a value is not what it looks like ({error})") from None


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-5` is a number, as everyone expects, and a key that is written twice is an error."""

    def construct_document(self, node: yaml.Node) -> Any:
        """At once and not piece by piece, so that a section that contains itself is an error."""
        if _values_in(node, {}) > MOST_VALUES:
            raise UnreadableYaml(f"its names for parts make more than {MOST_VALUES:,} values of it")
        return self.construct_object(node, deep=True)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text, expected quotes around it", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is written twice, expected once", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """The text of a value."""
        text: str = super().construct_scalar(node)
        if node.tag in (INT, FLOAT) and len(text) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(text):,} characters, expected at most {LONGEST_NUMBER}")
        return text


def _values_in(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a part has, with every part that it only names; a part in itself is found elsewhere."""
    if id(node) not in known:
        known[id(node)] = 1
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_values_in(part, known) for part in parts)
    return known[id(node)]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)

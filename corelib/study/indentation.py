"""Keys of a study's file that lack indentation: they are beside the empty entry to which they belong."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping
from typing import Any, get_origin

from corelib.study.schema_types import members_of, type_at

Key = tuple[str, ...]


def keys_beside(section: Mapping[str, Any], key: Key, empty: str, known: Collection[str] = ()) -> list[str]:
    """The keys after an empty entry of a section that belong into that entry.

    Args:
        section: a section of a study's file.
        key: its key.
        empty: the name of an entry without a value.
        known: names that a section without fixed keys may have, such as those of tasks.
    """
    names = list(section)
    after = names[names.index(empty) + 1 :]
    return list(
        itertools.takewhile(
            lambda name: (
                section[name] is not None and not _is_of(section, key, name, known) and _fits(name, key, empty)
            ),
            after,
        )
    )


def _is_of(section: Mapping[str, Any], key: Key, name: str, known: Collection[str]) -> bool:
    """Whether a name is one of a section's own keys, or a misspelling of one that the section does not contain."""
    own = {field for member in members_of(type_at(key)) for field in getattr(member, "model_fields", {})}
    return name in {*own, *known} or bool(difflib.get_close_matches(name, own - section.keys(), n=1))


def _fits(name: str, key: Key, empty: str) -> bool:
    """Whether a name can be a key of the entry `empty` of a section."""
    members = list(members_of(type_at((*key, empty))))
    return any(name in getattr(member, "model_fields", {}) or _is_dict(member) for member in members)


def _is_dict(member: Any) -> bool:
    return get_origin(member) is dict or (isinstance(member, type) and issubclass(member, dict))


def keys_without_indentation(
    content: Mapping[str, Any], key: Key, known: Collection[str]
) -> tuple[str, list[str]] | None:
    """The empty entry before a faulty key of a file, and the keys that belong into it; None if it is at its place."""
    section: Any = content
    for part in key[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or key[-1] not in section:
        return None
    before = itertools.takewhile(lambda name: name != key[-1], section)
    empty = next((name for name in reversed(list(before)) if section[name] is None), None)
    if empty is None or key[-1] not in (names := keys_beside(section, key[:-1], empty, known)):
        return None
    return empty, names


def indentation_advice(empty: str, names: Collection[str]) -> str:
    """The advice to indent some keys, to be used at the end of a sentence."""
    return f"indent {', '.join(f'`{name}`' for name in names)} below `{empty}`, which is empty"

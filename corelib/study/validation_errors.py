"""Pydantic's validation errors in words: key, value, expectation."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corelib.study.indentation import Key, indentation_advice, keys_without_indentation
from corelib.study.overlays import LIKE, REMOVABLE_SECTIONS, REMOVED_MARK, origin_of
from corelib.study.schema_types import kinds_of, members_of, type_at
from corelib.study.wording import suggest_name, to_yaml

EXPECTED_VALUES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
}
"""The expected value for each type of pydantic error, in words."""


Fault = tuple[Key, Mapping[str, Any]]
"""An error of pydantic, with its key in the file."""


def describe_errors(
    error: ValidationError,
    merged: Mapping[str, Any],
    origins: Mapping[Key, Path],
    read: Callable[[Path], Mapping[str, Any]],
) -> list[tuple[Key, str]]:
    """The keys with errors, and a description of each; a key that is missing since it is misspelled has none.

    Args:
        error: the errors of pydantic.
        merged: the leaves of the study.
        origins: for each key, the file that set it.
        read: function that returns the content of a study's file.
    """
    faults: list[Fault] = [(_path_in_file(fault, merged), fault) for fault in error.errors(include_url=False)]
    faults.sort(key=lambda entry: entry[1]["type"] != "extra_forbidden")
    described, faults = _split_off_unindented(faults, merged, origins, read)
    misspelled: set[Key] = set()
    while faults:
        first, fault = faults[0]
        if fault["type"] == "missing":
            siblings = [path for path, other in faults if other["type"] == "missing" and path[:-1] == first[:-1]]
            if first[:-1] not in misspelled:
                described.append((first, _describe_missing(siblings, merged, origins)))
            faults = [entry for entry in faults if entry[0] not in siblings]
        else:
            key, description = _describe_first(faults, merged, origins)
            if fault["type"] == "extra_forbidden":
                misspelled.add(key[:-1])
            described.append((key, description))
            faults = [entry for entry in faults if entry[0][: len(first)] != first]
    return described


def _split_off_unindented(
    faults: Sequence[Fault],
    merged: Mapping[str, Any],
    origins: Mapping[Key, Path],
    read: Callable[[Path], Mapping[str, Any]],
) -> tuple[list[tuple[Key, str]], list[Fault]]:
    """The descriptions of keys that lack indentation, and the faults that have another reason."""
    tasks = merged.get("tasks")
    known = tasks if isinstance(tasks, dict) else {}
    described: list[tuple[Key, str]] = []
    explained: set[Key] = set()
    for key, fault in faults:
        if not key or fault["type"] == "missing" or key in explained:
            continue
        if (found := keys_without_indentation(read(origin_of(key, origins)), key, known)) is None:
            continue
        empty, names = found
        _, description = _describe_first([entry for entry in faults if entry[0] == key], merged, origins)
        if fault["type"] == "extra_forbidden":
            description = f"{'.'.join(key)} is not a known key"
        described.append((key, f"{description}; {indentation_advice(empty, names)}"))
        explained |= {(*key[:-1], name) for name in (empty, *names)}
    return described, [(key, fault) for key, fault in faults if not any(key[: len(part)] == part for part in explained)]


def _describe_missing(keys: Sequence[Key], merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> str:
    """The description of keys that are missing in one section."""
    hint = _hint(keys[0], merged, origins)
    if len(keys) == 1:
        return f"{'.'.join(keys[0])} is missing, expected a value{hint}"
    names = ", ".join(key[-1] for key in keys)
    return f"{'.'.join(keys[0][:-1]) or 'the study'} lacks {names}, expected a value for each{hint}"


def _describe_first(faults: Sequence[Fault], merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> tuple[Key, str]:
    first = faults[0][0]
    # of the types that a union allows, the user means the one that validates furthest
    key = max((path for path, _ in faults if path[: len(first)] == first), key=len)
    alternatives = [fault for path, fault in faults if path == key]
    # a section at a key that also allows a number has a wrong kind
    fault = next((fault for fault in alternatives if fault["type"].startswith("union_tag")), alternatives[0])
    name = ".".join(key)
    if fault["type"] == "extra_forbidden":
        return (
            key,
            f"{name} is not a known key{_hint_at_world(key)}{suggest_name(key[-1], _keys_at(fault['loc'][:-1]))}",
        )
    if fault["type"] == "missing":
        return key, _describe_missing([key], merged, origins)
    if fault["type"] == "union_tag_not_found":
        return key, f"{name}.kind is missing, expected one of {', '.join(_kinds_at(fault['loc']))}"
    if fault["type"] == "union_tag_invalid":
        value, kinds = to_yaml(fault["input"]["kind"]), ", ".join(_kinds_at(fault["loc"]))
        return (*key, "kind"), f"{name}.kind is {value}, expected one of {kinds}"
    expectations = dict.fromkeys(_expectation(fault) for fault in alternatives)
    if type(None) in members_of(type_at(fault["loc"])):
        expectations["null"] = None
    return key, f"{name} is {to_yaml(fault['input'])}, expected {' or '.join(expectations)}"


def _hint_at_world(key: Key) -> str:
    """A hint for keys of a world of one's own images in a study of another world."""
    if key in (("world", "concepts"), ("world", "classes"), ("world", "zero_shot"), ("world", "assets")):
        return f" of this kind of world ({'.'.join(key)} belongs to a study with `base: own`)"
    return ""


def _hint(key: Key, merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> str:
    """A hint at the probable intention behind a task, method, table or figure that lacks a leaf."""
    if key[:1] not in REMOVABLE_SECTIONS or len(key) != 3:
        return ""
    section, name, _ = key
    if (*key[:2], REMOVED_MARK) in origins:
        return f"; {origins[(*key[:2], REMOVED_MARK)]} removes {section}.{name}, so that it must be specified in full"
    others = [other for other in merged[section] if other != name]
    near = difflib.get_close_matches(name, others, n=1)
    hint = f", or `{near[0]}` instead of `{name}`" if near else ""
    like = near[0] if near else section.removesuffix("s").upper()
    is_likeable = section in ("methods", "tasks")
    return f"{hint}, or `{LIKE}: {like}` to take the other leaves from there" if is_likeable else hint


def _expectation(fault: Mapping[str, Any]) -> str:
    if fault["type"] in EXPECTED_VALUES:
        return EXPECTED_VALUES[fault["type"]].format(**fault.get("ctx", {}))
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _path_in_file(fault: Mapping[str, Any], merged: Mapping[str, Any]) -> Key:
    """The key of an error, without the names of union members that pydantic's locations contain."""
    key: list[str] = []
    value: Any = merged
    for part in fault["loc"]:
        if (isinstance(value, list) and isinstance(part, int)) or (isinstance(value, dict) and part in value):
            value = value[part]
            key.append(str(part))
    if fault["type"] == "missing":
        key.append(str(fault["loc"][-1]))
    return tuple(key)


def _keys_at(location: Iterable[str | int]) -> list[str]:
    """The keys of the section at a pydantic location."""
    return list(getattr(type_at(location), "model_fields", {}))


def _kinds_at(location: Iterable[str | int]) -> list[str]:
    """The allowed values of `kind` in the section at a pydantic location."""
    return [kind for member in members_of(type_at(location)) for kind in kinds_of(member)]

"""Reading a study: `config/config.yaml`, overlays that name their `base:`, and errors that name their file.

An overlay replaces leaves and lists and merges sections. `null` for a task, method, table or figure, or for what a
method says of a task, removes it; with a task goes what the methods say of it. A method with `like: OTHER` is the other
method, with what it says itself over it; `null` there removes what the other says of a task. Without a title of its own
it has the other's, with its name in parentheses.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from corelib.configuration import NAME, Contradiction, Study, shown
from corelib.errors import ConfigurationError
from corelib.shipped import load_shipped
from corelib.yaml_files import UnreadableYaml, read_yaml

PAPER = "paper"
"""The study that `config/config.yaml` itself is; its tables lie in `results/` and not in `results/paper/`."""

REMOVABLE = {
    ("tasks",),
    ("methods",),
    ("tables",),
    ("figures",),
    ("methods", "*", "length"),
    ("methods", "*", "anchors"),
}
"""Sections whose entries have names of the study's own choosing."""

EXPECTATIONS = {
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
"""What a fault of each pydantic type asks for, in words."""

LONGEST_SENTENCE = 2000
"""Characters of what is said of a fault, whatever the names in it are."""

PUBLISHED = (r"\w+", r"[\w-]+", r"[\w-]+", r"\w+", r"\d{1,3}(\.\d+)?", r"\d{0,9}", r"\d{0,9}")
"""What stands in a line of the paper's numbers."""

LIKE = "like"
"""The key of a method that takes the leaves of another, but for those that it says itself."""

REMOVED = "(removed)"
"""Behind a key, among the origins: the file that has removed it."""

Key = tuple[str, ...]


def load_study(name: str, folder: Path) -> Study:
    """The study `name` of a configuration folder, merged, typed and checked as a whole.

    Raises `ConfigurationError` with one sentence: file, key, value, expectation.
    """
    merged, origins = _merged(name, folder, seen=())
    file = study_file(name, folder)
    _spell_out_likes(merged, origins, file)
    try:
        study = Study.model_validate(merged)
    except Contradiction as contradiction:
        raise _complaint(tuple(contradiction.key.split(".")), str(contradiction), origins, file) from None
    except ValidationError as error:
        raise _complaint(*_fault(error, merged, origins), origins, file) from None
    known = dict.fromkeys(table for table, *_ in load_published(folder))
    for title, table in study.tables.items():
        if table.published is not None and table.published not in known:
            key = ("tables", title, "published")
            expected = f"null or a table of {folder / 'published.csv'}: {', '.join(known)}"
            raise _complaint(key, f"{'.'.join(key)} is {table.published!r}, expected {expected}", origins, file)
    if study.takes_shipped_world:
        _check_against_shipped(study, folder, origins, file)
    return study


def study_file(name: str, folder: Path) -> Path:
    """Where a study is written."""
    return folder / "config.yaml" if name == PAPER else folder / "studies" / f"{name}.yaml"


def study_names(folder: Path) -> list[str]:
    """Every study that can be asked for; the names become parts of paths."""
    found = sorted(file.stem for file in (folder / "studies").glob("*.yaml"))
    return [PAPER, *(name for name in found if NAME.fullmatch(name))]


def load_published(folder: Path) -> list[list[str]]:
    """The paper's numbers, as (table, task, row, metric, value, k, n)."""
    file = folder / "published.csv"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            _, *lines = csv.reader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise _error(file, f"not readable ({error}), expected the paper's numbers") from None
    for line in lines:
        if len(line) != len(PUBLISHED) or not all(re.fullmatch(*pair) for pair in zip(PUBLISHED, line, strict=True)):
            raise _error(file, f"{shown(line)}, expected table, task, row, metric, value, and k of n or neither")
    return lines


def leaves_of_world(study: Study) -> dict[str, Any]:
    """Every leaf on which a trained world depends, by its key: the world itself, and the words of the captions."""
    said = study.model_dump(mode="json", include={"world", "prompts"})
    return {key: leaf for key, leaf in _flat(said, ()) if key != "world.pretrained"}


def _flat(section: Mapping[str, Any], key: Key) -> Iterator[tuple[str, Any]]:
    for name, leaf in section.items():
        if isinstance(leaf, dict):
            yield from _flat(leaf, (*key, name))
        else:
            yield ".".join((*key, name)), leaf


def _check_against_shipped(study: Study, folder: Path, origins: Mapping[Key, Path], file: Path) -> None:
    """Raise `ConfigurationError` for the first leaf that is not the one the shipped world was trained with."""
    shipped = load_shipped(folder)["leaves"]
    for key, leaf in leaves_of_world(study).items():
        trained = shipped.get(key)
        if leaf != trained:
            raise _complaint(
                tuple(key.split(".")),
                f"{_difference(key, leaf, trained)}, with which the shipped world was trained "
                "(or world.pretrained: false, to train another one)",
                origins,
                file,
            )


def _difference(key: str, found: object, expected: object) -> str:
    """What differs, of two long lists the first entry that does."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected) > 3:
        place = next(place for place, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
        return f"{key} has {found[place]!r} as entry {place + 1}, expected {expected[place]!r}"
    if isinstance(found, list) and isinstance(expected, list) and len(expected) > 3:
        return f"{key} has {len(found)} entries, expected the {len(expected)}"
    return f"{key} is {shown(found)}, expected {shown(expected)}"


def _merged(name: str, folder: Path, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[Key, Path]]:
    """The leaves of a study over those of its base, and for each key the file that said it last."""
    file = study_file(name, folder)
    if (shadowed := folder / "studies" / f"{PAPER}.yaml").exists():
        raise _error(shadowed, f"the study {PAPER!r} is {study_file(PAPER, folder)}, expected another name")
    if name in seen:
        raise _error(study_file(seen[-1], folder), f"base is {name!r}, expected a study that is not built on this one")
    if name not in study_names(folder):
        known = f"expected one of {', '.join(study_names(folder))}"
        if seen:
            raise _error(study_file(seen[-1], folder), f"base is {name!r}, {known}")
        raise _no_such_study(name, folder, known)
    content = _read_yaml(file)
    base: dict[str, Any] = {}
    origins: dict[Key, Path] = {(): file}
    if name != PAPER:
        base_name = content.pop("base", PAPER)
        if not isinstance(base_name, str):
            raise _error(file, f"base is {shown(base_name)}, expected the name of a study")
        base, origins = _merged(base_name, folder, (*seen, name))
    merged = _overlaid(base, content, (), file, origins, {*_likes(base), *_likes(content)})
    tasks = _section(content, "tasks")
    for method in _section(merged, "methods"):
        for leaf in ("length", "anchors"):
            said = _section(merged["methods"], method).get(leaf)
            if isinstance(said, dict):
                merged["methods"][method][leaf] = {
                    task: value for task, value in said.items() if task not in tasks or tasks[task] is not None
                }
    return merged, origins


def _no_such_study(name: str, folder: Path, expected: str) -> ConfigurationError:
    """What is wrong with a study's name: a file's, a target's, one that cannot be part of a path, or another."""
    path = Path(name)
    if path.parts[:1] == ("results",):
        meant = next((part for part in path.parts[1:] if "." not in part), PAPER)
    else:
        meant = path.stem if path.suffix == ".yaml" else name
    if meant != name and meant in study_names(folder):
        return _error(folder / "studies", f"no study is called {name!r}, expected `{meant}`")
    if not NAME.fullmatch(name) and name in [file.stem for file in (folder / "studies").glob("*.yaml")]:
        expected = "expected a name of letters, digits, `_` and `-` alone, since it becomes part of paths"
    return _error(study_file(name, folder), f"there is no such study, {expected}")


def _likes(content: Mapping[str, Any]) -> list[str]:
    """The methods that are like another."""
    return [
        name for name, method in _section(content, "methods").items() if isinstance(method, dict) and LIKE in method
    ]


def _spell_out_likes(merged: dict[str, Any], origins: dict[Key, Path], study: Path) -> None:
    """Put in the place of a method that is `like:` another the other's leaves, with its own over them.

    Last of all, so that what an overlay says of the other holds for both.
    """
    methods = _section(merged, "methods")

    def spelt_out(name: str, seen: tuple[str, ...]) -> Any:
        method = methods[name]
        if not (isinstance(method, dict) and LIKE in method):
            return method
        key, like = ("methods", name), method[LIKE]
        others = [other for other in methods if other not in (*seen, name)]
        if like not in others:
            said = f"{'.'.join((*key, LIKE))} is {shown(like)}, expected another method: {', '.join(others)}"
            raise _complaint((*key, LIKE), said, origins, study)
        own = {leaf: value for leaf, value in method.items() if leaf != LIKE}
        other = spelt_out(like, (*seen, name))
        if not isinstance(other, dict):
            return other
        other = {**other, "title": f"{other.get('title')} ({name})"}
        return _overlaid(other, own, key, _origin((*key, LIKE), origins), origins)

    for name, method in {name: spelt_out(name, ()) for name in methods}.items():
        methods[name] = method


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = read_yaml(file)
    except UnreadableYaml as error:
        raise _error(error.place_in(file), f"not readable as YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _error(file, f"the whole file is {shown(content)}, expected sections such as `methods:`")
    return content


def _overlaid(
    base: Mapping[str, Any],
    overlay: Mapping[str, Any],
    key: Key,
    file: Path,
    origins: dict[Key, Path],
    likes: Collection[str] = (),
) -> dict[str, Any]:
    """A section with another over it; what a method of `likes` removes stays `null` until the other is known."""
    merged = dict(base)
    for name, value in overlay.items():
        here = (*key, name)
        below = merged.get(name)
        if isinstance(value, dict) and isinstance(below, dict) and not _is_another_kind(below, value):
            origins[here] = file
            merged[name] = _overlaid(below, value, here, file, origins, likes)
            continue
        removes = value is None and _is_removable(key, likes)
        if removes and name not in merged:
            nearest = _nearest(name, list(merged))
            raise _error(file, f"{'.'.join(here)} is null, which removes an entry, but there is none{nearest}")
        if isinstance(below, dict):
            for old in [old for old in origins if old[: len(here)] == here]:
                del origins[old]
        origins[here] = file
        if removes:
            origins[(*here, REMOVED)] = file
            del merged[name]
        else:
            merged[name] = _overlaid({}, value, here, file, origins, likes) if isinstance(value, dict) else value
    return merged


def _is_removable(key: Key, likes: Collection[str]) -> bool:
    if key in REMOVABLE:
        return True
    return key[:1] == ("methods",) and ("methods", "*", *key[2:]) in REMOVABLE and key[1] not in likes


def _is_another_kind(below: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a section is replaced rather than merged, since leaves of one kind mean nothing in another.

    So it is with sections that say their `kind:`, and with a length, which is either epochs or steps.
    """
    if "kind" in value:
        return bool(below.get("kind") != value["kind"])
    return {"epochs", "steps"} >= {*below, *value}


def _error(place: Path | str, what: str) -> ConfigurationError:
    """One sentence on one line, whatever the user's names and values contain."""
    said = "".join(mark if mark.isprintable() else "?" for mark in " ".join(f"{place}: {what}.".split()))
    return ConfigurationError(said if len(said) <= LONGEST_SENTENCE else f"{said[: LONGEST_SENTENCE - 4]}... .")


def _complaint(key: Key, what: str, origins: Mapping[Key, Path], study: Path) -> ConfigurationError:
    """What is wrong with a key, in the file that says it; if that is another one, for the sake of which study."""
    file = _origin(key, origins)
    return _error(file, what if file == study else f"{what}, for the study {study}")


def _origin(key: Key, origins: Mapping[Key, Path]) -> Path:
    """The file that says a key, or else the section where it is missing."""
    return next(origins[key[:length]] for length in range(len(key), -1, -1) if key[:length] in origins)


def _fault(error: ValidationError, merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> tuple[Key, str]:
    """The key of the first fault of a validation, and what is wrong there."""
    faults = [(_path_in_file(fault, merged), fault) for fault in error.errors(include_url=False)]
    faults.sort(key=lambda found: found[1]["type"] != "extra_forbidden")
    first = faults[0][0]
    # where several types may stand, the one that fits furthest is meant
    key = max((path for path, _ in faults if path[: len(first)] == first), key=len)
    alternatives = [fault for path, fault in faults if path == key]
    # a section, where a number might stand too, is wrong in its kind
    fault = next((fault for fault in alternatives if fault["type"].startswith("union_tag")), alternatives[0])
    name = ".".join(key)
    if fault["type"] == "extra_forbidden":
        return key, f"{name} is not a known key{_nearest(key[-1], _keys_at(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return key, f"{name} is missing, expected a value{_meant(key, merged, origins)}"
    if fault["type"] == "union_tag_not_found":
        return key, f"{name}.kind is missing, expected one of {', '.join(_kinds_at(fault['loc']))}"
    if fault["type"] == "union_tag_invalid":
        value, kinds = shown(fault["input"]["kind"]), ", ".join(_kinds_at(fault["loc"]))
        return (*key, "kind"), f"{name}.kind is {value}, expected one of {kinds}"
    expectations = dict.fromkeys(_expectation(fault) for fault in alternatives)
    if type(None) in _members(_type_at(fault["loc"])):
        expectations["null"] = None
    return key, f"{name} is {shown(fault['input'])}, expected {' or '.join(expectations)}"


def _meant(key: Key, merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> str:
    """What the user may have meant by a task, method, table or figure that lacks a leaf."""
    if key[:1] not in REMOVABLE or len(key) != 3:
        return ""
    section, name, _ = key
    if (*key[:2], REMOVED) in origins:
        return f"; {origins[(*key[:2], REMOVED)]} removes {section}.{name}, so that all of it has to be said anew"
    others = [other for other in merged[section] if other != name]
    near = difflib.get_close_matches(name, others, n=1)
    meant = f", or `{near[0]}` instead of `{name}`" if near else ""
    like = near[0] if near else "METHOD"
    return f"{meant}, or `{LIKE}: {like}` for all that it does not say" if section == "methods" else meant


def _expectation(fault: Mapping[str, Any]) -> str:
    if fault["type"] in EXPECTATIONS:
        return EXPECTATIONS[fault["type"]].format(**fault.get("ctx", {}))
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _path_in_file(fault: Mapping[str, Any], merged: Mapping[str, Any]) -> Key:
    """Where a fault lies, without the names of union members that pydantic's locations contain."""
    key: list[str] = []
    here: Any = merged
    for part in fault["loc"]:
        if (isinstance(here, list) and isinstance(part, int)) or (isinstance(here, dict) and part in here):
            here = here[part]
            key.append(str(part))
    if fault["type"] == "missing":
        key.append(str(fault["loc"][-1]))
    return tuple(key)


def _nearest(name: str, known: list[str]) -> str:
    """What the user may have meant by an unknown name."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f", expected `{near[0]}`"
    return f", expected one of {', '.join(known)}" if known else ""


def _keys_at(location: Iterable[str | int]) -> list[str]:
    """The keys of the section at a pydantic location."""
    return list(getattr(_type_at(location), "model_fields", {}))


def _kinds_at(location: Iterable[str | int]) -> list[str]:
    """What `kind` may be in the section at a pydantic location."""
    return [kind for member in _members(_type_at(location)) for kind in _kinds(member)]


def _type_at(location: Iterable[str | int]) -> Any:
    """The type that the configuration expects at a pydantic location."""
    here: Any = Study
    for part in location:
        here = _type_below(here, part)
    return here


def _type_below(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if part in _kinds(member) or part == getattr(member, "__name__", None):
            return member
        if part in getattr(member, "model_fields", {}):
            return member.model_fields[part].annotation
        if get_origin(member) in (list, dict):
            return get_args(member)[-1]
    return annotation


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, or a type itself."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation


def _kinds(member: Any) -> tuple[str, ...]:
    kind = getattr(member, "model_fields", {}).get("kind")
    return get_args(kind.annotation) if kind else ()

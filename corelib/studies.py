"""Reading a study: `config/config.yaml`, overlays that name their `base:`, and errors that name their file.

An overlay replaces leaves and lists and merges sections. `null` for a task, method, table or figure, or for what a
method says of a task, removes it; with a task goes what the methods say of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from corelib.configuration import Contradiction, Study
from corelib.errors import ConfigurationError

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

Key = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-5` is a number, as everyone expects, and a key that is written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
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


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def load_study(name: str, folder: Path) -> Study:
    """The study `name` of a configuration folder, merged, typed and checked as a whole.

    Raises `ConfigurationError` with one sentence: file, key, value, expectation.
    """
    merged, origins = _merged(name, folder, seen=())
    try:
        return Study.model_validate(merged)
    except Contradiction as contradiction:
        origin = _origin(tuple(contradiction.key.split(".")), origins)
        raise ConfigurationError(f"{origin}: {contradiction}.") from None
    except ValidationError as error:
        raise ConfigurationError(_sentence(error, merged, origins)) from None


def study_file(name: str, folder: Path) -> Path:
    """Where a study is written."""
    return folder / "config.yaml" if name == PAPER else folder / "studies" / f"{name}.yaml"


def study_names(folder: Path) -> list[str]:
    """Every study that can be asked for."""
    return [PAPER, *sorted(file.stem for file in (folder / "studies").glob("*.yaml"))]


def _merged(name: str, folder: Path, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[Key, Path]]:
    """The leaves of a study over those of its base, and for each key the file that said it last."""
    file = study_file(name, folder)
    if name in seen:
        raise ConfigurationError(f"{file}: base is {name!r}, expected a study that is not built on this one.")
    if not file.is_file():
        asked_by = f"{study_file(seen[-1], folder)}: base is {name!r}" if seen else f"{file}: there is no such study"
        raise ConfigurationError(f"{asked_by}, expected one of {', '.join(study_names(folder))}.")
    content = _read_yaml(file)
    if name == PAPER:
        base, origins = {}, {}
    else:
        base_name = content.pop("base", PAPER)
        if not isinstance(base_name, str):
            raise ConfigurationError(f"{file}: base is {base_name!r}, expected the name of a study.")
        base, origins = _merged(base_name, folder, (*seen, name))
    merged = _overlaid(base, content, (), file, origins)
    tasks = _section(content, "tasks")
    for method in _section(merged, "methods"):
        for leaf in ("length", "anchors"):
            said = _section(merged["methods"], method).get(leaf)
            if isinstance(said, dict):
                merged["methods"][method][leaf] = {
                    task: value for task, value in said.items() if task not in tasks or tasks[task] is not None
                }
    return merged, origins


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}{where}: not readable as YAML: {error.problem}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file}: not readable as YAML: {error}.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: the whole file is {content!r:.60}, expected sections such as `methods:`.")
    return content


def _overlaid(
    base: Mapping[str, Any], overlay: Mapping[str, Any], key: Key, file: Path, origins: dict[Key, Path]
) -> dict[str, Any]:
    merged = dict(base)
    for name, value in overlay.items():
        here = (*key, name)
        origins[here] = file
        below = merged.get(name)
        if isinstance(value, dict) and isinstance(below, dict) and not _is_another_kind(below, value):
            merged[name] = _overlaid(below, value, here, file, origins)
        elif value is None and _is_removable(key):
            merged.pop(name, None)
        else:
            merged[name] = _overlaid({}, value, here, file, origins) if isinstance(value, dict) else value
    return merged


def _is_removable(key: Key) -> bool:
    return key in REMOVABLE or (key[:1] == ("methods",) and ("methods", "*", *key[2:]) in REMOVABLE)


def _is_another_kind(below: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a section is replaced rather than merged, since leaves of one kind mean nothing in another.

    So it is with sections that say their `kind:`, and with a length, which is either epochs or steps.
    """
    if "kind" in value:
        return bool(below.get("kind") != value["kind"])
    return {"epochs", "steps"} >= {*below, *value}


def _origin(key: Key, origins: Mapping[Key, Path]) -> Path | str:
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return "config/config.yaml"


def _sentence(error: ValidationError, merged: Mapping[str, Any], origins: Mapping[Key, Path]) -> str:
    """The first fault of a validation in one sentence."""
    fault = min(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    key = _path_in_file(fault["loc"], merged)
    file = _origin(key, origins)
    name = ".".join(key)
    if fault["type"] == "extra_forbidden":
        return f"{file}: {name} is not a known key{_nearest(key, fault['loc'])}."
    if fault["type"] == "missing":
        return f"{file}: {name} is missing, expected a value."
    expected = fault["msg"]
    for prefix in ("Input should be ", "Value error, ", "Input tag "):
        expected = expected.removeprefix(prefix)
    if fault["type"] == "union_tag_invalid":
        name += ".kind"
        expected = f"one of {fault['ctx']['expected_tags']}"
        return f"{file}: {name} is {fault['ctx']['tag']!r}, expected {expected}."
    if fault["type"] == "union_tag_not_found":
        return f"{file}: {name} has no `kind`, expected one."
    value = repr(fault["input"])
    return f"{file}: {name} is {value if len(value) <= 80 else value[:77] + '...'}, expected {expected}."


def _path_in_file(location: Iterable[str | int], merged: Mapping[str, Any]) -> Key:
    """A pydantic location without the names of union members, which stand in no file."""
    key: list[str] = []
    here: Any = merged
    parts = list(location)
    for position, part in enumerate(parts):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, dict) and part in here:
            here = here[part]
        elif position < len(parts) - 1 or not isinstance(here, dict):
            continue
        key.append(str(part))
    return tuple(key)


def _nearest(key: Key, location: Iterable[str | int]) -> str:
    """What the user may have meant by an unknown key."""
    model: Any = Study
    for part in list(location)[:-1]:
        model = _below(model, part)
    fields = list(getattr(model, "model_fields", {}))
    if near := difflib.get_close_matches(key[-1], fields, n=1):
        return f", expected `{near[0]}`"
    return f", expected one of {', '.join(fields)}" if fields else ""


def _below(model: Any, part: str | int) -> Any:
    """The section that a part of a pydantic location leads to, or None."""
    from typing import get_args

    fields = getattr(model, "model_fields", None)
    annotation = fields[part].annotation if fields and part in fields else model
    if fields and part not in fields:
        return model
    candidates = [annotation]
    while candidates:
        candidate = candidates.pop()
        if hasattr(candidate, "model_fields"):
            kind = candidate.model_fields.get("kind")
            if kind is None or part in fields or part in get_args(kind.annotation):  # type: ignore[operator]
                return candidate
        candidates.extend(get_args(candidate))
    return None

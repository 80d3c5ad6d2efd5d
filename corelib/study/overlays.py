"""Overlays: the leaves of a study override those of its base, and methods and tasks may be `like:` another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from corelib.errors import ConfigurationError
from corelib.files.yaml_files import UnreadableYaml, parse_yaml, read_yaml
from corelib.study.indentation import Key, indentation_advice, keys_beside
from corelib.study.schema import NAME, Study
from corelib.study.study_files import (
    PAPER,
    PRESETS,
    misnamed_study_file,
    misplaced_study_file,
    preset_file,
    preset_names,
    study_file,
    study_names,
)
from corelib.study.wording import error_in, expected_one_of, nearest_first, suggest_name, to_yaml

NAMED_SECTIONS = [name for name, field in Study.model_fields.items() if get_origin(field.annotation) is dict]
"""The sections of a study whose entries have names that the study chooses, such as `tasks`."""

REMOVABLE_SECTIONS = {
    *((name,) for name in NAMED_SECTIONS),
    ("methods", "*", "length"),
    ("methods", "*", "anchors"),
    ("models", "*", "weights"),
}
"""All sections whose entries a study can remove."""

WITH_ANCHORS = ("methods", "baselines")
"""Sections whose entries have anchors, and perhaps a length, for each task."""

LIKE = "like"
"""The key of a method or task that takes the leaves of another, except for its own."""

REMOVED_MARK = "(removed)"
"""Appended to a key in the origins: the file that removed the key."""


def merge_study(
    name: str, folder: Path, seen: tuple[str, ...], text: str | None = None
) -> tuple[dict[str, Any], dict[Key, Path]]:
    """The leaves of a study merged over those of its base, and for each key the file that set it last.

    `text` is the content of a study's file that is not written yet.
    """
    is_preset = bool(seen) and name in preset_names(folder) and name not in study_names(folder)
    file = preset_file(name, folder) if is_preset else study_file(name, folder)
    if (shadowed := folder / "studies" / f"{PAPER}.yaml").exists():
        raise error_in(shadowed, f"the study {PAPER!r} is {study_file(PAPER, folder)}, expected another name")
    if name in seen:
        raise error_in(
            study_file(seen[-1], folder), f"base is {name!r}, expected a study that is not built on this one"
        )
    if text is None and name not in study_names(folder) and not is_preset:
        known = expected_one_of(name, [*study_names(folder), *(preset_names(folder) if seen else [])])
        if seen:
            misplaced = _where_misplaced(name, folder)
            raise error_in(study_file(seen[-1], folder), f"base is {name!r}, {misplaced or known}")
        raise _no_such_study(name, folder, known)
    content = read_study_file(file, text)
    base: dict[str, Any] = {}
    origins: dict[Key, Path] = {(): file}
    if name != PAPER:
        base_name = content.pop("base", PAPER)
        if not isinstance(base_name, str):
            raise error_in(file, f"base is {to_yaml(base_name)}, expected the name of a study")
        base, origins = merge_study(base_name, folder, (*seen, name))
    merged = _overlaid(base, content, (), file, origins, {*_likes(base), *_likes(content)})
    tasks = _section(content, "tasks")
    for entry in [entry for section in WITH_ANCHORS for entry in _section(merged, section).values()]:
        for leaf in ("length", "anchors"):
            entries = entry.get(leaf) if isinstance(entry, dict) else None
            if isinstance(entries, dict):
                entry[leaf] = {
                    task: value for task, value in entries.items() if task not in tasks or tasks[task] is not None
                }
    return merged, origins


def _no_such_study(name: str, folder: Path, expected: str) -> ConfigurationError:
    """The error for a study's name that is a file's or a target's, cannot be part of a path, or is unknown."""
    path = Path(name)
    if path.parts[:1] == ("results",):
        meant = next((part for part in path.parts[1:] if "." not in part), PAPER)
    else:
        meant = path.stem if path.suffix in (".yaml", ".yml") else name
    if (misnamed := misnamed_study_file(meant, folder)) is not None:
        return error_in(misnamed, f"the file of a study ends in .yaml, expected the name {meant}.yaml; rename it")
    meant = next((known for known in study_names(folder) if known.lower() == meant.lower()), meant)
    meant = PAPER if meant == study_file(PAPER, folder).stem else meant
    if meant != name and meant in study_names(folder):
        return error_in(folder / "studies", f"no study is called {name!r}, expected `{meant}`")
    if not NAME.fullmatch(name) and name in [file.stem for file in (folder / "studies").glob("*.yaml")]:
        expected = "expected a name of letters, digits, `_` and `-` only, since it becomes part of paths"
    if misplaced := _where_misplaced(meant, folder, path):
        return error_in(study_file(meant, folder), f"there is no such study, {misplaced}")
    if meant in preset_names(folder):
        expected = f"expected a study on it: {meant} is a preset, which is no study but may be the `base:` of one"
    return error_in(study_file(name, folder), f"there is no such study, {expected}")


def _where_misplaced(name: str, folder: Path, given: Path = Path()) -> str | None:
    """The continuation of an error about an unknown study whose file is in another folder."""
    found = misplaced_study_file(name, folder, given)
    if found is None:
        return None
    file, place = found
    return f"but {file} exists, expected it to be {place}; move it there"


def _likes(content: Mapping[str, Any]) -> list[str]:
    """The methods with the key `like:`."""
    return [
        name for name, method in _section(content, "methods").items() if isinstance(method, dict) and LIKE in method
    ]


def resolve_likes(merged: dict[str, Any], origins: dict[Key, Path], study: Path) -> None:
    """Replace each method or task that is `like:` another by the other's leaves, overridden with its own.

    A task also takes the methods' entries for the other task, if a method has none for it. This is done after all
    merging, so that an overlay's changes to the other method or task hold for both.
    """
    _resolve_section("methods", merged, origins, study)
    liked = {
        name: task[LIKE] for name, task in _section(merged, "tasks").items() if isinstance(task, dict) and LIKE in task
    }
    _resolve_section("tasks", merged, origins, study)
    for name in liked:
        both = [(section, *item) for section in WITH_ANCHORS for item in _section(merged, section).items()]
        for section, method_name, method in both:
            for leaf in ("length", "anchors"):
                entries = _section(method, leaf) if isinstance(method, dict) else {}
                other = name
                while other not in entries and other in liked:
                    other = liked[other]
                if other in entries and name not in entries:
                    entries[name] = entries[other]
                    key = (section, method_name, leaf)
                    origins[(*key, name)] = origin_of((*key, other), origins)


def _resolve_section(section: str, merged: dict[str, Any], origins: dict[Key, Path], study: Path) -> None:
    entries = _section(merged, section)

    def resolved(name: str, seen: tuple[str, ...]) -> Any:
        entry = entries[name]
        if not (isinstance(entry, dict) and LIKE in entry):
            return entry
        key, like = (section, name), entry[LIKE]
        others = [other for other in entries if other not in (*seen, name)]
        if like not in others:
            expected = f"expected another {section.removesuffix('s')}: {', '.join(nearest_first(str(like), others))}"
            fault = f"{'.'.join((*key, LIKE))} is {to_yaml(like)}, {expected}"
            raise error_for_key((*key, LIKE), fault, origins, study)
        overrides = {leaf: value for leaf, value in entry.items() if leaf != LIKE}
        other = resolved(like, (*seen, name))
        if not isinstance(other, dict):
            return other
        if section == "methods":
            other = {**other, "title": f"{other.get('title')} ({name})"}
        together = _overlaid(other, overrides, key, origin_of((*key, LIKE), origins), origins)
        for tail in _leaf_keys(other):
            origins.setdefault((*key, *tail), origin_of((section, like, *tail), origins))
        return together

    for name, entry in {name: resolved(name, ()) for name in entries}.items():
        entries[name] = entry


def _leaf_keys(section: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of all leaves of a section."""
    for name, value in section.items():
        yield from ((name, *key) for key in _leaf_keys(value)) if isinstance(value, dict) else [(name,)]


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def read_study_file(file: Path, text: str | None = None) -> dict[str, Any]:
    """The sections of a study's file, or of the text of one that is not written yet.

    Raises `ConfigurationError` if it is not readable or has no sections.
    """
    try:
        content = read_yaml(file) if text is None else parse_yaml(text)
    except UnreadableYaml as error:
        raise error_in(error.location_in(file), f"not readable as YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error_in(file, f"the whole file is {to_yaml(content)}, expected sections such as `methods:`")
    return content


def _overlaid(
    base: Mapping[str, Any],
    overlay: Mapping[str, Any],
    key: Key,
    file: Path,
    origins: dict[Key, Path],
    likes: Collection[str] = (),
) -> dict[str, Any]:
    """A section with an overlay merged over it.

    An entry that a method of `likes` removes stays `null` until `resolve_likes` resolves the method.
    """
    merged = dict(base)
    for name, value in overlay.items():
        full_key = (*key, name)
        base_value = merged.get(name)
        if isinstance(value, dict) and isinstance(base_value, dict) and not _is_another_kind(base_value, value):
            origins[full_key] = file
            merged[name] = _overlaid(base_value, value, full_key, file, origins, likes)
            continue
        removes = value is None and _is_removable(key, likes)
        if removes and name not in merged:
            if names := keys_beside(overlay, key, name):
                advice = indentation_advice(name, names)
                raise error_in(file, f"{'.'.join(full_key)} is null, expected a section of keys; {advice}")
            nearest = suggest_name(name, list(merged))
            raise error_in(file, f"{'.'.join(full_key)} is null, which removes an entry, but there is none{nearest}")
        if isinstance(base_value, dict):
            for old in [old for old in origins if old[: len(full_key)] == full_key]:
                del origins[old]
        origins[full_key] = file
        if removes:
            origins[(*full_key, REMOVED_MARK)] = file
            del merged[name]
        else:
            merged[name] = _overlaid({}, value, full_key, file, origins, likes) if isinstance(value, dict) else value
    return merged


def _is_removable(key: Key, likes: Collection[str]) -> bool:
    if key in REMOVABLE_SECTIONS:
        return True
    return key[:1] == ("methods",) and ("methods", "*", *key[2:]) in REMOVABLE_SECTIONS and key[1] not in likes


def _is_another_kind(base_value: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a section is replaced rather than merged, since the leaves of one kind mean nothing in another.

    This holds for sections with another `kind:`, and for a length, which is either epochs or steps.
    """
    if "kind" in value:
        return bool(base_value.get("kind") != value["kind"])
    return {"epochs", "steps"} >= {*base_value, *value}


def error_for_key(key: Key, fault: str, origins: Mapping[Key, Path], study: Path) -> ConfigurationError:
    """The error for a key of a study: the study's file, the fault, and the file that sets the key, if it is another."""
    return error_for_keys([(key, fault)], origins, study)


MAX_FAULTS = 8
"""Maximum number of faults in one message."""


def error_for_keys(faults: Sequence[tuple[Key, str]], origins: Mapping[Key, Path], study: Path) -> ConfigurationError:
    """One error for several keys of a study and their faults; a study may override what its base sets."""
    described = []
    faults = list(dict.fromkeys(faults))
    for key, fault in faults[:MAX_FAULTS]:
        file = origin_of(key, origins)
        described.append(fault if file == study or file.parent.name == PRESETS else f"{fault} (set in {file})")
    if len(faults) > MAX_FAULTS:
        described.append(f"and {len(faults) - MAX_FAULTS} more")
    return error_in(study, "; ".join(described))


def origin_of(key: Key, origins: Mapping[Key, Path]) -> Path:
    """The file that sets a key; for a missing key, the file of the nearest section that contains it."""
    return next(origins[key[:length]] for length in range(len(key), -1, -1) if key[:length] in origins)

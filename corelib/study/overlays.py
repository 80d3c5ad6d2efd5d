"""Overlays: a study's leaves over those of its base, and methods that are `like:` another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from corelib.errors import ConfigurationError
from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.study.schema import NAME
from corelib.study.wording import error_in, shown, suggestion

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

LIKE = "like"
"""The key of a method that takes the leaves of another, but for those that it says itself."""

REMOVED = "(removed)"
"""Behind a key, among the origins: the file that has removed it."""

Key = tuple[str, ...]


def study_file(name: str, folder: Path) -> Path:
    """Where a study is written."""
    return folder / "config.yaml" if name == PAPER else folder / "studies" / f"{name}.yaml"


def study_names(folder: Path) -> list[str]:
    """Every study that can be asked for; the names become parts of paths."""
    found = sorted(file.stem for file in (folder / "studies").glob("*.yaml"))
    return [PAPER, *(name for name in found if NAME.fullmatch(name))]


def merged_leaves(name: str, folder: Path, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[Key, Path]]:
    """The leaves of a study over those of its base, and for each key the file that said it last."""
    file = study_file(name, folder)
    if (shadowed := folder / "studies" / f"{PAPER}.yaml").exists():
        raise error_in(shadowed, f"the study {PAPER!r} is {study_file(PAPER, folder)}, expected another name")
    if name in seen:
        raise error_in(
            study_file(seen[-1], folder), f"base is {name!r}, expected a study that is not built on this one"
        )
    if name not in study_names(folder):
        known = f"expected one of {', '.join(study_names(folder))}"
        if seen:
            raise error_in(study_file(seen[-1], folder), f"base is {name!r}, {known}")
        raise _no_such_study(name, folder, known)
    content = _read_yaml(file)
    base: dict[str, Any] = {}
    origins: dict[Key, Path] = {(): file}
    if name != PAPER:
        base_name = content.pop("base", PAPER)
        if not isinstance(base_name, str):
            raise error_in(file, f"base is {shown(base_name)}, expected the name of a study")
        base, origins = merged_leaves(base_name, folder, (*seen, name))
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
        return error_in(folder / "studies", f"no study is called {name!r}, expected `{meant}`")
    if not NAME.fullmatch(name) and name in [file.stem for file in (folder / "studies").glob("*.yaml")]:
        expected = "expected a name of letters, digits, `_` and `-` alone, since it becomes part of paths"
    return error_in(study_file(name, folder), f"there is no such study, {expected}")


def _likes(content: Mapping[str, Any]) -> list[str]:
    """The methods that are like another."""
    return [
        name for name, method in _section(content, "methods").items() if isinstance(method, dict) and LIKE in method
    ]


def spell_out_likes(merged: dict[str, Any], origins: dict[Key, Path], study: Path) -> None:
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
            raise error_at((*key, LIKE), said, origins, study)
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
        raise error_in(error.place_in(file), f"not readable as YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error_in(file, f"the whole file is {shown(content)}, expected sections such as `methods:`")
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
            nearest = suggestion(name, list(merged))
            raise error_in(file, f"{'.'.join(here)} is null, which removes an entry, but there is none{nearest}")
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


def error_at(key: Key, what: str, origins: Mapping[Key, Path], study: Path) -> ConfigurationError:
    """What is wrong with a key, in the file that says it; if that is another one, for the sake of which study."""
    file = _origin(key, origins)
    return error_in(file, what if file == study else f"{what}, for the study {study}")


def _origin(key: Key, origins: Mapping[Key, Path]) -> Path:
    """The file that says a key, or else the section where it is missing."""
    return next(origins[key[:length]] for length in range(len(key), -1, -1) if key[:length] in origins)

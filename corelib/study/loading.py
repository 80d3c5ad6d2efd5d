"""Loading of a study and of its plan.

A study is `config/config.yaml` and overlays that name their `base:`, another study or a preset; every error names the
file of its key.

An overlay replaces leaves and lists, and merges sections. `null` removes a task, a method, a table, a figure, or a
method's entry for a task. Removing a task also removes the methods' entries for it. A method with `like: OTHER` takes
the leaves of the other method and overrides them with its own; `null` there removes the other's entry for a task.
Without a title of its own it has the other's title, with its own name in parentheses. A task with `like: OTHER` takes
the leaves of the other task, and the methods' entries for that task unless they have their own.
"""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import ValidationError

from corelib.runs.layout import MANIFEST, RUN, RUNS, SPECIFICATION
from corelib.study.claims import load_claims
from corelib.study.consistency import find_inconsistencies
from corelib.study.overlays import LIKE, error_for_key, error_for_keys, merge_study, read_study_file, resolve_likes
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.study.ranges import find_beyond_range, find_impossible_numbers
from corelib.study.schema import Study
from corelib.study.shipped_world import check_against_shipped, load_shipped
from corelib.study.study_files import PAPER, study_file, workflow_folder
from corelib.study.validation_errors import describe_errors
from corelib.worlds.assets.asset_lock import read_lock


def load_study(name: str, folder: Path, text: str | None = None) -> Study:
    """Load the study `name` of a configuration folder: merge, type and check all of it.

    `text` is the content of its file if the file is not written yet.
    Raises `ConfigurationError` with one sentence: file, key, value, expectation; for several keys, one after another.
    """
    merged, origins = merge_study(name, folder, seen=(), text=text)
    file = study_file(name, folder)
    resolve_likes(merged, origins, file)
    try:
        study = Study.model_validate(merged)
    except ValidationError as error:
        read = functools.cache(lambda one: read_study_file(one, text if one == file else None))
        faults = describe_errors(error, merged, origins, read)
        raise error_for_keys(faults, origins, file) from None
    if inconsistencies := find_inconsistencies(study):
        keys = {one.key for one in inconsistencies}
        inconsistencies += [one for one in find_impossible_numbers(study) if one.key not in keys]
    if contradictions := inconsistencies or list(find_beyond_range(study)):
        raise error_for_keys([(tuple(one.key.split(".")), str(one)) for one in contradictions], origins, file)
    known = dict.fromkeys(table for table, *_ in load_published(workflow_folder(folder)))
    for title, table in study.tables.items():
        if table.published is not None and table.published not in known:
            key = ("tables", title, "published")
            expected = f"null or a table of {workflow_folder(folder) / 'published.csv'}: {', '.join(known)}"
            raise error_for_key(key, f"{'.'.join(key)} is {table.published!r}, expected {expected}", origins, file)
    if study.takes_shipped_world:
        check_against_shipped(study, workflow_folder(folder), origins, file)
    return study


def base_of(name: str, folder: Path) -> str | None:
    """The study on which a study is built; None for the paper's."""
    if name == PAPER:
        return None
    return str(read_study_file(study_file(name, folder)).get("base", PAPER))


def liked_method(name: str, method: str, folder: Path) -> str | None:
    """The method that a method of a study is `like:`; None if it is like none."""
    merged, _ = merge_study(name, folder, seen=())
    leaves = merged.get("methods", {}).get(method)
    return leaves.get(LIKE) if isinstance(leaves, dict) else None


def load_plan(name: str, folder: Path) -> Plan:
    """Load the study `name` of a configuration folder and plan its runs.

    The plan has the shipped record, the asset lock and the claims of that folder, and the slugs of the runs that exist
    in `runs/`.
    Raises `ConfigurationError` for a study that cannot be planned.
    """
    study = load_study(name, folder)
    shipped = load_shipped(workflow_folder(folder)) if study.takes_shipped_world else None
    uses_lock = study.world.kind != "miniature" or bool(study.models)
    locked = read_lock(folder).sha256 if uses_lock else None
    return Plan(
        name,
        study,
        load_published(workflow_folder(folder)),
        shipped,
        locked,
        _slugs_by_digest(),
        load_claims(workflow_folder(folder)),
        is_built=lambda run: run.manifest.exists(),
    )


def _slugs_by_digest() -> dict[tuple[str, str], str]:
    """The slugs of the runs in `runs/`, by stage and abbreviated digest.

    Equal runs may have been planned under several names: the first complete one counts, or else the first.
    """
    slugs: dict[tuple[str, str], str] = {}
    folders = sorted(RUNS.glob("*/*"), key=lambda folder: (not (folder / MANIFEST).exists(), folder))
    for folder in folders:
        if RUN.fullmatch(folder.relative_to(RUNS).as_posix()) and (folder / SPECIFICATION).exists():
            slug, _, digest = folder.name.rpartition("-")
            slugs.setdefault((folder.parent.name, digest), slug)
    return slugs

"""Types that the schema of a study expects at a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from corelib.study.schema import Study


def type_at(location: Iterable[str | int]) -> Any:
    """The type at a key of a study, or at a pydantic location, which also contains the names of union members."""
    annotation: Any = Study
    for part in location:
        annotation = _type_below(annotation, part)
    return annotation


def _type_below(annotation: Any, part: str | int) -> Any:
    for member in members_of(annotation):
        if part in kinds_of(member) or part == getattr(member, "__name__", None):
            return member
        if part in getattr(member, "model_fields", {}):
            return member.model_fields[part].annotation
        if get_origin(member) in (list, dict):
            return get_args(member)[-1]
    return annotation


def members_of(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from members_of(member)
    elif get_origin(annotation) is Annotated:
        yield from members_of(get_args(annotation)[0])
    else:
        yield annotation


def kinds_of(member: Any) -> tuple[str, ...]:
    """The allowed values of `kind` in a section."""
    kind = getattr(member, "model_fields", {}).get("kind")
    return get_args(kind.annotation) if kind else ()

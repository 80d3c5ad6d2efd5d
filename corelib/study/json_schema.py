"""The JSON schema of a study's file, with which editors complete and check it.

A file is an overlay: every key may be absent, and `null` removes an entry whose name the study chooses. The types,
ranges and values are those of `corelib.study.schema`; the descriptions are those in the docstrings of the models. What
depends on several leaves is checked only when the study is read (`corelib.study.consistency`).
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from corelib.files.docstrings import parse_docstring
from corelib.runs.stage_registry import PRODUCTS
from corelib.settings.section import Section
from corelib.study.overlays import LIKE, NAMED_SECTIONS, REMOVABLE_SECTIONS
from corelib.study.schema import NAME, Study

NAMES = {section: PRODUCTS[section].names for section in NAMED_SECTIONS if section in PRODUCTS}
"""Patterns of the names in sections whose entries are products; other names have the pattern `NAME`."""

BASE = "The study that this file overlays: a name, such as mini; the paper's study by default."

LIKE_DESCRIPTION = "Another {kind}, whose entries this {kind} takes, except for its own."

REMOVED = " null removes the entry of the base."

Schema = dict[str, Any]


def overlay_schema() -> Schema:
    """The JSON schema of a study's file."""
    schema = Study.model_json_schema(schema_generator=_WithoutTitles)
    definitions: dict[str, Schema] = schema["$defs"]
    models = {model.__name__: model for model in _models(Section)}
    for name, definition in definitions.items():
        _describe(definition, models[name])
    _describe(schema, Study)
    for path in sorted(REMOVABLE_SECTIONS):
        _make_removable(_section_at(schema, path, definitions), NAMES.get(path[0], NAME.pattern))
    name_schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    for kind in ("Method", "Task"):
        description = LIKE_DESCRIPTION.format(kind=kind.lower())
        definitions[kind]["properties"][LIKE] = {**name_schema, "description": description}
    schema["properties"] = {"base": {**name_schema, "description": BASE}, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Study", **_as_overlay(schema)}


class _WithoutTitles(GenerateJsonSchema):
    """Omits the titles that pydantic makes from the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _models(base: type[Section]) -> list[type[Section]]:
    return [model for direct in base.__subclasses__() for model in (direct, *_models(direct))]


def _describe(definition: Schema, model: type[Section]) -> None:
    """Put the descriptions of a model's docstring, and of those of its bases, into its schema."""
    definition["description"] = parse_docstring(model.__doc__).text
    definition.pop("title", None)
    for base in reversed(model.__mro__):
        for name, description in parse_docstring(base.__doc__).attributes.items():
            if name in definition["properties"] and issubclass(base, Section):
                definition["properties"][name]["description"] = _sentence(description)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].removesuffix('.')}."


def _section_at(schema: Schema, path: tuple[str, ...], definitions: dict[str, Schema]) -> Schema:
    """The schema of the section at a path, in which `*` stands for the names that the study chooses."""
    for part in path:
        schema = definitions[schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
        schema = schema["additionalProperties"] if part == "*" else schema["properties"][part]
    return schema


def _make_removable(section: Schema, pattern: str) -> None:
    """Allow `null` as an entry of a section, and only names that can be part of a path."""
    section["propertyNames"] = {"pattern": f"^{pattern}$"}
    section["x-removable"] = True  # resolved in `_as_overlay`, so that the sections inside are found before


def _as_overlay(schema: Any) -> Any:
    """The schema with every key optional; the `kind` of a section may be that of the base."""
    if isinstance(schema, list):
        return [_as_overlay(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema and isinstance(schema["enum"], list):
        return schema
    overlay = {
        {"oneOf": "anyOf"}.get(key, key): _as_overlay(part)
        for key, part in schema.items()
        if key not in ("required", "discriminator", "default", "x-removable")
    }
    if schema.get("x-removable"):
        overlay["additionalProperties"] = {"anyOf": [overlay["additionalProperties"], {"type": "null"}]}
        overlay["description"] = f"{overlay.get('description', '')}{REMOVED}".strip()
    return overlay

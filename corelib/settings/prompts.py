"""Prompts for concepts; a concept is a style and an object, or one of the user's concepts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import field_validator

from corelib.settings.section import Section

EMPTY_CONCEPT = ""
"""Style name that stands for the empty prompt: the anchor may be no concept at all (Appendix C, ESD)."""

VARIANT = re.compile(r"prompt([1-9][0-9]{0,3})")
"""The name of a prompt of `Prompts.evaluation` in grids and file names; they take the place of objects there."""


def variant_names(count: int) -> list[str]:
    """The names of the prompts of a list: prompt1, prompt2 and so on."""
    return [f"prompt{number}" for number in range(1, count + 1)]


class Wording(Section):
    """Rule that turns a style and an object into a prompt, in training or in evaluation.

    Attributes:
        template: text with the fields `{object}` and `{style}`; `{concept}` is the same as `{style}`. Underscores in
            names become spaces.
        names: words for styles in prompts, where they are not the style's name.
        variants: the prompts of each style (a mapping), or of all (a list of templates), which objects called `prompt1`
            and so on stand for; empty if there are none.
    """

    template: str
    names: dict[str, str]
    variants: list[str] | dict[str, list[str]]

    def words(self, style: str) -> str:
        """The words for a style in prompts."""
        return self.names.get(style, style.replace("_", " "))

    def prompt(self, style: str, object_: str) -> str:
        """The prompt of a concept; the empty concept has the empty prompt."""
        if style == EMPTY_CONCEPT:
            return ""
        name, template = self.words(style), self.template
        if self.variants and (match := VARIANT.fullmatch(object_)):
            templates = self.variants[style] if isinstance(self.variants, dict) else self.variants
            template = templates[int(match[1]) - 1]
        return template.format(object=object_.replace("_", " "), style=name, concept=name)


class Prompts(Section):
    """Names of concepts in prompts (protocol: dataset, and "prompt for Seed_Images").

    Attributes:
        template: as in `Wording`: the captions of training images, and the prompts of sampled ones.
        photo_style: the style of the photos that the other styles were painted from; None if there is none.
        photo_in_training: name of the photo style in captions.
        photo_in_evaluation: name of the photo style in the prompts of sampled images.
        names: words for styles in prompts, where they are not the style's name.
        evaluation: prompts of sampled images, in a world without objects: a list of templates for all concepts, or a
            list for each; None for `template`.
    """

    template: str
    photo_style: str | None
    photo_in_training: str | None
    photo_in_evaluation: str | None
    names: dict[str, str]
    evaluation: list[str] | dict[str, list[str]] | None

    @field_validator("template")
    @classmethod
    def _check_fields(cls, template: str) -> str:
        if (fields := fields_of(template)) is None or not {"style", "concept"} & fields:
            raise ValueError("a text with the fields {object} and {style} (or {concept}) and no others")
        return template

    @field_validator("evaluation")
    @classmethod
    def _check_evaluation(
        cls, evaluation: list[str] | dict[str, list[str]] | None
    ) -> list[str] | dict[str, list[str]] | None:
        lists = evaluation.values() if isinstance(evaluation, dict) else [evaluation or []]
        for templates in lists:
            for template in templates:
                if (fields := fields_of(template)) is None or "object" in fields:
                    raise ValueError("texts that may have the field {concept} and no others")
        return evaluation

    @property
    def variants(self) -> list[str]:
        """The names of the prompts of `evaluation`; of `template` alone, if there is no list."""
        lists = list(self.evaluation.values()) if isinstance(self.evaluation, dict) else [self.evaluation or [""]]
        return variant_names(min(map(len, lists), default=0))

    @property
    def in_training(self) -> Wording:
        """Wording of captions."""
        return Wording(template=self.template, names=self._names(self.photo_in_training), variants=[])

    @property
    def in_evaluation(self) -> Wording:
        """Wording of the prompts of sampled images."""
        names = self._names(self.photo_in_evaluation)
        return Wording(template=self.template, names=names, variants=self.evaluation or [])

    def _names(self, photo_name: str | None) -> dict[str, str]:
        if self.photo_style is None or photo_name is None:
            return self.names
        return {**self.names, self.photo_style: photo_name}


def fields_of(template: str) -> set[str] | None:
    """The fields of a template; None if it is not one, or has unknown fields."""
    known: Sequence[str] = ("object", "style", "concept")
    marks = {name: f"\0{name}\0" for name in known}
    try:
        text = template.format(**marks)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        return None
    return {name for name, mark in marks.items() if mark in text}

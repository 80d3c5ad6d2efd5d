"""Prompts for concepts; a concept is a style and an object."""

from __future__ import annotations

from pydantic import field_validator

from corelib.settings.section import Section

EMPTY_CONCEPT = ""
"""Style name that stands for the empty prompt: the anchor may be no concept at all (Appendix C, ESD)."""


class Wording(Section):
    """Rule that turns a style and an object into a prompt, in training or in evaluation.

    Attributes:
        template: text with the fields `{object}` and `{style}`; underscores in names become spaces.
        photo_style: the style of the photos that the other styles were painted from.
        photo_name: name of the photo style in prompts.
    """

    template: str
    photo_style: str
    photo_name: str

    def prompt(self, style: str, object_: str) -> str:
        """The prompt of a concept; the empty concept has the empty prompt."""
        if style == EMPTY_CONCEPT:
            return ""
        style_name = self.photo_name if style == self.photo_style else style.replace("_", " ")
        return self.template.format(object=object_.replace("_", " "), style=style_name)


class Prompts(Section):
    """Names of concepts in prompts (protocol: dataset, and "prompt for Seed_Images").

    Attributes:
        template, photo_style: as in `Wording`.
        photo_in_training: name of the photo style in captions.
        photo_in_evaluation: name of the photo style in the prompts of sampled images.
    """

    template: str
    photo_style: str
    photo_in_training: str
    photo_in_evaluation: str

    @field_validator("template")
    @classmethod
    def _check_fields(cls, template: str) -> str:
        try:
            prompt = template.format(object="OBJECT", style="STYLE")
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            prompt = ""
        if "OBJECT" not in prompt or "STYLE" not in prompt:
            raise ValueError("a text with the fields {object} and {style} and no others")
        return template

    @property
    def in_training(self) -> Wording:
        """Wording of captions."""
        return Wording(template=self.template, photo_style=self.photo_style, photo_name=self.photo_in_training)

    @property
    def in_evaluation(self) -> Wording:
        """Wording of the prompts of sampled images."""
        return Wording(template=self.template, photo_style=self.photo_style, photo_name=self.photo_in_evaluation)

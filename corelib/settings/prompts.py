"""Concepts are a style and an object; prompts are how the model is asked for them."""

from __future__ import annotations

from pydantic import field_validator

from corelib.settings.section import Section

EMPTY_CONCEPT = ""
"""The style name that stands for the empty prompt, where an anchor may be no concept at all (Appendix C, ESD)."""


class Wording(Section):
    """How a style and an object become a prompt, either in training or in evaluation.

    Attributes:
        template: with the fields `{object}` and `{style}`; underscores of names become spaces.
        photo_style: the style of the photos that the other styles were painted from.
        photo_name: what the photos are called.
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
    """What concepts are called (protocol: dataset, and "prompt for Seed_Images").

    Attributes:
        template, photo_style: as of `Wording`.
        photo_in_training: what the photos are called in captions.
        photo_in_evaluation: what they are called when images are sampled.
    """

    template: str
    photo_style: str
    photo_in_training: str
    photo_in_evaluation: str

    @field_validator("template")
    @classmethod
    def _has_both_fields(cls, template: str) -> str:
        try:
            words = template.format(object="OBJECT", style="STYLE")
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            words = ""
        if "OBJECT" not in words or "STYLE" not in words:
            raise ValueError("a text with the fields {object} and {style} and no others")
        return template

    @property
    def in_training(self) -> Wording:
        """The words of captions."""
        return Wording(template=self.template, photo_style=self.photo_style, photo_name=self.photo_in_training)

    @property
    def in_evaluation(self) -> Wording:
        """The words with which images are sampled."""
        return Wording(template=self.template, photo_style=self.photo_style, photo_name=self.photo_in_evaluation)

"""Concepts are a style and an object; prompts are how the model is asked for them."""

from __future__ import annotations

from pydantic import field_validator

from corelib.settings.section import Section

EMPTY_CONCEPT = ""
"""The style name that stands for the empty prompt, where an anchor may be no concept at all (Appendix C, ESD)."""


class Prompts(Section):
    """How a style and an object become a prompt (protocol: dataset, and "prompt for Seed_Images").

    Attributes:
        template: with the fields `{object}` and `{style}`; underscores of names become spaces.
        photo_style: the style of the photos that the other styles were painted from.
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

    def in_training(self, style: str, object_: str) -> str:
        """The prompt of a concept in the captions of images; the empty concept has the empty prompt."""
        return self._prompt(style, object_, self.photo_in_training)

    def in_evaluation(self, style: str, object_: str) -> str:
        """The prompt of a concept when images of it are sampled."""
        return self._prompt(style, object_, self.photo_in_evaluation)

    def _prompt(self, style: str, object_: str, photo_name: str) -> str:
        if style == EMPTY_CONCEPT:
            return ""
        style_name = photo_name if style == self.photo_style else style.replace("_", " ")
        return self.template.format(object=object_.replace("_", " "), style=style_name)

"""Settings of closed-form edits of the cross-attention."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from corelib.settings.prompts import Wording
from corelib.settings.section import Section


class AdversarialRounds(Section):
    """The rounds of RECE, each of which derives the embeddings that still draw a forget style and erases them.

    Attributes:
        count: number of rounds.
        ridge: weight of the squared norm of a derived embedding.
    """

    count: PositiveInt
    ridge: PositiveFloat


class Edit(Section):
    """A change of the keys and values of the cross-attention that is computed in closed form: UCE, or RECE.

    Attributes:
        erase_weight: weight of a forget style, whose captions get the keys and values of its anchor's captions.
        preserve_weight: weight of a retain style, and of the empty prompt, whose keys and values stay.
        ridge: weight of the squared change of the weights.
        adversarial: the rounds of RECE; null for UCE, which has none.
    """

    erase_weight: PositiveFloat
    preserve_weight: float = Field(ge=0)
    ridge: PositiveFloat
    adversarial: AdversarialRounds | None


class EditStage(Section):
    """Settings of the stage `edits`.

    Attributes:
        edit: the constants of the edit.
        candidates: the anchors of each forget style; with several, the target is their mean.
        retain: the styles whose keys and values stay.
        objects: the objects of the captions.
        wording: the wording of the captions.
    """

    edit: Edit
    candidates: dict[str, list[str]]
    retain: list[str]
    objects: list[str]
    wording: Wording

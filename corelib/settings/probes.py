"""Settings of the probes, which ask whether an unlearned model still knows a forgotten style."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from corelib.settings.precision import TrainingPrecision
from corelib.settings.prompts import Wording, fields_of
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.trainable import DeltaTensors
from corelib.settings.unlearning import Adam

ImageKey = tuple[str, str, int]
"""A real image: (style, object, index)."""

Start = Literal["name", "mean"]
"""Initial value of a learned word: the embeddings of the style's name, or the mean of the vocabulary."""


class OtherWording(Section):
    """Another wording of the prompts of a probe.

    Attributes:
        template: text with the fields `{object}` and `{style}`, either of which it may lack; null for that of the
            study's prompts.
        names: words for styles instead of their names. Other styles keep their names.
        misspelt: whether every word of four or more letters in the words for a style lacks its last letter.
    """

    template: str | None = None
    names: dict[str, str] = Field(default_factory=dict)
    misspelt: bool = False

    @field_validator("template")
    @classmethod
    def _check_fields(cls, template: str | None) -> str | None:
        if template is not None and fields_of(template) is None:
            raise ValueError("a text that may have the fields {object} and {style} and no others")
        return template


class ResampledStage(Section):
    """Settings of the stage `resampled`: images that a model restores from noised images of its forget styles.

    Attributes:
        samples: the sampling, and the grid of the restored images.
        sources: the real image that each image of the grid starts from.
        level: share of the sampling steps that are taken; 1 starts from the noisiest level.
    """

    samples: SamplesStage
    sources: list[ImageKey]
    level: float = Field(gt=0, le=1)


class FineTuning(Section):
    """A short training by equation 1 of the paper, the squared error of the predicted noise.

    Attributes:
        images: the images on which it trains.
        learning_rate: learning rate of Adam.
        batch: number of images in a step.
        steps: number of steps.
        seed: seed of all draws.
    """

    images: list[ImageKey] = Field(min_length=1)
    learning_rate: PositiveFloat
    batch: PositiveInt
    steps: PositiveInt
    optimizer: Adam
    wording: Wording
    precision: TrainingPrecision
    seed: int


class RelearningStage(FineTuning):
    """Settings of the stage `relearning`: a model that is fine-tuned on a few images of its forget styles.

    Attributes:
        trained: the trained tensors.
    """

    trained: DeltaTensors


class PromptLearning(FineTuning):
    """The search for prompts that draw some styles.

    Attributes:
        concepts: the styles and objects for whose prompts the embeddings are saved.
        negative_prompt: prompt of the unconditional prediction, which is saved as well.
    """

    concepts: list[tuple[str, str]]
    negative_prompt: str


class InversionStage(PromptLearning):
    """Settings of the stage `inversion`: a learned word for each style, in place of its name in prompts.

    Attributes:
        start: initial value of the learned word.
    """

    start: Start


class PrefixStage(PromptLearning):
    """Settings of the stage `prefixes`: words of the vocabulary for each style, before its prompts.

    Attributes:
        tokens: number of tokens of each prefix.
    """

    tokens: PositiveInt

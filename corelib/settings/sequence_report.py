"""Settings of the reports on sequences of tasks."""

from __future__ import annotations

from typing import Literal

from corelib.settings.section import Section

Way = Literal["in sequence", "at once"]
"""How a model has forgotten the styles of a step: step by step, or all of them in one training."""

WAYS: tuple[Way, ...] = ("in sequence", "at once")
"""The ways in the order of reports."""


class SequenceModel(Section):
    """A model of a row after a step.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        predictions: the role of the predictions of its images.
    """

    seed: int | None
    predictions: str


class SequenceRow(Section):
    """A row of a sequence, with a model for each way, step and training seed.

    Attributes:
        models: the models of each step, by the way in which they have forgotten its styles, in any order.
    """

    row: str
    title: str
    models: dict[Way, list[list[SequenceModel]]]

    @property
    def ways(self) -> list[Way]:
        """The ways for which there are models, in the order of reports."""
        return [way for way in WAYS if way in self.models]

    @property
    def plain_title(self) -> str:
        """The title on one line."""
        return " ".join(self.title.split())


class SequenceStep(Section):
    """A step of a sequence, and the images that judge it.

    Attributes:
        task: the task of the step.
        new: the styles that it forgets.
        earlier: the styles that the steps before it forget.
        retain: the retain styles of its evaluation.
        objects: the objects of the images.
        seeds: the sampling seeds of the images.
    """

    task: str
    new: list[str]
    earlier: list[str]
    retain: list[str]
    objects: list[str]
    seeds: list[int]

    @property
    def forgotten(self) -> int:
        """Number of styles that are forgotten after the step."""
        return len(self.new) + len(self.earlier)


class SequenceStage(Section):
    """Settings of the stage `sequences`: forgetting step by step beside forgetting at once.

    Attributes:
        steps: the steps in their order.
        tasks: the task of the models after each step, by the way in which they have forgotten its styles.
        rows: the models.
        note: what the numbers of this world say and do not say; may be empty.
    """

    name: str
    steps: list[SequenceStep]
    tasks: dict[Way, list[str]]
    rows: list[SequenceRow]
    note: str

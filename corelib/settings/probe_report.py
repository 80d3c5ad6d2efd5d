"""Settings of the reports on probes."""

from __future__ import annotations

from corelib.settings.section import Section


class ProbedModel(Section):
    """A model of a row.

    Attributes:
        seed: its training seed; None for a model that is not trained here.
        predictions: the role of the predictions of its images under each condition, by the name of the condition.
        searches: the role of the run that searched for the style, by the name of each condition that has one.
    """

    seed: int | None
    predictions: dict[str, str]
    searches: dict[str, str]


class ProbedRow(Section):
    """A row of a probe for one task, with a model for each training seed."""

    task: str
    row: str
    title: str
    models: list[ProbedModel]

    @property
    def plain_title(self) -> str:
        """The title on one line."""
        return " ".join(self.title.split())


class Condition(Section):
    """A condition of a probe.

    Attributes:
        name: its name, unique in the probe.
        group: conditions with the same group are points of one curve; those with the group "" belong to all curves.
        amount: its place on the axis of the curve; None for a condition without a number.
    """

    name: str
    group: str
    amount: float | None


class ProbeStage(Section):
    """Settings of the stage `probes`: the images of each condition in which a style is recognised.

    Attributes:
        kind: the kind of the probe.
        styles: the styles that are counted, by task and condition.
        objects, seeds: the objects and sampling seeds of the images that are counted, by task.
        note: what the numbers of this world say and do not say; may be empty.
    """

    name: str
    kind: str
    rows: list[ProbedRow]
    conditions: list[Condition]
    styles: dict[str, dict[str, list[str]]]
    objects: dict[str, list[str]]
    seeds: dict[str, list[int]]
    note: str

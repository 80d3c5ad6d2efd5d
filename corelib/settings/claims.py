"""Claims about the numbers of tables, and the settings of the stage `claims`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from corelib.settings.reports import TableRow
from corelib.settings.section import Section

Metric = Literal["UA", "IRA", "CRA", "SFID", "Total"]


class Check(Section):
    """What all checks have: the table, the tasks for each of which the check must hold, the metric, and a row."""

    table: str
    tasks: list[str] = Field(min_length=1)
    metric: Metric
    row: str


class RankCheck(Check):
    """The row has the `rank`-th largest value among the methods of the paper's table, without the original model."""

    kind: Literal["rank"]
    rank: PositiveInt


class AboveCheck(Check):
    """The value of the row is larger than that of each row in `than`."""

    kind: Literal["above"]
    than: list[str] = Field(min_length=1)


class SimilarCheck(Check):
    """The value of the row differs from that of the row `to` by less than `within` points."""

    kind: Literal["similar"]
    to: str
    within: PositiveFloat


class WideningCheck(Check):
    """The lead of the row over the best other method grows from each of the tasks to the next."""

    kind: Literal["widening"]


class DropCheck(Check):
    """The value of the row falls less from the first to the last of the tasks than that of each other method."""

    kind: Literal["drop"]


class MarginCheck(Check):
    """The lead of the row over the row `to` is larger in `metric` than in `than_metric`."""

    kind: Literal["margin"]
    to: str
    than_metric: Metric


AnyCheck = Annotated[
    RankCheck | AboveCheck | SimilarCheck | WideningCheck | DropCheck | MarginCheck, Field(discriminator="kind")
]


class Claim(Section):
    """A sentence of the paper about its numbers.

    Attributes:
        name: name of the claim.
        section: section of the paper.
        sentence: what it says.
        reading: what was taken as meant, where the sentence leaves it open.
        checks: the inequalities that hold if the claim holds.
    """

    name: str
    section: str
    sentence: str
    reading: str = ""
    checks: list[AnyCheck] = Field(min_length=1)


class ClaimsStage(Section):
    """Settings of the stage `claims`.

    Attributes:
        claims: the claims.
        rows: the rows that are built, by table.
        published: the paper's numbers: (table, task, row, metric, value, k, n).
    """

    claims: list[Claim]
    rows: dict[str, list[TableRow]]
    published: list[list[str]]

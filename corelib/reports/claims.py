"""The claims of the paper, evaluated on the numbers of a study and on the paper's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from corelib.evaluation.significance import holm
from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.reports.estimates import Difference, Estimate, difference, estimate_of_line, estimate_of_paper
from corelib.reports.paper_comparison import SIGNIFICANCE, read_published
from corelib.reports.table_lines import table_line
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.claims import (
    AboveCheck,
    AnyCheck,
    Claim,
    ClaimsStage,
    DropCheck,
    MarginCheck,
    RankCheck,
    SimilarCheck,
    WideningCheck,
)

Verdict = Literal["supported", "contradicted", "undecided", "not built"]

CLAIM_COLUMNS = ("claim", "section", "sentence", "reading", "numbers", "verdict", "order")

CHECK_COLUMNS = ("claim", "numbers", "check", "task", "metric", "difference", "points", "p", "holds")

OURS, PAPER = "this study", "paper"
"""Whose numbers a claim is evaluated on."""

Lookup = Callable[[str, str, str, str], Estimate | None]
"""The estimate of a metric, by table, task, row and metric; None if it does not exist."""


@dataclass(frozen=True)
class Inequality:
    """A difference that a check requires to be positive.

    Attributes:
        task, metric: where it is.
        difference: the difference; None if a number is missing.
    """

    task: str
    metric: str
    difference: Difference | None

    @property
    def holds(self) -> Verdict:
        """Whether the difference is positive, at 95 %."""
        if self.difference is None:
            return "not built"
        if self.difference.p_value >= SIGNIFICANCE:
            return "undecided"
        return "supported" if self.difference.value > 0 else "contradicted"


@dataclass(frozen=True)
class CheckOutcome:
    """What a check found for one task.

    Attributes:
        check: the check.
        inequalities: its inequalities. For a rank, those of the row and each other method; else all must hold.
        num_larger: how many other methods may have a larger value; None if the check is not a rank.
    """

    check: AnyCheck
    inequalities: Sequence[Inequality]
    num_larger: int | None = None

    @property
    def _differences(self) -> list[Difference] | None:
        """The differences of all inequalities; None if a number is missing."""
        found = [one.difference for one in self.inequalities if one.difference is not None]
        return found if found and len(found) == len(self.inequalities) else None

    @property
    def verdict(self) -> Verdict:
        """Supported if all inequalities hold at 95 % each; contradicted if they cannot hold, by Holm's method at 95 %
        for all of them together."""
        if (differences := self._differences) is None:
            return "not built"
        holds = [one.holds for one in self.inequalities]
        adjusted = holm([one.p_value for one in differences])
        larger = sum(p < SIGNIFICANCE and one.value < 0 for one, p in zip(differences, adjusted, strict=True))
        smaller = sum(p < SIGNIFICANCE and one.value > 0 for one, p in zip(differences, adjusted, strict=True))
        allowed = self.num_larger or 0
        if larger > allowed or (self.num_larger is not None and smaller > len(holds) - allowed):
            return "contradicted"
        if holds.count("contradicted") == allowed and holds.count("supported") == len(holds) - allowed:
            return "supported"
        return "undecided"

    @property
    def is_in_order(self) -> bool | None:
        """Whether the values themselves are as claimed, whatever their uncertainty; None if one is missing."""
        if (differences := self._differences) is None:
            return None
        values = [one.value for one in differences]
        if self.num_larger is None:
            return all(value > 0 for value in values)
        return sum(value < 0 for value in values) == self.num_larger


@dataclass(frozen=True)
class ClaimOutcome:
    """What the checks of a claim found on our numbers or on the paper's."""

    claim: Claim
    numbers: str
    checks: Sequence[CheckOutcome]

    @property
    def verdict(self) -> Verdict:
        """Contradicted if a check is; not built if a number is missing; supported if all checks are."""
        verdicts = {check.verdict for check in self.checks}
        for verdict in ("contradicted", "not built", "undecided"):
            if verdict in verdicts:
                return verdict
        return "supported"

    @property
    def order(self) -> str:
        """Whether the values themselves are as claimed."""
        orders = [check.is_in_order for check in self.checks]
        if False in orders:
            return "opposite"
        return "" if None in orders else "as claimed"


def evaluate_claims(settings: ClaimsStage, context: StageContext) -> StageResult:
    """Stage: write the verdict on each claim, as Markdown and CSV, and the inequalities behind it as CSV."""
    outcomes = claim_outcomes(settings, context)
    contents = {
        "claims.md": claims_markdown(outcomes),
        "claims.csv": claims_csv(outcomes),
        "claims.checks.csv": checks_csv(outcomes),
    }
    for name, content in contents.items():
        write_text(context.folder / name, content)
    return StageResult(sorted(contents))


def claim_outcomes(settings: ClaimsStage, context: StageContext) -> list[ClaimOutcome]:
    """The outcome of each claim, on our numbers and on the paper's."""
    lines = {
        (table, row.task, row.row): table_line(row, context.inputs)
        for table, rows in settings.rows.items()
        for row in rows
    }
    by_table = {
        table: read_published([numbers for name, *numbers in settings.published if name == table])
        for table in dict.fromkeys(name for name, *_ in settings.published)
    }

    @functools.cache
    def ours(table: str, task: str, row: str, metric: str) -> Estimate | None:
        line = lines.get((table, task, row))
        return None if line is None else estimate_of_line(line, metric)

    @functools.cache
    def theirs(table: str, task: str, row: str, metric: str) -> Estimate | None:
        return estimate_of_paper(by_table.get(table, {}), task, row, metric)

    def methods(table: str, task: str) -> list[str]:
        return list(dict.fromkeys(row for where, row, _ in by_table.get(table, {}) if where == task))

    return [
        ClaimOutcome(claim, numbers, [found for check in claim.checks for found in _outcomes(check, lookup, methods)])
        for claim in settings.claims
        for numbers, lookup in ((PAPER, theirs), (OURS, ours))
    ]


# Checks


def _outcomes(check: AnyCheck, lookup: Lookup, methods: Callable[[str, str], list[str]]) -> Iterator[CheckOutcome]:
    """The outcomes of a check, one for each of its tasks, or one for all if it compares tasks."""

    def number(task: str, row: str, metric: str | None = None) -> Estimate | None:
        return lookup(check.table, task, row, metric or check.metric)

    def others(task: str) -> list[str]:
        return [row for row in methods(check.table, task) if row != check.row]

    def inequality(task: str, label: str, *terms: tuple[int, Estimate | None], offset: float = 0.0) -> Inequality:
        known = [(sign, estimate) for sign, estimate in terms if estimate is not None]
        is_known = len(known) == len(terms)
        return Inequality(task, check.metric, difference(label, known, offset) if is_known else None)

    def lead(task: str, row: str) -> Inequality:
        return inequality(task, f"{check.row} - {row}", (1, number(task, check.row)), (-1, number(task, row)))

    first, last = check.tasks[0], check.tasks[-1]
    match check:
        case RankCheck():
            for task in check.tasks:
                yield CheckOutcome(check, [lead(task, row) for row in others(task)], check.rank - 1)
        case AboveCheck():
            for task in check.tasks:
                yield CheckOutcome(check, [lead(task, row) for row in check.than])
        case SimilarCheck():
            for task in check.tasks:
                terms = (number(task, check.row), number(task, check.to))
                yield CheckOutcome(
                    check,
                    [
                        inequality(
                            task,
                            f"{check.within:g} - |{check.row} - {check.to}|",
                            (sign, terms[0]),
                            (-sign, terms[1]),
                            offset=check.within,
                        )
                        for sign in (1, -1)
                    ],
                )
        case WideningCheck():
            steps = []
            for before, after in pairwise(check.tasks):
                label = f"lead of {check.row}, {after} - {before}"
                rivals = [_largest([number(task, row) for row in others(task)]) for task in (before, after)]
                leads = (number(before, check.row), number(after, check.row))
                steps.append(inequality(after, label, (1, leads[1]), (-1, rivals[1]), (-1, leads[0]), (1, rivals[0])))
            yield CheckOutcome(check, steps)
        case DropCheck():
            yield CheckOutcome(
                check,
                [
                    inequality(
                        last,
                        f"fall of {row} - fall of {check.row}, {first} to {last}",
                        (1, number(last, check.row)),
                        (-1, number(first, check.row)),
                        (-1, number(last, row)),
                        (1, number(first, row)),
                    )
                    for row in others(last)
                ],
            )
        case MarginCheck():
            for task in check.tasks:
                label = f"lead over {check.to} in {check.metric} - lead in {check.than_metric}"
                wide = (number(task, check.row), number(task, check.to))
                narrow = (number(task, check.row, check.than_metric), number(task, check.to, check.than_metric))
                yield CheckOutcome(
                    check,
                    [inequality(task, label, (1, wide[0]), (-1, wide[1]), (-1, narrow[0]), (1, narrow[1]))],
                )


def _largest(estimates: Sequence[Estimate | None]) -> Estimate | None:
    known = [estimate for estimate in estimates if estimate is not None]
    return max(known, key=lambda estimate: estimate.mean) if known and len(known) == len(estimates) else None


# Files


def claims_markdown(outcomes: Sequence[ClaimOutcome]) -> str:
    """The claims as Markdown: the verdict on the paper's numbers and on ours, then what is behind each verdict."""
    by_claim: dict[str, dict[str, ClaimOutcome]] = {}
    for outcome in outcomes:
        by_claim.setdefault(outcome.claim.name, {})[outcome.numbers] = outcome
    rows = [
        "| section | claim | by the paper's own numbers | by the numbers of this study |",
        "| --- | --- | --- | --- |",
    ]
    details = []
    for found in by_claim.values():
        claim = found[PAPER].claim
        reading = f" *({claim.reading})*" if claim.reading else ""
        rows.append(
            f"| {claim.section} | {claim.sentence}{reading} | {in_words(found[PAPER])} | {in_words(found[OURS])} |"
        )
        details += [f"### {claim.sentence}", "", *_details(found[PAPER]), *_details(found[OURS]), ""]
    return "\n".join(["# Claims of the paper", "", NOTE, "", *rows, "", "## Numbers behind the verdicts", "", *details])


NOTE = (
    "*Supported*: each inequality that the claim states holds at 95 %. *Contradicted*: an inequality is reversed at "
    "95 %, after Holm's correction. *Undecided*: neither; in parentheses, whether the values are as claimed or "
    "opposite. *Not built*: a number is missing, because the study lacks its row or has not built it yet. SFID has no "
    "interval and is treated as exact; with a single training seed, a claim about SFID alone stays undecided."
)


def in_words(outcome: ClaimOutcome) -> str:
    """The verdict, with the order of the values if it is undecided."""
    verdict = outcome.verdict
    return f"{verdict} ({outcome.order})" if verdict == "undecided" and outcome.order else verdict


def _details(outcome: ClaimOutcome) -> list[str]:
    lines = [
        f"  - {one.task}, {one.metric}: {one.difference.label} = {one.difference.value:+.2f}"
        + (f" (p {one.difference.p_value:.2g})" if one.difference.p_value < 1 else " (no interval)")
        for check in outcome.checks
        for one in check.inequalities
        if one.difference is not None
    ]
    return [f"- {outcome.numbers}: {in_words(outcome)}", *lines]


def claims_csv(outcomes: Sequence[ClaimOutcome]) -> str:
    """The verdicts as CSV, a line for each claim and each source of numbers."""
    return as_csv(
        [
            CLAIM_COLUMNS,
            *(
                [
                    outcome.claim.name,
                    outcome.claim.section,
                    outcome.claim.sentence,
                    outcome.claim.reading,
                    outcome.numbers,
                    outcome.verdict,
                    outcome.order,
                ]
                for outcome in outcomes
            ),
        ]
    )


def checks_csv(outcomes: Sequence[ClaimOutcome]) -> str:
    """The inequalities behind the verdicts as CSV."""
    return as_csv(
        [
            CHECK_COLUMNS,
            *(
                [
                    outcome.claim.name,
                    outcome.numbers,
                    check.check.kind,
                    one.task,
                    one.metric,
                    one.difference.label if one.difference else "",
                    f"{one.difference.value:.2f}" if one.difference else "",
                    f"{one.difference.p_value:.4g}" if one.difference else "",
                    one.holds,
                ]
                for outcome in outcomes
                for check in outcome.checks
                for one in check.inequalities
            ),
        ]
    )

"""Claims: each names numbers of the paper, and its verdict follows from the numbers and their uncertainty."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.reports.claims import OURS, PAPER, ClaimOutcome, claim_outcomes, claims_csv, claims_markdown
from corelib.reports.estimates import Estimate, difference
from corelib.runs.stage_context import StageContext
from corelib.settings.claims import Claim, ClaimsStage
from corelib.study.claims import load_claims
from corelib.study.published import load_published

CONFIGURATION = REPOSITORY / "config"
CLAIMS = load_claims(CONFIGURATION)
PUBLISHED = [numbers for numbers in load_published(CONFIGURATION) if numbers[2] != "original"]
VALUES = {(table, task, row, metric): float(value) for table, task, row, metric, value, _, _ in PUBLISHED}


def outcomes(claims: list[Claim], published: list[list[str]], folder: Path) -> dict[str, ClaimOutcome]:
    """The outcomes on the paper's numbers, by name of the claim."""
    settings = ClaimsStage(claims=claims, rows={}, published=published)
    found = claim_outcomes(settings, StageContext(folder, "0" * 64, {}))
    assert {one.verdict for one in found if one.numbers == OURS} == {"not built"}
    return {one.claim.name: one for one in found if one.numbers == PAPER}


@pytest.fixture
def on_paper(tmp_path: Path) -> dict[str, ClaimOutcome]:
    return outcomes(CLAIMS, PUBLISHED, tmp_path)


# The paper's numbers


def test_every_check_names_numbers_that_the_paper_has():
    for claim in CLAIMS:
        for check in claim.checks:
            rows = [check.row, *getattr(check, "than", []), *filter(None, [getattr(check, "to", None)])]
            for task in check.tasks:
                assert all((check.table, task, row, check.metric) in VALUES for row in rows), claim.name


def test_no_number_of_the_paper_is_missing(on_paper):
    assert all(outcome.order for outcome in on_paper.values())


@pytest.mark.parametrize(
    ("name", "verdict", "order"),
    [
        ("outperforms-baselines", "undecided", "opposite"),  # CA-noise has the highest Total on Forget01
        ("second-on-forget01", "undecided", "as claimed"),
        ("first-on-larger-tasks", "supported", "as claimed"),
        ("retainability-above-esd", "contradicted", "opposite"),  # CRA of Forget06: 97.50 and 100.00
        ("particularly-across-domains", "contradicted", "opposite"),
        ("generalizes-by-total", "supported", "as claimed"),
        ("generalizes-by-ua", "contradicted", "opposite"),  # 83.33, and 100.00 of ESD
        ("few-anchors-lower-ira", "supported", "as claimed"),
        ("one-to-one-superior", "undecided", "opposite"),  # five-to-one has the higher UA
    ],
)
def test_verdicts_on_the_papers_own_numbers(on_paper, name, verdict, order):
    assert (on_paper[name].verdict, on_paper[name].order) == (verdict, order)


def test_ranks_agree_with_the_order_of_the_printed_values(on_paper):
    for claim in CLAIMS:
        for check in claim.checks:
            if check.kind != "rank":
                continue
            for task in check.tasks:
                rows = {
                    row: value
                    for (table, where, row, metric), value in VALUES.items()
                    if (table, where, metric) == (check.table, task, check.metric)
                }
                larger = sum(value > rows[check.row] for row, value in rows.items() if row != check.row)
                found = [
                    one.is_in_order
                    for one in on_paper[claim.name].checks
                    if one.check == check and one.inequalities[0].task == task
                ]
                ties = sum(value == rows[check.row] for row, value in rows.items() if row != check.row)
                assert ties or found == [larger == check.rank - 1]


def test_the_p_value_of_a_difference_is_that_of_two_proportions():
    counts = {"UA": (40, 60), "CRA": (50, 60)}
    shares = {name: (k + 2) / (n + 4) for name, (k, n) in counts.items()}
    variance = sum(100**2 * share * (1 - share) / 60 for share in shares.values())
    claim = Claim.model_validate(
        {
            "name": "x",
            "section": "0",
            "sentence": "A is above B.",
            "checks": [{"kind": "above", "table": "t", "tasks": ["T"], "metric": "UA", "row": "a", "than": ["b"]}],
        }
    )
    published = [["t", "T", "a", "UA", "66.67", "40", "60"], ["t", "T", "b", "UA", "83.33", "50", "60"]]
    (inequality,) = outcomes([claim], published, Path())["x"].checks[0].inequalities
    assert inequality.difference is not None
    assert inequality.difference.p_value == pytest.approx(2 * norm.sf(16.66 / variance**0.5))


# Estimates


def test_seeds_are_paired():
    draws = np.random.default_rng(0)
    common = draws.normal(0, 10, 4)
    first = Estimate("a", dict(enumerate(60 + common)), 1.0)
    second = Estimate("b", dict(enumerate(58 + common + draws.normal(0, 0.1, 4))), 1.0)
    found = difference("a - b", [(1, first), (-1, second)])
    assert found is not None and found.value == pytest.approx(2, abs=0.2) and found.p_value < 0.05


def test_rows_without_a_common_seed_are_not_compared():
    assert difference("a - b", [(1, Estimate("a", {0: 1.0}, 1.0)), (-1, Estimate("b", {1: 1.0}, 1.0))]) is None


def test_a_single_number_without_an_interval_decides_nothing():
    found = difference("a - b", [(1, Estimate("a", {0: 99.0}, 0.0)), (-1, Estimate("b", {0: 1.0}, 0.0))])
    assert found is not None and found.p_value == 1


def test_equal_methods_are_rarely_called_better():
    """A claim that one of six equal methods is the best is supported in at most 5 of 100 cases."""
    draws, num_supported, num_draws = np.random.default_rng(1), 0, 400
    claim = Claim.model_validate(
        {
            "name": "best",
            "section": "0",
            "sentence": "m0 is the best.",
            "checks": [{"kind": "rank", "table": "t", "tasks": ["T"], "metric": "UA", "row": "m0", "rank": 1}],
        }
    )
    for _ in range(num_draws):
        hits = draws.binomial(60, 0.8, 6)
        published = [
            ["t", "T", f"m{number}", "UA", f"{100 * k / 60:.2f}", str(k), "60"] for number, k in enumerate(hits)
        ]
        num_supported += outcomes([claim], published, Path())["best"].verdict == "supported"
    assert num_supported / num_draws < 0.05


# Files


def test_every_claim_has_a_line_for_each_source_of_numbers(tmp_path):
    settings = ClaimsStage(claims=CLAIMS, rows={}, published=PUBLISHED)
    found = claim_outcomes(settings, StageContext(tmp_path, "0" * 64, {}))
    lines = list(csv.DictReader(claims_csv(found).splitlines()))
    assert [(line["claim"], line["numbers"]) for line in lines] == [
        (claim.name, numbers) for claim in CLAIMS for numbers in (PAPER, OURS)
    ]
    text = claims_markdown(found)
    assert all(claim.sentence in text for claim in CLAIMS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "claims.yaml: it is {}, expected a list of claims"),
        ("[{name: a}]", "claims.yaml: claim a: "),
        ("[3]", "claims.yaml: claim number 1: "),
        (
            "[{name: a, section: '4', sentence: x, checks: [{kind: best, table: t, tasks: [T], metric: UA, row: r}]}]",
            "claims.yaml: claim a: checks.0",
        ),
    ],
)
def test_an_invalid_file_is_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_claims(tmp_path)

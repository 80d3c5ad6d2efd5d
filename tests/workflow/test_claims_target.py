"""`claims.md` as a target: it shows what is built, builds nothing itself, and follows what is built later."""

from __future__ import annotations

import csv

import pytest
from support.checkout import Checkout

TARGET = "results/claimed/claims.md"


@pytest.fixture
def claimed(checkout: Checkout) -> Checkout:
    """The tiny study, whose table takes the place of the paper's Table 1."""
    text = "base: tiny\ntables: {table1: {published: table1}}\n"
    (checkout.folder / "config/studies/claimed.yaml").write_text(text)
    return checkout


def verdicts(checkout: Checkout) -> dict[str, str]:
    with (checkout.folder / "results/claimed/claims.csv").open() as stream:
        return {line["claim"]: line["verdict"] for line in csv.DictReader(stream) if line["numbers"] == "this study"}


def differences(checkout: Checkout) -> set[tuple[str, str]]:
    """Task and row of the differences between CORE and other rows that were found."""
    with (checkout.folder / "results/claimed/claims.checks.csv").open() as stream:
        return {
            (line["task"], line["difference"].removeprefix("core - "))
            for line in csv.DictReader(stream)
            if line["numbers"] == "this study" and line["difference"].startswith("core - ")
        }


def test_claims_show_what_is_built_and_build_nothing(claimed: Checkout) -> None:
    assert claimed.planned(TARGET) == {"evaluate_claims": 1}
    done = claimed.snakemake("--cores", "1", TARGET)
    assert done.returncode == 0, done.stdout
    assert differences(claimed) == {("Forget01", "esd")}
    assert verdicts(claimed)["one-to-one-outperforms"] == "not built"
    assert claimed.planned(TARGET) == {}
    assert claimed.python("-m", "corelib", "verify").returncode == 0

    text = (claimed.folder / TARGET).read_text()
    for path in (claimed.folder / "runs/cells").glob("esd-forget01-*"):
        path.rename(claimed.folder / path.name)
    assert claimed.planned(TARGET) == {"evaluate_claims": 1}, "a number that was there is gone"
    assert claimed.snakemake("--cores", "1", TARGET).returncode == 0
    assert differences(claimed) == set()
    for path in claimed.folder.glob("esd-forget01-*"):
        path.rename(claimed.folder / "runs/cells" / path.name)
    assert claimed.snakemake("--cores", "1", TARGET).returncode == 0
    assert (claimed.folder / TARGET).read_text() == text


def test_claims_wait_for_tables_that_are_built_with_them(claimed: Checkout) -> None:
    for path in (claimed.folder / "runs/cells").glob("core-forget01-*"):
        path.rename(claimed.folder / path.name)
    assert claimed.planned(TARGET) == {"evaluate_claims": 1}
    together = claimed.planned(TARGET, "results/claimed/table1.csv")
    assert together == {"count_cells": 1, "tabulate": 1, "evaluate_claims": 1}
    assert claimed.snakemake("--cores", "1", TARGET, "results/claimed/table1.csv").returncode == 0
    assert differences(claimed) == {("Forget01", "esd")}


def test_a_changed_claim_evaluates_the_claims_and_nothing_else(claimed: Checkout) -> None:
    targets = [TARGET, "results/claimed/table1.csv", "results/claimed/figure2.png"]
    assert claimed.snakemake("--cores", "1", *targets).returncode == 0
    assert claimed.planned(*targets) == {}
    claimed.edit("config/claims.yaml", "CORE outperforms baselines on UnlearnCanvas.", "CORE is better.")
    assert claimed.planned(*targets) == {"evaluate_claims": 1}
    claimed.edit("config/claims.yaml", "CORE is better.", "CORE outperforms baselines on UnlearnCanvas.")
    claimed.edit("config/studies/claimed.yaml", "tables:", "methods: {core: {title: Ours}}\ntables:")
    assert set(claimed.planned(*targets)) == {"tabulate", "draw"}, "titles are no part of a claim"


def test_a_study_without_a_table_of_the_paper_has_no_claims(checkout: Checkout) -> None:
    done = checkout.snakemake("--dry-run", "results/tiny/claims.md")
    assert done.returncode != 0
    assert "study 'tiny' has no such product" in done.stdout

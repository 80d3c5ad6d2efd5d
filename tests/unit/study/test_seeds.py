"""Training seeds of a study: a run for each seed, and everything else shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan

CONFIGURATION = REPOSITORY / "config"
TRAINED_OR_LATER = {"saliency", "unlearning", "samples", "predictions", "fid", "cells"}


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A copy of the configuration, for further studies."""
    folder = tmp_path / "config"
    folder.mkdir()
    for path in CONFIGURATION.iterdir():
        if path.name != "studies":
            (folder / path.name).symlink_to(path)
    (folder / "studies").mkdir()
    for path in (CONFIGURATION / "studies").iterdir():
        (folder / "studies" / path.name).symlink_to(path)
    return folder


def runs_of(plan: Plan) -> dict[str, Run]:
    return {name: run for product in plan.products().values() for name, run in product.with_all_inputs().items()}


def plan_with(configuration: Path, overlay: str) -> Plan:
    (configuration / "studies/trial.yaml").write_text(overlay)
    return load_plan("trial", configuration)


def test_the_runs_of_seed_0_are_those_of_a_study_with_one_seed():
    one, three = (runs_of(load_plan(name, CONFIGURATION)) for name in ("mini", "mini-seeds"))
    products = set(PRODUCTS)
    assert {name for name, run in one.items() if run.stage not in products} <= three.keys()
    added = [run for name, run in three.items() if name not in one and run.stage not in products]
    assert {run.stage for run in added} == TRAINED_OR_LATER
    assert {run.slug.rsplit("-s", 1)[1] for run in added} == {"1", "2"}
    seeds = [run.settings.seed for run in three.values() if run.stage == "unlearning"]
    assert seeds.count(0) == seeds.count(1) == seeds.count(2) == sum(run.stage == "unlearning" for run in one.values())


def test_figures_show_the_first_seed():
    one, three = (load_plan(name, CONFIGURATION).figure("figure2") for name in ("mini", "mini-seeds"))
    assert {run.name for run in one.inputs.values()} == {run.name for run in three.inputs.values()}


def test_a_method_and_a_row_can_have_seeds_of_their_own(configuration):
    plan = plan_with(
        configuration,
        "base: tiny\n"
        "methods: {core: {seeds: [3, 4]}}\n"
        "tables: {table1: {rows: [original, core, {name: once, method: core, title: Once, seeds: [4]}, esd]}}\n",
    )
    rows = {row.row: row for row in plan.table("table1").settings.rows if row.task == "Forget01"}
    assert {name: [one.seed for one in row.seeds] for name, row in rows.items()} == {
        "original": [None],
        "core": [3, 4],
        "once": [4],
        "esd": [0],
    }
    inputs = plan.table("table1").inputs
    assert inputs["Forget01/core/4"] is inputs["Forget01/once/4"]
    assert plan.unlearning("Forget01", "core", None) is plan.unlearning("Forget01", "core", None, 3)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {seeds: [0, 1, 0]}", "training.seeds is 0, expected each entry once"),
        ("training: {seeds: []}", "training.seeds is \\[\\], expected .*at least 1"),
        ("training: {seed: 1}", "training.seed is not a known key, expected `seeds`"),
        ("methods: {core: {seeds: [2, 2]}}", "methods.core.seeds is 2, expected each entry once"),
        (
            "tables: {table1: {rows: [{name: original, method: original, seeds: [1]}, core]}}",
            "tables.table1.rows is \\[1\\], expected no training seeds for the original model",
        ),
        (
            "tables: {table1: {rows: [{name: x, method: core, seeds: [1, 1]}]}}",
            "tables.table1.rows is 1, expected each entry once",
        ),
    ],
)
def test_unusable_seeds_are_refused(configuration, overlay, message):
    (configuration / "studies/trial.yaml").write_text(f"base: tiny\n{overlay}\n")
    with pytest.raises(ConfigurationError, match=message):
        load_study("trial", configuration)

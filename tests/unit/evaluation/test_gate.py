"""The gate before all training: its outcome, its report, and that no address depends on it."""

from __future__ import annotations

from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import REPOSITORY
from support.hand_made import write_manifest

from corelib.errors import ArtefactError, ConfigurationError
from corelib.evaluation.gate import check_gate, report_gate
from corelib.evaluation.metrics import CELLS, Count
from corelib.evaluation.significance import fisher_p_value
from corelib.files.json_files import write_json
from corelib.reports.tables import gate_outcome
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import Manifest, read_manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.gate import GateStage
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published

CONFIGURATION = REPOSITORY / "config"
PUBLISHED = {"UA": (6, 500), "IRA": (502, 520), "CRA": (972, 1020)}


def cells(folder: Path, **counts: tuple[int, int]) -> Manifest:
    write_json(folder / CELLS, {name: {"k": k, "n": n} for name, (k, n) in counts.items()})
    write_manifest(folder / MANIFEST, folder, "cells", "x", [CELLS], {})
    return read_manifest(folder / MANIFEST)


def settings(on_failure: Any) -> GateStage:
    return GateStage(task="Forget25", published=PUBLISHED, on_failure=on_failure)


def plan_with(gate: str | None) -> Plan:
    study = load_study("paper", CONFIGURATION)
    return Plan("paper", study.model_copy(update={"gate": gate}), load_published(CONFIGURATION))


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_p_value_is_the_probability_of_all_tables_that_are_at_most_as_likely(
    n: int, m: int, data: st.DataObject
) -> None:
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    weights = [comb(n, first) * comb(m, k + j - first) for first in range(max(0, k + j - m), min(n, k + j) + 1)]
    observed = comb(n, k) * comb(m, j)
    by_hand = sum(weight for weight in weights if weight <= observed) / comb(n + m, k + j)
    assert fisher_p_value(Count(k, n), Count(j, m)) == pytest.approx(by_hand)


def test_the_papers_own_counts_pass(tmp_path: Path) -> None:
    work = StageContext(folder=tmp_path, digest="x", inputs={"cells": cells(tmp_path / "cells", **PUBLISHED)})
    outcome = check_gate(settings("stop"), work)
    assert outcome.facts["outcome"] == "passed"


@pytest.mark.parametrize("on_failure", ["stop", "warn"])
def test_another_base_model_stops_or_is_reported_with_its_numbers(tmp_path: Path, on_failure: str) -> None:
    manifest = cells(tmp_path / "cells", **(PUBLISHED | {"IRA": (470, 520)}))
    work = StageContext(folder=tmp_path, digest="x", inputs={"cells": manifest})
    if on_failure == "stop":
        with pytest.raises(ArtefactError, match=r"IRA 90\.38 \(470 of 520\), published 96\.54 on Forget25.*warn"):
            check_gate(settings(on_failure), work)
    else:
        outcome = check_gate(settings(on_failure), work)
        assert outcome.facts["outcome"] == "failed"
        write_manifest(tmp_path / "gate.json", tmp_path, "gate", "x", outcome.files, outcome.facts)
        assert gate_outcome(read_manifest(tmp_path / "gate.json")) == "failed"
    report_gate(settings(on_failure), work)
    assert "### Gate: failed" in (tmp_path / "gate.md").read_text()
    lines = (tmp_path / "gate.csv").read_text().splitlines()
    assert lines[2].startswith("IRA,470,520,90.38,502,520,96.54,") and lines[2].endswith(",failed")
    assert lines[1].endswith(",passed")


def test_the_gate_evaluates_the_original_model_on_the_largest_grid_of_the_paper() -> None:
    gate = plan_with("stop").gate()
    assert isinstance(gate.settings, GateStage)
    assert (gate.settings.task, gate.settings.published) == ("Forget25", PUBLISHED)
    stages = {run.stage for run in gate.with_all_inputs().values()}
    assert not stages & {"unlearning", "saliency"}


def test_all_training_waits_for_the_gate_and_no_address_of_a_model_depends_on_it() -> None:
    plans = {gate: plan_with(gate) for gate in ("stop", "warn", None)}
    runs = {gate: plan.table("table1").with_all_inputs() for gate, plan in plans.items()}
    for gate, runs_by_name in runs.items():
        for run in runs_by_name.values():
            waits = [] if gate is None or run.stage not in ("unlearning", "saliency") else [plans[gate].gate().name]
            assert [earlier.name for earlier in run.after.values()] == waits
    models = {
        gate: {name for name in names if not name.startswith(("gate/", "tables/"))} for gate, names in runs.items()
    }
    assert models["stop"] == models["warn"] == models[None]


def test_a_study_of_other_tasks_cannot_have_a_gate() -> None:
    study = load_study("paper", CONFIGURATION)
    other = study.model_copy(update={"tasks": {"Mine": study.tasks["Forget01"]}})
    with pytest.raises(ConfigurationError, match=r"gate is 'stop', expected null.*Mine"):
        Plan("mine", other, load_published(CONFIGURATION)).gate()

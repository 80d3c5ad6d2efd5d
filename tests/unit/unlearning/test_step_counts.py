"""What a training step asks of a GPU, counted without one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from support.checkout import REPOSITORY

from corelib.models.student_teacher import StudentAndTeacher


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `benchmarks/counts.py`."""
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    import counts

    return counts


def test_a_step_waits_for_nothing_and_casts_no_frozen_weight(counts: Any) -> None:
    """The aim is at most one synchronisation and two copies in a step in which nothing is logged."""
    step = counts.count_step(counts.SIZES["miniature"])
    assert (step.synchronisations, step.copies, step.casts_of_frozen) == (0, 1, 0)
    assert step.operations > 1000 and step.casts > 100, "the networks were called"


def test_casts_of_frozen_weights_are_counted(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StudentAndTeacher, "round_frozen_weights", lambda _: None)
    assert counts.count_step(counts.SIZES["miniature"]).casts_of_frozen > 200

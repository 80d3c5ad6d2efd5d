"""Exports of models: the scheduler of an exported folder, and the errors for missing runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusers import DDIMScheduler
from support.checkout import REPOSITORY
from support.small_world import finish, make_small_world, unlearning_settings, with_another_scheduler

from corelib.errors import ConfigurationError
from corelib.maintenance import run_export
from corelib.runs.stage_context import StageContext
from corelib.study.loading import load_study
from corelib.unlearning.trainer import unlearn

PAPER = load_study("paper", REPOSITORY / "config")


def test_an_exported_model_has_the_papers_scheduler_even_if_the_base_model_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_world = make_small_world(tmp_path / "material")
    small_world["pipeline"] = with_another_scheduler(small_world["pipeline"], tmp_path / "pndm")
    work = StageContext(tmp_path / "unlearning", "digest", small_world, checkpoint_seconds=1e9)
    work.folder.mkdir()
    run = finish(work.folder, "unlearning", unlearn(unlearning_settings(PAPER.methods["core"].objective), work))
    monkeypatch.setattr(run_export, "_run", lambda *_: run)
    monkeypatch.setattr(run_export, "read_specification", lambda _: None)
    monkeypatch.setattr(run_export, "read_input", lambda *_: small_world["pipeline"])
    run_export.export_model("core", tmp_path / "exported")
    written = json.loads((tmp_path / "exported/scheduler/scheduler_config.json").read_text())
    expected = PAPER.sampling.scheduler.model_dump(exclude={"steps", "eta"})
    assert {key: written[key] for key in expected} == expected
    assert isinstance(DDIMScheduler.from_pretrained(tmp_path / "exported/scheduler"), DDIMScheduler)


def test_without_any_run_the_error_of_an_export_says_how_to_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        run_export.export_model("nosuch", Path("out"))
    assert str(caught.value) == (
        "nosuch: there is no such run in runs/unlearning, expected a complete run; build a table with Snakemake."
    )

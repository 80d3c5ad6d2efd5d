"""The report of a study and its costs: everything that is built is on the page, and what is missing is named."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import records
from support.checkout import REPOSITORY, link_configuration
from support.evaluated import CORE, ESD, cells, row
from support.evaluated_study import build_products, build_runs

from corelib.files.sealed_json import write_record
from corelib.reports.measured_costs import costs_csv, costs_markdown, costs_of_rows
from corelib.reports.report_template import CHART_CAPTIONS
from corelib.reports.study_report import write_report
from corelib.runs.manifest import Manifest
from corelib.runs.provenance_record import Attempt
from corelib.runs.stage_context import StageContext
from corelib.settings.study_report import ReportStage, ReportTable
from corelib.study.loading import load_plan


@dataclass
class Runs:
    """A folder of runs with provenance records."""

    folder: Path

    def add(self, stage: str, slug: str, builds_on: Mapping[str, str], seconds: float, **fields: Any) -> str:
        """Add a run that took some seconds, and return its name."""
        planned = records.specification(stage, slug, builds_on)
        name = records.name_of(planned)
        folder = self.folder / name
        folder.mkdir(parents=True)
        write_record(folder / "specification.json", planned)
        record = records.provenance(planned, records.manifest_record(planned), wall_seconds=seconds, **fields)
        write_record(folder / "manifest.provenance.json", record)
        return name


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Manifest]:
    """The cells of the original model and of two methods; one of them has two training seeds."""
    runs = Runs(tmp_path / "runs")
    pipeline = runs.add("pipeline", "pipeline", {}, 1000, device="A100")
    original = runs.add("samples", "original", {"pipeline": pipeline}, 100, device="A100")
    fid = runs.add("fid", "original-forget01", {"samples": original}, 10)
    found = {}
    for name, seed, numbers in (("original", None, CORE), ("esd", 0, ESD), ("core", 0, CORE), ("core", 1, CORE)):
        slug = name if seed is None else f"{name}-s{seed}"
        samples, own_fid = original, fid
        if seed is not None:
            earlier = [Attempt(**MACHINE, saved="2026-01-02T03:05:01+00:00")] if seed else []
            delta = runs.add(
                "unlearning", slug, {"pipeline": pipeline}, 60, device="A100", peak_memory_mib=900 + seed,
                earlier_attempts=earlier,
            )  # fmt: skip
            samples = runs.add("samples", slug, {"pipeline": pipeline, "delta": delta}, 30, device="A100")
            own_fid = runs.add("fid", slug, {"samples": samples}, 5)
        predictions = runs.add("predictions", slug, {"samples": samples}, 7)
        behind = {"predictions": predictions, "fid": own_fid, "fid_of_original": fid}
        evaluated = runs.add("cells", slug, behind, 1)
        found[f"Forget01/{name}/{seed}"] = cells(runs.folder / evaluated, numbers)
    return found


MACHINE = {
    "began": "2026-01-02T03:04:01+00:00", "host": "here", "node": None, "scheduler_job": None, "device": "A100",
    "processor": "a processor",
}  # fmt: skip
ROWS = [row("original", "Original", seeds=(None,)), row("esd", "ESD"), row("core", "CORE (ours)", seeds=(0, 1))]


def settings(**changes: Any) -> ReportStage:
    table = ReportTable(
        name="table1",
        rows=ROWS,
        missing=["Forget06, SalUn <b>"],
        published=[["Forget01", "esd", "UA", "100.00", "30", "30"]],
        comparable=True,
        trainings={},
    )
    fields: dict[str, Any] = {
        "study": "mine", "claims": None, "tables": [table], "figures": [], "missing_figures": ["figure2"],
        "distances": [], "missing_distances": ["distances2"], "probes": [], "missing_probes": ["probe_wording"],
        "sequences": [], "missing_sequences": ["sequence1"],
        "gate": None, "has_gate": True, "protocol": {"sampling": [("guidance_scale", "9.0")]},
    }  # fmt: skip
    return ReportStage(**{**fields, **changes})


def page(folder: Path, inputs: Mapping[str, Manifest], **changes: Any) -> str:
    folder.mkdir()
    outcome = write_report(settings(**changes), StageContext(folder, "0" * 64, inputs))
    assert (outcome.files, outcome.records) == ([], ["report.html", "report.costs.csv", "report.costs.md"])
    return (folder / "report.html").read_text()


# The page


def test_the_page_shows_numbers_intervals_and_the_papers_values(inputs, tmp_path):
    text = re.sub(r"\s+", " ", page(tmp_path / "report", inputs))
    assert "3 of 4 rows of the tables are built" in text
    assert ">96.67<small>83.3 to 99.4</small><small>paper 100.00</small>" in text.replace("> ", ">").replace(" <", "<")
    assert "98.00 ± 0.00" in text, "two seeds"
    assert "Of 1 accuracies that the paper also reports, 0 differ" in text


def test_the_page_names_what_is_missing(inputs, tmp_path):
    text = page(tmp_path / "report", inputs)
    assert "1 rows are not built" in text and "Forget06, SalUn &lt;b&gt;" in text, "names are escaped"
    for missing in ("figure2", "distances2", "probe_wording", "sequence1"):
        assert f"Not built: {missing}." in text
    assert "The images of the original model are not built." in text
    empty = ReportTable(name="table1", rows=[], missing=["all"], published=[], comparable=True, trainings={})
    assert "None of its rows is built." in page(tmp_path / "empty", {}, tables=[empty])


PROBED = """\
base: tiny
training: {seeds: [0, 1]}
tables: {table1: {rows: [original, core, retrained]}}
probes:
  probe_inversion:
    {kind: inversion, tasks: [Forget01], rows: [core], objects: [Circles], seeds: [188], images: 1, steps: [3],
     learning_rate: 0.1, batch: 2, start: mean}
  probe_partial: {kind: partial_diffusion, tasks: [Forget01], rows: [core], levels: [0.5], images: [1]}
"""


def test_the_page_shows_distances_and_probes_if_all_that_they_need_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration = link_configuration(tmp_path / "config")
    (configuration / "studies/probed.yaml").write_text(PROBED)
    plan = load_plan("probed", configuration)
    diverged = {"inversion/core-forget01-one_to_one-s1": {"diverged_at": 2}}

    def written() -> str:
        build_products(plan, ["report"])
        return re.sub(r"\s+", " ", Path("results/probed/report.html").read_text())

    build_runs(plan.probe("probe_inversion").inputs.values(), plan.study.world.styles, diverged)
    text = written()
    assert "Not built: distances1." in text and "Not built: probe_partial." in text
    assert "probe_inversion: A learned word for each forget style" in text
    assert len(re.findall("<img ", text)) == 1, "the chart of the probe"
    assert re.search(r"<th>Forget01</th> ?<th>usual</th> ?<th>3 steps</th>", text)
    assert "<sup>1</sup> seed 1: the search diverged at step 2." in text
    build_runs(plan.comparison("table1").inputs.values(), plan.study.world.styles)
    text = written()
    assert "Not built: distances1." not in text
    assert "<h3>Table 1, Forget01</h3>" in text and "<h3>Table 1, Forget02</h3>" in text
    assert '<td>CORE (ours)</td><td class="number">4</td><td class="number">forget</td>' in text


FOLLOWED = """\
base: tiny
training: {seeds: [0, 1]}
tasks:
  Second: {like: Forget01, after: Forget01, forget: [Crimson_Checks]}
  Third: {like: Forget01, after: Second, forget: [Emerald_Stripes]}
  Both: {like: Forget01, forget: [Crimson_Checks, Cobalt_Stripes]}
tables: {table1: {tasks: [Forget01], rows: [original, core]}}
sequences:
  sequence1: {tasks: [Forget01, Second], at_once: [Forget01, Both], rows: [original, core]}
  sequence2: {tasks: [Forget01, Second, Third], rows: [core]}
"""


def test_the_page_shows_a_sequence_if_all_that_it_needs_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration = link_configuration(tmp_path / "config")
    (configuration / "studies/followed.yaml").write_text(FOLLOWED)
    plan = load_plan("followed", configuration)
    diverged = {"unlearning/core-second-one_to_one-s1": {"diverged_at": 2}}
    build_runs(plan.sequence("sequence1").inputs.values(), plan.study.world.styles, diverged)
    build_products(plan, ["report"])
    text = re.sub(r"\s+", " ", Path("results/followed/report.html").read_text())
    assert '<a href="#sequences">Sequences</a>' in text and "Not built: sequence2." in text
    assert "<h3>sequence1: Forget01, Second</h3>" in text
    assert len(re.findall("<img ", text)) == 1, "the chart of the sequence"
    heads = ("CORE (ours)", "forgotten", "way", "UA new", "UA earlier", "IRA", "CRA")
    assert "".join(f"<th>{head}</th>" for head in heads) in text.replace("> <", "><")
    assert text.count("<td>Second</td><td>2</td><td>in sequence</td>") == 2, "a line for each row"
    assert text.count("<sup>1</sup> seed 1: the training of the model diverged at step 2.") == 1


def test_the_page_of_a_study_without_sequences_and_probes_does_not_name_them(inputs, tmp_path):
    text = page(tmp_path / "report", inputs, missing_probes=[], missing_sequences=[])
    assert "Sequences" not in text and "Probes" not in text


def test_the_page_needs_no_network_and_no_other_file(inputs, tmp_path):
    text = page(tmp_path / "report", inputs)
    places = re.findall(r"(?:src|href)=\"([^\"]{1,30})", text)
    assert places and all(place.startswith(("data:image/png;base64,", "#")) for place in places)
    assert not re.search(r"@import|url\(|<script", text)
    assert len(re.findall("<img ", text)) == 5, "the charts"


def test_the_page_lists_protocol_costs_and_provenance(inputs, tmp_path):
    text = page(tmp_path / "report", inputs)
    assert "guidance_scale" in text and "9.0" in text
    assert "A100" in text and "c0ffee" in text and "Python 3.11.0 on x86_64" in text


# Costs


def lines_of_costs(inputs: Mapping[str, Manifest]) -> dict[tuple[str, str], dict[str, str]]:
    lines = csv.DictReader(costs_csv(costs_of_rows(ROWS, inputs)).splitlines())
    return {(line["row"], line["stage"]): line for line in lines}


def test_costs_of_a_row_are_those_of_its_own_jobs_over_all_seeds(inputs):
    lines = lines_of_costs(inputs)
    esd, core = lines["esd", "all"], lines["core", "all"]
    assert (esd["seeds"], esd["jobs"], esd["wall_seconds"]) == ("1", "4", "102.0")
    assert (core["seeds"], core["jobs"], core["wall_seconds"]) == ("2", "8", "264.0"), "with 60 s of an earlier attempt"
    assert lines["core", "unlearning"]["peak_memory_mib"] == "901"
    assert float(esd["gpu_hours"]) == pytest.approx(90 / 3600, abs=5e-4), "jobs on a CPU count no GPU hours"
    assert esd["devices"] == "A100, cpu"


def test_jobs_behind_all_rows_are_counted_once(inputs):
    shared = lines_of_costs(inputs)["all rows", "all"]
    cells_of_four_models = 4
    assert float(shared["wall_seconds"]) == 1000 + 100 + 10 + 7 + cells_of_four_models
    assert ("original", "all") not in lines_of_costs(inputs)


def test_costs_do_not_depend_on_the_order_of_rows_or_seeds(inputs):
    reordered = [*reversed(ROWS[:2]), ROWS[2].model_copy(update={"seeds": list(reversed(ROWS[2].seeds))})]
    assert sorted(costs_csv(costs_of_rows(reordered, inputs)).splitlines()) == sorted(
        costs_csv(costs_of_rows(ROWS, inputs)).splitlines()
    )


def test_a_run_without_a_record_costs_nothing(inputs):
    (path,) = inputs["Forget01/esd/0"].folder.parents[1].glob("unlearning/esd-*/manifest.provenance.json")
    path.unlink()
    assert lines_of_costs(inputs)["esd", "all"]["wall_seconds"] == "42.0"


def test_a_row_without_any_record_has_no_costs(inputs):
    for path in inputs["Forget01/esd/0"].folder.parents[1].glob("*/*/manifest.provenance.json"):
        path.unlink()
    assert "| Forget01 | ESD | 1 | not on record |" in costs_markdown(costs_of_rows(ROWS, inputs))


def test_the_table_of_costs_has_a_line_for_each_row(inputs):
    lines = costs_markdown(costs_of_rows(ROWS, inputs)).splitlines()
    assert "| Forget01 | CORE (ours) | 2 | 180 | 60 | 24 | 264 | 0.07 | 901 | 0.0 |" in lines


@pytest.mark.parametrize("chart", CHART_CAPTIONS)
def test_snakemakes_report_has_the_same_captions(chart):
    caption = (REPOSITORY / f"rules/captions/{chart}.rst").read_text()
    assert " ".join(caption.split()) == CHART_CAPTIONS[chart]

"""Charts and the report of a study as targets: made of what is built, judged by content, and building nothing else.

The export of all numbers, from the same results.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from support.checkout import Checkout

REPORT, CHARTS = "results/tiny/report.html", "results/tiny/charts1.tradeoff.pdf"


def page(checkout: Checkout) -> str:
    return (checkout.folder / REPORT).read_text()


def test_report_and_charts_are_made_of_what_is_built(workplace: Checkout) -> None:
    checkout = workplace
    assert checkout.planned(REPORT, CHARTS) == {"write_report": 1, "draw_charts": 1}
    done = checkout.snakemake("--cores", "2", REPORT, CHARTS)
    assert done.returncode == 0, done.stdout
    assert "6 of 6 rows of the tables are built" in page(checkout)
    assert checkout.planned(REPORT, CHARTS) == {}
    assert checkout.python("-m", "corelib", "verify").returncode == 0

    with (checkout.folder / "results/tiny/report.costs.csv").open() as stream:
        costs = {(line["task"], line["row"], line["stage"]): line for line in csv.DictReader(stream)}
    assert {("Forget01", "core", "unlearning"), ("Forget02", "esd", "all"), ("", "all rows", "all")} <= costs.keys()
    assert all(float(line["wall_seconds"]) > 0 and int(line["peak_memory_mib"]) > 0 for line in costs.values())

    for name in (REPORT, "results/tiny/report.costs.csv", CHARTS):
        path = checkout.folder / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        assert "changed since it was written" in checkout.python("-m", "corelib", "why", name).stdout
        assert sum(checkout.planned(name).values()) == 1
    assert checkout.snakemake("--cores", "2", REPORT, CHARTS).returncode == 0
    assert checkout.planned(REPORT, CHARTS) == {}

    done = checkout.snakemake("--report", "all.html", "results/tiny/table1.csv", REPORT, CHARTS)
    assert done.returncode == 0, done.stdout
    text = (checkout.folder / "all.html").read_text()
    for expected in ("charts1.tradeoff.png", "table1.csv", "report.html", "The upper right corner is best"):
        assert expected in text


def test_the_report_of_a_half_built_study_names_what_is_missing(checkout: Checkout) -> None:
    for path in (checkout.folder / "runs/cells").glob("esd-forget01-*"):
        path.rename(checkout.folder / path.name)
    assert checkout.planned(REPORT) == {"write_report": 1}
    assert checkout.snakemake("--cores", "1", REPORT).returncode == 0
    assert "5 of 6 rows of the tables are built" in page(checkout)
    assert "<li>Forget01, ESD</li>" in page(checkout)
    together = checkout.planned(REPORT, "results/tiny/table1.csv")
    assert together["count_cells"] == 1 and together["write_report"] == 1
    for path in checkout.folder.glob("esd-forget01-*"):
        path.rename(checkout.folder / "runs/cells" / path.name)
    assert checkout.planned(REPORT) == {"write_report": 1}, "there is more to show"


@pytest.mark.parametrize(
    ("file", "old", "new", "rebuilt"),
    [
        pytest.param(
            *("corelib/reports/report_template.py", "max-width: 72rem", "max-width: 60rem", {"write_report": 1}),
            marks=pytest.mark.slow,
        ),
        ("corelib/reports/chart_style.py", '"font.size": 8', '"font.size": 9', {"write_report": 1, "draw_charts": 1}),
        pytest.param("rules/captions/tradeoff.rst", "Unlearning", "Our unlearning", {}, marks=pytest.mark.slow),
        ("rules/reports.smk", 'category="Figures"', 'category="Pictures"', {}),
    ],
)
def test_a_change_of_the_look_computes_no_stage_anew(
    file: str, old: str, new: str, rebuilt: dict[str, int], checkout: Checkout
) -> None:
    targets = (REPORT, CHARTS, "results/tiny/table1.csv", "results/tiny/figure2.png")
    assert checkout.snakemake("--cores", "2", *targets).returncode == 0
    assert checkout.planned(*targets) == {}
    checkout.edit(file, old, new)
    assert checkout.planned(*targets) == rebuilt


def test_all_numbers_of_a_built_table_are_exported(built: Checkout, tmp_path: Path) -> None:
    done = built.python("-m", "corelib", "export", "results", "tiny", str(tmp_path / "numbers"))
    assert done.returncode == 0 and "of table1; everything is built" in done.stdout, done.stdout
    cells = pd.read_csv(built.folder / "results/tiny/table1.cells.csv")
    numbers = pd.read_csv(tmp_path / "numbers/results.csv")
    same = ["task", "row", "metric", "k", "n", "value", "low", "high", "interval"]
    pd.testing.assert_frame_equal(numbers[same], cells[same])
    content = json.loads((tmp_path / "numbers/results.json").read_text())
    jobs = pd.read_csv(built.folder / "results/tiny/table1.provenance.csv")
    for record in content["records"]:
        behind = jobs[
            (jobs[["task", "row", "metric"]] == [record[key] for key in ("task", "row", "metric")]).all(axis=1)
        ]
        assert record["runs"][:-1] == list(dict.fromkeys(behind["stage"] + "/" + behind["run"]))
        assert (built.folder / "runs" / record["runs"][-1] / "manifest.json").exists()

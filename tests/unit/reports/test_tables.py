"""Tables: the paper's columns and row order, verdicts, Markdown, and the cells behind every number."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from decimal import Decimal
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import records
from support.checkout import REPOSITORY

from corelib.evaluation.metrics import CELLS, Count
from corelib.files.hashing import sha256_of_path
from corelib.files.json_files import write_json
from corelib.files.sealed_json import write_record
from corelib.reports.tables import (
    METRICS,
    Published,
    provenance_csv,
    read_published,
    table_line,
    tabulate,
    to_csv,
    to_latex,
    to_markdown,
    verdict,
)
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.reports import TableRow, TableStage
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published

CONFIGURATION = REPOSITORY / "config"
PUBLISHED = [
    ["table1", "Forget01", "esd", "UA", "100.00", "30", "30"],
    ["table1", "Forget01", "esd", "IRA", "66.00", "99", "150"],
    ["table1", "Forget01", "esd", "CRA", "96.11", "173", "180"],
    ["table1", "Forget01", "esd", "SFID", "96.95", "", ""],
    ["table1", "Forget01", "esd", "Total", "359.06", "", ""],
    ["table2", "Forget01", "esd", "UA", "1.00", "1", "100"],
]
ESD = {"UA": (29, 30), "IRA": (140, 150), "CRA": (170, 180), "FID": 40.0, "FID_of_original": 30.0}
CORE = {"UA": (28, 30), "IRA": (147, 150), "CRA": (173, 180), "FID": 30.0, "FID_of_original": 30.0}


def cells(folder: Path, numbers: dict, flagged: int = 0, diverged_at: int | None = None) -> Manifest:
    """The manifest of an evaluated run in `folder`."""
    counts = {name: {"k": numbers[name][0], "n": numbers[name][1]} for name in ("UA", "IRA", "CRA")}
    distances = {name: numbers[name] for name in ("FID", "FID_of_original")}
    write_json(folder / CELLS, {**counts, **distances, "flagged": flagged, "diverged_at": diverged_at})
    return records.manifest(folder, {CELLS: sha256_of_path(folder / CELLS)}, stage="cells")


def row(name: str, title: str, task: str = "Forget01") -> TableRow:
    return TableRow(task=task, row=name, title=title, cells=f"{task}/{name}")


def table(
    folder: Path, comparable: bool = True, published: str | None = "table1", **evaluations: Manifest
) -> StageContext:
    """Tabulate ESD and CORE of two tasks; in the second one, CORE diverged."""
    rows = [
        row("esd", "ESD"),
        row("core", "CORE (ours)"),
        row("esd", "ESD", "Forget06"),
        row("core", "CORE (ours)", "Forget06"),
    ]
    inputs = {
        "Forget01/esd": cells(folder / "esd-forget01-aaaa", ESD),
        "Forget01/core": cells(folder / "core-forget01-bbbb", CORE),
        "Forget06/esd": cells(folder / "esd-forget06-cccc", CORE, flagged=3),
        "Forget06/core": cells(folder / "core-forget06-dddd", ESD, flagged=2, diverged_at=71),
    }
    settings = TableStage(
        name="table1",
        rows=rows,
        published=[line[1:] for line in PUBLISHED if line[0] == published],
        comparable=comparable,
    )
    work = StageContext(folder / "table", "0" * 64, inputs | evaluations)
    work.folder.mkdir()
    outcome = tabulate(settings, work)
    assert outcome.files == [
        "table1.cells.csv",
        "table1.csv",
        "table1.md",
        "table1.tex",
    ]
    assert outcome.records == ["table1.provenance.csv"]
    return work


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def fisher(k: int, n: int, m: int, o: int) -> float:
    """The two-sided p value of Fisher's exact test, summed from the hypergeometric distribution in whole numbers."""
    successes = k + m
    possible = range(max(0, successes - o), min(n, successes) + 1)
    weights = {hits: comb(n, hits) * comb(o, successes - hits) for hits in possible}
    return sum(weight for weight in weights.values() if weight <= weights[k]) / comb(n + o, successes)


# The table


def test_a_table_has_the_papers_columns_and_a_remark_and_its_rows_in_the_order_of_its_settings(tmp_path):
    text = (table(tmp_path).folder / "table1.csv").read_text()
    assert text == (
        "Task,Algorithm,UA,IRA,CRA,SFID,Total,Remark\n"
        "Forget01,ESD,96.67,93.33,94.44,75.00,359.44,\n"
        "Forget01,CORE (ours),93.33,98.00,96.11,100.00,387.44,\n"
        "Forget06,ESD,93.33,98.00,96.11,100.00,387.44,3 images constant or not finite\n"
        "Forget06,CORE (ours),96.67,93.33,94.44,75.00,359.44,"
        "diverged at step 71; 2 images constant or not finite\n"
    )


def test_table_1_of_the_paper_lists_its_methods_task_by_task():
    settings = Plan("paper", load_study("paper", CONFIGURATION), load_published(CONFIGURATION)).table("table1").settings
    methods = ["original", "ediff", "ca_model", "ca_noise", "salun", "esd", "core"]
    assert [(line.task, line.row) for line in settings.rows] == [
        (task, method) for task in ("Forget01", "Forget06", "Forget25") for method in methods
    ]
    titles = ["Original", "Ediff", "CA-model", "CA-noise", "SalUn", "ESD", "CORE (ours)"]
    assert [line.title for line in settings.rows] == titles * 3


def test_every_row_of_every_table_of_the_paper_has_published_numbers():
    with (CONFIGURATION / "published.csv").open(newline="") as stream:
        published = list(csv.reader(stream))[1:]
    plan = Plan("paper", load_study("paper", CONFIGURATION), published)
    for name in ("table1", "table2", "table3", "table4"):
        settings = plan.table(name).settings
        expected = {(line.task, line.row, metric) for line in settings.rows for metric in METRICS}
        assert set(read_published(settings.published)) == expected


def test_a_title_with_a_comma_stays_one_column(tmp_path):
    line = table_line(row("esd", 'ESD, "guided"'), cells(tmp_path / "run", ESD))
    assert list(csv.reader(io.StringIO(to_csv([line]))))[1][:2] == ["Forget01", 'ESD, "guided"']


def test_the_total_is_the_sum_of_the_printed_values(tmp_path):
    for line in read_csv(table(tmp_path).folder / "table1.csv"):
        assert Decimal(line["Total"]) == sum(Decimal(line[name]) for name in ("UA", "IRA", "CRA", "SFID"))


def test_markdown_has_a_section_for_each_task_and_the_best_total_in_bold(tmp_path):
    text = (table(tmp_path).folder / "table1.md").read_text()
    assert text == (
        "### Forget01\n"
        "\n"
        "| Algorithm | UA (↑) | IRA (↑) | CRA (↑) | SFID (↑) | Total (↑) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| ESD | 96.67 | 93.33 | 94.44 | 75.00 | 359.44 |\n"
        "| CORE (ours) | 93.33 | 98.00 | 96.11 | 100.00 | **387.44** |\n"
        "\n"
        "### Forget06\n"
        "\n"
        "| Algorithm | UA (↑) | IRA (↑) | CRA (↑) | SFID (↑) | Total (↑) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| ESD (3 images constant or not finite) | 93.33 | 98.00 | 96.11 | 100.00 | 387.44 |\n"
        "| CORE (ours) (diverged at step 71; 2 images constant or not finite) "
        "| 96.67 | 93.33 | 94.44 | 75.00 | 359.44 |\n"
        "\n"
        "Of 3 accuracies that the paper also prints, 1 differs (Fisher's exact test at 5 %). If all were equal, "
        "0.062 would differ by chance; 1 or more with a probability of 0.061 (cells taken as independent).\n"
    )


def test_markdown_notes_how_many_accuracies_would_differ_by_chance(tmp_path):
    """Compared with a simulation of the same cells with equal accuracies, pooled from both counts."""
    sentence = (table(tmp_path).folder / "table1.md").read_text().splitlines()[-1]
    stated, min_count, probability = re.search(
        r"equal, (\S+) would .*; (\d+) or more with a probability of (\S+) ", sentence
    ).groups()
    draws, num_draws = np.random.default_rng(0), 20_000
    differing = np.zeros(num_draws, dtype=int)
    for (k, n), (m, o) in ((ESD["UA"], (30, 30)), (ESD["IRA"], (99, 150)), (ESD["CRA"], (173, 180))):
        share = (k + m) / (n + o)
        pairs = np.stack([draws.binomial(n, share, num_draws), draws.binomial(o, share, num_draws)], axis=1)
        known = {pair: fisher(pair[0], n, pair[1], o) < 0.05 for pair in {(int(a), int(b)) for a, b in pairs}}
        differing += [known[int(a), int(b)] for a, b in pairs]
    assert differing.mean() == pytest.approx(float(stated), abs=0.01)
    assert (differing >= int(min_count)).mean() == pytest.approx(float(probability), abs=0.01)


def test_there_is_no_note_on_chance_if_nothing_is_comparable(tmp_path):
    for name, comparable, published in (("other world", False, "table1"), ("unpublished", True, None)):
        text = (table(tmp_path / name, comparable, published).folder / "table1.md").read_text()
        assert "chance" not in text and text.endswith("|\n")


def test_latex_is_a_table_of_booktabs_with_the_best_total_of_each_task_in_bold(tmp_path):
    text = (table(tmp_path).folder / "table1.tex").read_text()
    assert text == (
        r"""\begin{tabular}{lrrrrr}
\toprule
Algorithm & UA ($\uparrow$) & IRA ($\uparrow$) & CRA ($\uparrow$) & SFID ($\uparrow$) & Total ($\uparrow$) \\
\midrule
\multicolumn{6}{l}{\emph{Forget01}} \\
ESD & 96.67 & 93.33 & 94.44 & 75.00 & 359.44 \\
CORE (ours) & 93.33 & 98.00 & 96.11 & 100.00 & \textbf{387.44} \\
\midrule
\multicolumn{6}{l}{\emph{Forget06}} \\
ESD (3 images constant or not finite) & 93.33 & 98.00 & 96.11 & 100.00 & 387.44 \\
CORE (ours) (diverged at step 71; 2 images constant or not finite) & 96.67 & 93.33 & 94.44 & 75.00 & 359.44 \\
\bottomrule
\end{tabular}
"""
    )


def test_latex_escapes_its_special_characters(tmp_path):
    line = table_line(row("x", r"A_b & 50% {c}\ ~^#$"), cells(tmp_path / "run", CORE))
    assert r"A\_b \& 50\% \{c\}\textbackslash{} \textasciitilde{}\textasciicircum{}\#\$ & 93.33" in to_latex([line])


def test_equal_best_totals_are_both_bold(tmp_path):
    lines = [table_line(row(name, name), cells(tmp_path / name, CORE)) for name in ("first", "second")]
    assert to_markdown(lines).count("**387.44**") == 2


@pytest.mark.parametrize("doubt", [{"diverged_at": 0}, {"flagged": 1}])
def test_a_row_with_a_remark_is_never_bold_and_the_best_of_the_others_is(tmp_path, doubt):
    best = table_line(row("best", "Best"), cells(tmp_path / "best", CORE, **doubt))
    second = table_line(row("second", "Second"), cells(tmp_path / "second", ESD))
    for text, bold in ((to_markdown([best, second]), "**{}**"), (to_latex([best, second]), r"\textbf{{{}}}")):
        assert bold.format("359.44") in text
        assert "387.44" in text and bold.format("387.44") not in text
    assert "**" not in to_markdown([best])
    assert r"\textbf" not in to_latex([best])


def test_a_total_that_is_not_a_number_is_never_bold_and_the_best_of_the_others_is(tmp_path):
    good = table_line(row("good", "Good"), cells(tmp_path / "good", ESD))
    strange = replace(table_line(row("strange", "Strange"), cells(tmp_path / "strange", CORE)), sfid=Decimal("NaN"))
    for lines in ([good, strange], [strange, good]):
        assert to_markdown(lines).count("**") == 2 and "**359.44**" in to_markdown(lines)
        assert to_latex(lines).count(r"\textbf") == 1 and r"\textbf{359.44}" in to_latex(lines)


def test_the_remark_on_one_image_is_in_the_singular(tmp_path):
    line = table_line(row("esd", "ESD"), cells(tmp_path / "run", ESD, flagged=1))
    assert line.remark == "1 image constant or not finite"


def test_a_run_that_diverged_at_its_first_step_has_a_remark(tmp_path):
    assert table_line(row("esd", "ESD"), cells(tmp_path / "run", ESD, diverged_at=0)).remark == "diverged at step 0"


# The cells of a table


def test_cells_list_every_metric_of_every_row_with_its_run(tmp_path):
    lines = read_csv(table(tmp_path).folder / "table1.cells.csv")
    assert list(lines[0]) == [
        "task", "row", "metric", "k", "n", "value", "low", "high", "published",
        "published_k", "published_n", "verdict", "diverged_at", "flagged", "gate", "run",
    ]  # fmt: skip
    assert [(line["task"], line["row"], line["metric"]) for line in lines] == [
        (task, name, metric)
        for task in ("Forget01", "Forget06")
        for name in ("esd", "core")
        for metric in ("UA", "IRA", "CRA", "SFID", "Total")
    ]
    assert [line["run"] for line in lines[::5]] == [
        "esd-forget01-aaaa", "core-forget01-bbbb", "esd-forget06-cccc", "core-forget06-dddd",
    ]  # fmt: skip


def record(runs: Path, run: str, commit: str, device: str, **builds_on: str) -> Path:
    """Write the specification and the provenance record of a run, `STAGE/SLUG`, and return its folder."""
    stage, _, slug = run.partition("/")
    folder = runs / f"{run}{DIGEST}"
    planned = records.specification(stage, slug, {role: f"{name}{DIGEST}" for role, name in builds_on.items()})
    write_record(folder / "specification.json", planned)
    made = records.provenance(planned, records.manifest_record(planned), commit=commit, device=device)
    write_record(folder / "manifest.provenance.json", made)
    return folder


DIGEST = "-0123456789ab"


def test_provenance_names_run_commit_and_device_of_each_job_behind_a_cell(tmp_path):
    runs = tmp_path / "runs"
    folder = record(
        runs, "cells/core", "c4", "cpu", predictions="predictions/core", fid="fid/core", fid_of_original="fid/original"
    )
    evaluations = cells(folder, CORE)
    record(runs, "predictions/core", "c3", "A100", samples="samples/core")
    record(runs, "fid/core", "c3", "H100", samples="samples/core")
    record(runs, "fid/original", "c1", "A100", samples="samples/original")
    record(runs, "samples/original", "c1", "cpu")
    samples = record(runs, "samples/core", "c2", "cpu", delta="unlearning/core")
    (samples / "shards").mkdir()
    for shard, device in (("0000-of-0002", "A100"), ("0001-of-0002", "H100")):  # the gathering job is not listed
        share = record(tmp_path, f"share/{shard}", "c2", device)
        (share / "manifest.provenance.json").rename(samples / f"shards/{shard}.provenance.json")
    record(runs, "unlearning/core", "c1", "A100")
    line = table_line(row("core", "CORE"), evaluations)
    stages = {metric: [origin.stage for origin in line.jobs_behind(metric)] for metric in ("UA", "SFID", "Total")}
    assert stages == {
        "UA": ["unlearning", "samples", "samples", "predictions"],
        "SFID": ["unlearning", "samples", "samples", "fid", "samples", "fid"],
        "Total": ["unlearning", "samples", "samples", "predictions", "fid", "samples", "fid"],
    }
    made = list(csv.DictReader(provenance_csv([line]).splitlines()))
    columns = [[job[key] for key in ("metric", "stage", "run", "commit", "device")] for job in made[:4]]
    assert [(metric, stage, run.removesuffix(DIGEST), *rest) for metric, stage, run, *rest in columns] == [
        ("UA", "unlearning", "core", "c1", "A100"), ("UA", "samples", "core", "c2", "A100"),
        ("UA", "samples", "core", "c2", "H100"), ("UA", "predictions", "core", "c3", "A100"),
    ]  # fmt: skip


def test_a_job_with_a_damaged_or_missing_record_is_listed_as_not_on_record(tmp_path):
    """The number itself is certain, because its manifest contains its hash."""
    folder = record(tmp_path / "runs", "cells/core", "c4", "cpu", predictions="predictions/core")
    evaluations = cells(folder, CORE)
    path = record(tmp_path / "runs", "predictions/core", "c3", "A100") / "manifest.provenance.json"
    (origin,) = table_line(row("core", "CORE"), evaluations).jobs_behind("UA")
    assert (origin.run, origin.device, origin.host) == (f"core{DIGEST}", "A100", "here")
    path.write_text(path.read_text().replace("here", "hare"))
    (damaged,) = table_line(row("core", "CORE"), evaluations).jobs_behind("UA")
    path.unlink()
    (missing,) = table_line(row("core", "CORE"), evaluations).jobs_behind("UA")
    assert damaged == missing and (missing.run, missing.commit, missing.device) == (
        f"core{DIGEST}",
        None,
        "not on record",
    )


def test_cells_hold_counts_intervals_published_numbers_and_verdicts(tmp_path):
    text = (table(tmp_path).folder / "table1.cells.csv").read_text()
    assert text.splitlines()[1:6] == [
        "Forget01,esd,UA,29,30,96.67,83.33,99.41,100.00,30,30,compatible,,0,off,esd-forget01-aaaa",
        "Forget01,esd,IRA,140,150,93.33,88.16,96.34,66.00,99,150,differs,,0,off,esd-forget01-aaaa",
        "Forget01,esd,CRA,170,180,94.44,90.08,96.95,96.11,173,180,compatible,,0,off,esd-forget01-aaaa",
        "Forget01,esd,SFID,,,75.00,,,96.95,,,not comparable,,0,off,esd-forget01-aaaa",
        "Forget01,esd,Total,,,359.44,,,359.06,,,not comparable,,0,off,esd-forget01-aaaa",
    ]


def test_a_row_that_the_paper_does_not_have_is_not_comparable(tmp_path):
    lines = read_csv(table(tmp_path).folder / "table1.cells.csv")
    core = [line for line in lines if line["row"] == "core"]
    assert len(core) == 10
    assert {(line["published"], line["published_k"], line["verdict"]) for line in core} == {("", "", "not comparable")}


@pytest.mark.parametrize(
    ("comparable", "published", "has_numbers"), [(False, "table1", True), (True, None, False), (False, None, False)]
)
def test_nothing_is_comparable_outside_the_papers_world_or_without_a_published_table(
    tmp_path, comparable, published, has_numbers
):
    lines = read_csv(table(tmp_path, comparable, published).folder / "table1.cells.csv")
    assert {line["verdict"] for line in lines} == {"not comparable"}
    assert any(line["published"] for line in lines) == has_numbers


def test_published_numbers_come_only_from_the_named_table():
    study = load_study("paper", CONFIGURATION).model_copy(update={"gate": None})
    plan = Plan("paper", study, PUBLISHED)
    assert read_published(plan.table("table2").settings.published) == {
        ("Forget01", "esd", "UA"): Published("1.00", Count(1, 100))
    }
    assert read_published(plan.table("table1").settings.published)["Forget01", "esd", "SFID"] == Published(
        "96.95", None
    )
    unpublished = study.model_copy(
        update={"tables": {"table1": study.tables["table1"].model_copy(update={"published": None})}}
    )
    assert Plan("paper", unpublished, PUBLISHED).table("table1").settings.published == []


# Verdicts


@settings(deadline=None)
@given(
    n=st.integers(min_value=1, max_value=80),
    o=st.integers(min_value=1, max_value=80),
    shares=st.tuples(st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1)),
)
def test_the_verdict_is_fishers_exact_test_at_five_percent(n, o, shares):
    k, m = round(shares[0] * n), round(shares[1] * o)
    expected = "compatible" if fisher(k, n, m, o) >= 0.05 else "differs"
    assert verdict(Count(k, n), Published("", Count(m, o)), comparable=True) == expected
    assert verdict(Count(m, o), Published("", Count(k, n)), comparable=True) == expected


@pytest.mark.parametrize(("k", "n"), [(0, 30), (30, 30), (13, 500), (260, 520)])
def test_a_result_is_compatible_with_itself(k, n):
    assert verdict(Count(k, n), Published("", Count(k, n)), comparable=True) == "compatible"


@pytest.mark.parametrize(("n", "last_compatible"), [(30, 25), (60, 55), (500, 495)])
def test_the_verdict_on_a_perfect_published_score_changes_between_two_neighbouring_counts(n, last_compatible):
    perfect = Published("100.00", Count(n, n))
    assert verdict(Count(last_compatible, n), perfect, comparable=True) == "compatible"
    assert verdict(Count(last_compatible - 1, n), perfect, comparable=True) == "differs"


# The gate


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_table_names_the_outcome_of_the_gate(tmp_path, outcome):
    plain = table(tmp_path / "plain").folder
    gated = table(tmp_path / "gated", gate=records.manifest(tmp_path, facts={"outcome": outcome}, stage="gate")).folder
    assert (gated / "table1.md").read_text() == (plain / "table1.md").read_text() + f"\nGate: {outcome}.\n"
    assert (gated / "table1.tex").read_text().startswith(f"% gate: {outcome}\n")
    assert {line["gate"] for line in read_csv(gated / "table1.cells.csv")} == {outcome}
    assert (gated / "table1.csv").read_text() == (plain / "table1.csv").read_text()

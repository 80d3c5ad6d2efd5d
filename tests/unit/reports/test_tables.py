"""Tables: the paper's columns and row order, verdicts, Markdown, and the cells behind every number."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import records
from support.checkout import REPOSITORY
from support.evaluated import CORE, ESD, cells, role, row

from corelib.evaluation.metrics import Count
from corelib.evaluation.seed_statistics import prediction_p_value
from corelib.files.sealed_json import write_record
from corelib.reports.paper_comparison import Published, chance_note, compare_with_paper, read_published, verdict
from corelib.reports.seed_numbers import METRICS, SeedNumbers
from corelib.reports.table_cells import cells_csv
from corelib.reports.table_lines import TableLine, table_line
from corelib.reports.table_pairs import pairs_csv
from corelib.reports.table_provenance import provenance_csv
from corelib.reports.table_styles import accuracies_csv
from corelib.reports.tables import FILES_NOTE, METRIC_NOTES, tabulate, to_csv, to_latex, to_markdown
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

NOTES = " ".join([*METRIC_NOTES.values(), FILES_NOTE])


def line_of(one: TableRow, *evaluated: Manifest) -> TableLine:
    """The line of a row, from the cells of its seeds."""
    return table_line(one, {seed.cells: manifest for seed, manifest in zip(one.seeds, evaluated, strict=True)})


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
        role("Forget01", "esd", 0): cells(folder / "esd-forget01-aaaa", ESD),
        role("Forget01", "core", 0): cells(folder / "core-forget01-bbbb", CORE),
        role("Forget06", "esd", 0): cells(folder / "esd-forget06-cccc", CORE, flagged=3),
        role("Forget06", "core", 0): cells(folder / "core-forget06-dddd", ESD, flagged=2, diverged_at=71),
    }
    settings = TableStage(
        name="table1",
        rows=rows,
        published=[line[1:] for line in PUBLISHED if line[0] == published],
        comparable=comparable,
        note="" if comparable else "A note.",
    )
    work = StageContext(folder / "table", "0" * 64, inputs | evaluations)
    work.folder.mkdir()
    outcome = tabulate(settings, work)
    assert outcome.files == [
        "table1.cells.csv",
        "table1.confusion.csv",
        "table1.csv",
        "table1.md",
        "table1.pairs.csv",
        "table1.styles.csv",
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
        "Task,Algorithm,UA,IRA,CRA,SFID,Total,Seeds,UA sd,IRA sd,CRA sd,SFID sd,Total sd,Remark\n"
        "Forget01,ESD,96.67,93.33,94.44,75.00,359.44,1,,,,,,\n"
        "Forget01,CORE (ours),93.33,98.00,96.11,100.00,387.44,1,,,,,,\n"
        "Forget06,ESD,93.33,98.00,96.11,100.00,387.44,1,,,,,,3 images constant or not finite\n"
        "Forget06,CORE (ours),96.67,93.33,94.44,75.00,359.44,1,,,,,,"
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
    line = line_of(row("esd", 'ESD, "guided"'), cells(tmp_path / "run", ESD))
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
        f"{NOTES}\n"
        "\n"
        "Of 3 accuracies that the paper also reports, 1 differs (Fisher's exact test at 5 %); 1 of them also after "
        "Holm's correction, which allows one false positive in 20 tables. If all true accuracies were equal, 0.062 "
        "would differ by chance on average, and 1 or more with a probability of 0.061 (assuming independent "
        "accuracies).\n"
    )


def test_markdown_notes_how_many_accuracies_would_differ_by_chance(tmp_path):
    """Compared with a simulation of the same cells with equal accuracies, pooled from both counts."""
    sentence = (table(tmp_path).folder / "table1.md").read_text().splitlines()[-1]
    stated, min_count, probability = re.search(
        r"equal, (\S+) would .*, and (\d+) or more with a probability of (\S+) ", sentence
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
        assert "chance" not in text
        assert text.endswith(f"\n{NOTES}\n" if comparable else f"\n{NOTES}\n\nA note.\n")


def test_latex_is_a_table_of_booktabs_with_the_best_total_of_each_task_in_bold(tmp_path):
    text = (table(tmp_path).folder / "table1.tex").read_text()
    assert text == (
        r"""% \usepackage{booktabs}
\begin{tabular}{lrrrrr}
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
    line = line_of(row("x", r"A_b & 50% {c}\ ~^#$ <|>"), cells(tmp_path / "run", CORE))
    expected = r"A\_b \& 50\% \{c\}\textbackslash{} \textasciitilde{}\textasciicircum{}\#\$ "
    assert expected + r"\textless{}\textbar{}\textgreater{} & 93.33" in to_latex([line])


def test_equal_best_totals_are_both_bold(tmp_path):
    lines = [line_of(row(name, name), cells(tmp_path / name, CORE)) for name in ("first", "second")]
    assert to_markdown(lines).count("**387.44**") == 2


def test_the_original_model_is_never_bold(tmp_path):
    original = line_of(row("original", "Original", seeds=(None,)), cells(tmp_path / "original", CORE))
    worse = line_of(row("worse", "Worse"), cells(tmp_path / "worse", ESD))
    assert "**359.44**" in to_markdown([original, worse]) and "**387.44**" not in to_markdown([original, worse])


@pytest.mark.parametrize("doubt", [{"diverged_at": 0}, {"flagged": 1}])
def test_a_row_with_a_remark_is_never_bold_and_the_best_of_the_others_is(tmp_path, doubt):
    best = line_of(row("best", "Best"), cells(tmp_path / "best", CORE, **doubt))
    second = line_of(row("second", "Second"), cells(tmp_path / "second", ESD))
    for text, bold in ((to_markdown([best, second]), "**{}**"), (to_latex([best, second]), r"\textbf{{{}}}")):
        assert bold.format("359.44") in text
        assert "387.44" in text and bold.format("387.44") not in text
    assert "**" not in to_markdown([best])
    assert r"\textbf" not in to_latex([best])


def test_a_total_that_is_not_a_number_is_never_bold_and_the_best_of_the_others_is(tmp_path):
    good = line_of(row("good", "Good"), cells(tmp_path / "good", ESD))
    strange = line_of(row("strange", "Strange"), cells(tmp_path / "strange", CORE))
    strange = replace(strange, seeds=[replace(strange.seeds[0], sfid=Decimal("NaN"))])
    for lines in ([good, strange], [strange, good]):
        assert to_markdown(lines).count("**") == 2 and "**359.44**" in to_markdown(lines)
        assert to_latex(lines).count(r"\textbf") == 1 and r"\textbf{359.44}" in to_latex(lines)


def test_the_remark_on_one_image_is_in_the_singular(tmp_path):
    line = line_of(row("esd", "ESD"), cells(tmp_path / "run", ESD, flagged=1))
    assert line.remark == "1 image constant or not finite"


def test_a_run_that_diverged_at_its_first_step_has_a_remark(tmp_path):
    assert line_of(row("esd", "ESD"), cells(tmp_path / "run", ESD, diverged_at=0)).remark == "diverged at step 0"


# The cells of a table


def test_cells_list_every_metric_of_every_row_with_its_run(tmp_path):
    lines = read_csv(table(tmp_path).folder / "table1.cells.csv")
    assert list(lines[0]) == [
        "task", "row", "metric", "seed", "k", "n", "value", "sd", "low", "high", "interval", "published",
        "published_k", "published_n", "test", "p", "p_holm", "verdict", "verdict_holm", "diverged_at", "flagged",
        "gate", "run",
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
    line = line_of(row("core", "CORE"), evaluations)
    stages = {
        metric: [origin.stage for origin in line.seeds[0].jobs_behind(metric)] for metric in ("UA", "SFID", "Total")
    }
    assert stages == {
        "UA": ["unlearning", "samples", "samples", "predictions"],
        "SFID": ["unlearning", "samples", "samples", "fid", "samples", "fid"],
        "Total": ["unlearning", "samples", "samples", "predictions", "fid", "samples", "fid"],
    }
    made = list(csv.DictReader(provenance_csv([line]).splitlines()))
    assert {(job["row"], job["seed"]) for job in made} == {("core", "0")}
    columns = [[job[key] for key in ("metric", "stage", "run", "commit", "device")] for job in made[:4]]
    assert [(metric, stage, run.removesuffix(DIGEST), *rest) for metric, stage, run, *rest in columns] == [
        ("UA", "unlearning", "core", "c1", "A100"), ("UA", "samples", "core", "c2", "A100"),
        ("UA", "samples", "core", "c2", "H100"), ("UA", "predictions", "core", "c3", "A100"),
    ]  # fmt: skip


def test_provenance_names_the_trainings_of_all_earlier_tasks_of_a_sequence(tmp_path):
    runs = tmp_path / "runs"
    folder = record(runs, "cells/third", "c4", "cpu", predictions="predictions/third")
    evaluations = cells(folder, CORE)
    record(runs, "predictions/third", "c3", "A100", samples="samples/third")
    record(runs, "samples/third", "c2", "A100", delta="unlearning/third")
    record(runs, "unlearning/third", "c1", "A100", start="unlearning/second")
    record(runs, "unlearning/second", "c1", "A100", start="unlearning/first")
    record(runs, "unlearning/first", "c1", "H100")
    jobs = line_of(row("core", "CORE"), evaluations).seeds[0].jobs_behind("UA")
    names = ["first", "second", "third", "third", "third"]
    assert [job.run.removesuffix(DIGEST) for job in jobs] == names


def test_a_job_with_a_damaged_or_missing_record_is_listed_as_not_on_record(tmp_path):
    """The number itself is certain, because its manifest contains its hash."""
    folder = record(tmp_path / "runs", "cells/core", "c4", "cpu", predictions="predictions/core")
    evaluations = cells(folder, CORE)
    path = record(tmp_path / "runs", "predictions/core", "c3", "A100") / "manifest.provenance.json"
    (origin,) = line_of(row("core", "CORE"), evaluations).seeds[0].jobs_behind("UA")
    assert (origin.run, origin.device, origin.host) == (f"core{DIGEST}", "A100", "here")
    path.write_text(path.read_text().replace("here", "hare"))
    (damaged,) = line_of(row("core", "CORE"), evaluations).seeds[0].jobs_behind("UA")
    path.unlink()
    (missing,) = line_of(row("core", "CORE"), evaluations).seeds[0].jobs_behind("UA")
    assert damaged == missing and (missing.run, missing.commit, missing.device) == (
        f"core{DIGEST}",
        None,
        "not on record",
    )


def test_cells_hold_counts_intervals_published_numbers_and_verdicts(tmp_path):
    text = (table(tmp_path).folder / "table1.cells.csv").read_text()
    assert text.splitlines()[1:6] == [
        "Forget01,esd,UA,0,29,30,96.67,,83.33,99.41,Wilson,100.00,30,30,Fisher,1,1,compatible,compatible,"
        ",0,off,esd-forget01-aaaa",
        "Forget01,esd,IRA,0,140,150,93.33,,88.16,96.34,Wilson,66.00,99,150,Fisher,2.991e-09,8.973e-09,differs,differs,"
        ",0,off,esd-forget01-aaaa",
        "Forget01,esd,CRA,0,170,180,94.44,,90.08,96.95,Wilson,96.11,173,180,Fisher,0.6205,1,compatible,compatible,"
        ",0,off,esd-forget01-aaaa",
        "Forget01,esd,SFID,0,,,75.00,,,,,96.95,,,,,,not comparable,not comparable,,0,off,esd-forget01-aaaa",
        "Forget01,esd,Total,0,,,359.44,,,,,359.06,,,,,,not comparable,not comparable,,0,off,esd-forget01-aaaa",
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


def verdict_on(ours: Count, theirs: Count) -> str:
    """The verdict on an accuracy of one seed."""
    numbers = SeedNumbers(0, "run", {"UA": ours}, Decimal(100), pd.DataFrame(), [], None, 0, {})
    line = TableLine(row("x", "X"), [numbers])
    found = compare_with_paper([line], {("Forget01", "x", "UA"): Published("", theirs)})
    return verdict(found["Forget01", "x", "UA"].differs)


@settings(deadline=None)
@given(
    n=st.integers(min_value=1, max_value=80),
    o=st.integers(min_value=1, max_value=80),
    shares=st.tuples(st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1)),
)
def test_the_verdict_is_fishers_exact_test_at_five_percent(n, o, shares):
    k, m = round(shares[0] * n), round(shares[1] * o)
    expected = "compatible" if fisher(k, n, m, o) >= 0.05 else "differs"
    assert verdict_on(Count(k, n), Count(m, o)) == verdict_on(Count(m, o), Count(k, n)) == expected


@pytest.mark.parametrize(("k", "n"), [(0, 30), (30, 30), (13, 500), (260, 520)])
def test_a_result_is_compatible_with_itself(k, n):
    assert verdict_on(Count(k, n), Count(k, n)) == "compatible"


@pytest.mark.parametrize(("n", "last_compatible"), [(30, 25), (60, 55), (500, 495)])
def test_the_verdict_on_a_perfect_published_score_changes_between_two_neighbouring_counts(n, last_compatible):
    assert verdict_on(Count(last_compatible, n), Count(n, n)) == "compatible"
    assert verdict_on(Count(last_compatible - 1, n), Count(n, n)) == "differs"


# The gate


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_table_names_the_outcome_of_the_gate(tmp_path, outcome):
    plain = table(tmp_path / "plain").folder
    gated = table(tmp_path / "gated", gate=records.manifest(tmp_path, facts={"outcome": outcome}, stage="gate")).folder
    assert (gated / "table1.md").read_text() == (plain / "table1.md").read_text() + f"\nGate: {outcome}.\n"
    assert (gated / "table1.tex").read_text().startswith(f"% gate: {outcome}\n")
    assert {line["gate"] for line in read_csv(gated / "table1.cells.csv")} == {outcome}
    assert (gated / "table1.csv").read_text() == (plain / "table1.csv").read_text()


# Training seeds


def seeds_of_core(folder: Path, order: Sequence[int] = (0, 1, 2)) -> TableLine:
    """CORE with three training seeds whose numbers differ."""
    numbers = {
        0: CORE,
        1: {"UA": (30, 30), "IRA": (141, 150), "CRA": (171, 180), "FID": 36.0, "FID_of_original": 30.0},
        2: {"UA": (27, 30), "IRA": (150, 150), "CRA": (180, 180), "FID": 31.0, "FID_of_original": 30.0},
    }
    evaluated = [cells(folder / f"core-s{seed}", numbers[seed]) for seed in order]
    return line_of(row("core", "CORE", seeds=order), *evaluated)


def test_several_seeds_are_a_mean_and_a_sample_standard_deviation(tmp_path):
    line = seeds_of_core(tmp_path)
    shares = {"UA": [28 / 30, 30 / 30, 27 / 30], "IRA": [147 / 150, 141 / 150, 150 / 150]}
    for metric, values in shares.items():
        assert float(line.means[metric]) == pytest.approx(100 * np.mean(values), abs=0.005)
        assert line.deviations[metric] == pytest.approx(100 * np.std(values, ddof=1))
    totals = [float(numbers.values["Total"]) for numbers in line.seeds]
    assert float(line.means["Total"]) == pytest.approx(np.mean(totals), abs=0.005)
    assert "| 94.44 ± 5.09 | 97.33 ± 3.06 |" in to_markdown([line])
    assert r"94.44 $\pm$ 5.09 & 97.33 $\pm$ 3.06" in to_latex([line])
    (printed,) = csv.DictReader(to_csv([line]).splitlines())
    assert (printed["UA"], printed["UA sd"], printed["Seeds"]) == ("94.44", "5.09", "3")


def test_cells_have_a_line_for_each_seed_and_one_for_all(tmp_path):
    lines = list(csv.DictReader(cells_csv([seeds_of_core(tmp_path)], {}, {}, "off").splitlines()))
    accuracies = [line for line in lines if line["metric"] == "UA"]
    assert [(line["seed"], line["k"], line["n"], line["interval"], line["verdict"]) for line in accuracies] == [
        ("0", "28", "30", "Wilson", ""),
        ("1", "30", "30", "Wilson", ""),
        ("2", "27", "30", "Wilson", ""),
        ("all", "85", "90", "t over 3 seeds", "not comparable"),
    ]
    assert accuracies[-1]["run"] == "core-s0 core-s1 core-s2"
    totals = [line for line in lines if line["metric"] == "Total"]
    assert [bool(line["low"]) for line in totals] == [False, False, False, True]


def test_several_seeds_are_compared_with_the_paper_by_their_prediction_interval(tmp_path):
    line, published = seeds_of_core(tmp_path), {("Forget01", "core", "UA"): Published("93.33", Count(28, 30))}
    comparison = compare_with_paper([line], published)["Forget01", "core", "UA"]
    assert comparison.test == "prediction"
    assert comparison.p_value == prediction_p_value(line.counts("UA"), Count(28, 30))
    assert chance_note([comparison]).startswith("Of 1 accuracies that the paper also reports, 0 differ (the prediction")


def test_permuted_seeds_and_rows_have_the_same_numbers(tmp_path):
    first, second = seeds_of_core(tmp_path / "a"), seeds_of_core(tmp_path / "b", (2, 0, 1))
    assert first.means == second.means
    assert first.deviations == pytest.approx(second.deviations)
    other = line_of(row("esd", "ESD"), cells(tmp_path / "esd", ESD))
    forward, backward = (
        list(csv.DictReader(pairs_csv(lines).splitlines())) for lines in ([first, other], [other, second])
    )
    for one, two in zip(forward, backward, strict=True):
        assert (one["p"], one["only_first"], one["images"]) == (two["p"], two["only_second"], two["images"])
        assert float(one["difference"]) == -float(two["difference"])


def test_a_remark_names_the_seed(tmp_path):
    evaluated = [cells(tmp_path / "0", CORE), cells(tmp_path / "1", CORE, diverged_at=7)]
    line = line_of(row("core", "CORE", seeds=(0, 1)), *evaluated)
    assert line.remark == "seed 1: diverged at step 7" and not line.may_be_best


# Pairs of rows


def test_rows_are_compared_image_by_image(tmp_path):
    lines = read_csv(table(tmp_path).folder / "table1.pairs.csv")
    assert [(line["task"], line["metric"], line["first"], line["second"]) for line in lines] == [
        (task, metric, "esd", "core") for task in ("Forget01", "Forget06") for metric in ("UA", "IRA", "CRA")
    ]
    ira = lines[1]
    assert (ira["only_first"], ira["only_second"], ira["images"], ira["difference"]) == ("0", "7", "150", "-4.67")
    assert (ira["test"], float(ira["p"])) == ("McNemar", pytest.approx(2 / 2**7, rel=1e-3))
    assert float(ira["p_holm"]) == pytest.approx(6 * 2 / 2**7, rel=1e-3)


def test_the_original_is_compared_with_each_seed_and_other_rows_with_their_own(tmp_path):
    core = seeds_of_core(tmp_path / "core")
    original = line_of(row("original", "Original", seeds=(None,)), cells(tmp_path / "original", ESD))
    single = line_of(row("esd", "ESD", seeds=(1,)), cells(tmp_path / "esd", ESD))
    foreign = line_of(row("salun", "SalUn", seeds=(5,)), cells(tmp_path / "salun", ESD))
    found = {
        (line["first"], line["second"]): (line["seeds"], line["test"])
        for line in csv.DictReader(pairs_csv([original, core, single, foreign]).splitlines())
    }
    assert found == {
        ("original", "core"): ("3", "paired t"),
        ("original", "esd"): ("1", "McNemar"),
        ("original", "salun"): ("1", "McNemar"),
        ("core", "esd"): ("1", "McNemar"),
    }


# Styles and objects


def test_accuracies_by_style_and_object(tmp_path):
    lines = [line for line in read_csv(table(tmp_path).folder / "table1.styles.csv") if line["task"] == "Forget01"]
    found = {(line["row"], line["kind"], line["name"]): (line["set"], line["k"], line["n"]) for line in lines}
    assert found == {
        ("esd", "style", "Amber"): ("forget", "1", "30"),
        ("esd", "style", "Blue"): ("retain", "140", "150"),
        ("esd", "object", "Cats"): ("", "170", "180"),
        ("core", "style", "Amber"): ("forget", "2", "30"),
        ("core", "style", "Blue"): ("retain", "147", "150"),
        ("core", "object", "Cats"): ("", "173", "180"),
    }
    low, high = Count(140, 150).interval()
    assert (lines[1]["low"], lines[1]["high"]) == (f"{low:.2f}", f"{high:.2f}")


def test_accuracies_by_style_of_several_seeds_have_a_line_for_all(tmp_path):
    lines = list(csv.DictReader(accuracies_csv([seeds_of_core(tmp_path)]).splitlines()))
    blue = [(line["seed"], line["k"], line["n"], line["interval"]) for line in lines if line["name"] == "Blue"]
    assert blue == [
        ("0", "147", "150", "Wilson"),
        ("1", "141", "150", "Wilson"),
        ("2", "150", "150", "Wilson"),
        ("all", "438", "450", "t over 3 seeds"),
    ]


def test_confusion_says_what_a_style_is_recognised_as_and_whether_that_is_its_anchor(tmp_path):
    lines = [line for line in read_csv(table(tmp_path).folder / "table1.confusion.csv") if line["task"] == "Forget01"]
    columns = ("row", "style", "recognised", "is_anchor", "images")
    assert [tuple(line[name] for name in columns) for line in lines] == [
        ("esd", "Amber", "Blue", "yes", "29"),
        ("esd", "Amber", "Amber", "no", "1"),
        ("esd", "Blue", "Blue", "", "140"),
        ("esd", "Blue", "Amber", "", "10"),
        ("core", "Amber", "Blue", "yes", "28"),
        ("core", "Amber", "Amber", "no", "2"),
        ("core", "Blue", "Blue", "", "147"),
        ("core", "Blue", "Amber", "", "3"),
    ]


def test_the_interval_of_a_difference_stays_within_100_points(tmp_path):
    """Student's t over three seeds is wide enough to lead beyond."""
    worse = {**CORE, "IRA": (0, 150)}
    folders = [(name, seed, numbers) for name, numbers in (("good", CORE), ("bad", worse)) for seed in (0, 1, 2)]
    made = {(name, seed): cells(tmp_path / f"{name}{seed}", numbers) for name, seed, numbers in folders}
    lines = [
        line_of(row(name, name, seeds=(0, 1, 2)), *(made[name, seed] for seed in (0, 1, 2))) for name in ("good", "bad")
    ]
    (ira,) = [pair for pair in csv.DictReader(pairs_csv(lines).splitlines()) if pair["metric"] == "IRA"]
    assert float(ira["difference"]) == 98.0
    assert float(ira["high"]) <= 100.0 and float(ira["low"]) < 98.0

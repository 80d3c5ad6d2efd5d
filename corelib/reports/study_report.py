"""The report of a study: one page with everything that is built, to be read in a browser without a network."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import jinja2

from corelib.evaluation.gate import Comparison as GateComparison
from corelib.evaluation.gate import compare
from corelib.files.atomic import write_text
from corelib.files.sealed_json import read_or_none
from corelib.reports.chart_style import chart_png, chart_style
from corelib.reports.charts import charts_of
from corelib.reports.claims import NOTE as CLAIMS_NOTE
from corelib.reports.claims import OURS, PAPER, ClaimOutcome, claim_outcomes, in_words
from corelib.reports.comparisons import HEADER as DISTANCES_HEADER
from corelib.reports.comparisons import INTRODUCTION as DISTANCES_NOTE
from corelib.reports.comparisons import compared_rows, mean_distances
from corelib.reports.count_lines import CountLine
from corelib.reports.count_tables import CountTable
from corelib.reports.figures import figure_image
from corelib.reports.jobs_behind import JobProvenance, provenance_of_run
from corelib.reports.measured_costs import (
    COST_HEADER,
    cost_entries,
    costs_csv,
    costs_markdown,
    costs_of_rows,
)
from corelib.reports.measured_costs import NOTE as COSTS_NOTE
from corelib.reports.paper_comparison import (
    Comparison,
    PublishedNumbers,
    chance_note,
    compare_with_paper,
    read_published,
)
from corelib.reports.probe_charts import probe_chart
from corelib.reports.probe_counts import ProbeLine, probe_lines
from corelib.reports.probe_report import MEANINGS, SUCCESS, TITLES, probe_tables
from corelib.reports.report_template import CHART_CAPTIONS, TEMPLATE
from corelib.reports.sequence_chart import sequence_chart
from corelib.reports.sequence_counts import SequenceLine, sequence_lines
from corelib.reports.sequence_report import INTRODUCTION as SEQUENCES_NOTE
from corelib.reports.sequence_report import sequence_tables
from corelib.reports.table_lines import TableLine, by_task, measured_metrics, table_line
from corelib.runs.layout import MANIFEST
from corelib.runs.manifest import Manifest
from corelib.runs.provenance_record import provenance_path, read_provenance
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.distances import ComparisonStage
from corelib.settings.probe_report import ProbeStage
from corelib.settings.reports import FigureStage
from corelib.settings.sequence_report import SequenceStage
from corelib.settings.study_report import ReportStage, ReportTable

REPORT, COSTS_CSV, COSTS_MARKDOWN = "report.html", "report.costs.csv", "report.costs.md"


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        name: its name within its section.
        caption: what it shows.
        data: the PNG as the text of a `data:` address.
    """

    name: str
    caption: str
    data: str


@dataclass(frozen=True)
class Value:
    """A number of a table on the page.

    Attributes:
        text: mean, and standard deviation if there are several seeds.
        interval: its 95 % interval; may be empty.
        published: the paper's value; may be empty.
        differs: whether it differs from the paper's by Holm's method.
    """

    text: str
    interval: str
    published: str
    differs: bool


@dataclass(frozen=True)
class TableSection:
    """A table on the page.

    Attributes:
        name: name of the table.
        metrics: the names of its columns.
        tasks: its lines as (title, remark, values), by task.
        notes: sentences below it.
        missing: rows that are not built.
        pictures: its charts.
    """

    name: str
    metrics: Sequence[str]
    tasks: Mapping[str, Sequence[tuple[str, str, Sequence[Value]]]]
    notes: Sequence[str]
    missing: Sequence[str]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class CountSection:
    """A probe or a sequence on the page.

    Attributes:
        name: its name.
        title: what is done to the models of a probe; the steps of a sequence.
        tables: its counts.
        meaning: what the conditions of a probe mean; empty for a sequence.
        picture: its chart.
    """

    name: str
    title: str
    tables: Sequence[CountTable]
    meaning: str
    picture: Picture


def write_report(settings: ReportStage, context: StageContext) -> StageResult:
    """Stage: write the page, and the costs as CSV and Markdown.

    All files are records, which the manifest does not list: they name places and times, and the manifests of equal
    results are equal.
    """
    inputs = context.inputs
    rows = [row for table in settings.tables for row in table.rows]
    costs = costs_of_rows(rows, inputs)
    lines = {table.name: [table_line(row, inputs) for row in table.rows] for table in settings.tables}
    probed = {probe.name: list(probe_lines(probe, inputs)) for probe in settings.probes}
    followed = {sequence.name: list(sequence_lines(sequence, inputs)) for sequence in settings.sequences}
    claims = [] if settings.claims is None else claim_outcomes(settings.claims, context)
    page = (
        _environment()
        .from_string(TEMPLATE)
        .render(
            study=settings.study,
            tables=[table_section(table, lines[table.name], inputs) for table in settings.tables],
            num_built=len(rows),
            num_rows=len(rows) + sum(len(table.missing) for table in settings.tables),
            claims=list(_claims(claims)),
            verdicts={numbers: _verdicts(claims, numbers) for numbers in (PAPER, OURS)},
            claims_note=CLAIMS_NOTE,
            figures=[_figure(figure, inputs) for figure in settings.figures],
            missing_figures=settings.missing_figures,
            distances={found.name: mean_distances(compared_rows(found, inputs)) for found in settings.distances},
            missing_distances=settings.missing_distances,
            distances_header=DISTANCES_HEADER,
            distances_note=DISTANCES_NOTE,
            probes=[_probe(probe, probed[probe.name]) for probe in settings.probes],
            missing_probes=settings.missing_probes,
            probes_note=SUCCESS,
            sequences=[_sequence(sequence, followed[sequence.name]) for sequence in settings.sequences],
            missing_sequences=settings.missing_sequences,
            sequences_note=SEQUENCES_NOTE,
            gate=_gate(settings, inputs),
            has_gate=settings.has_gate,
            protocol=settings.protocol,
            cost_header=COST_HEADER,
            costs=[cost_entries(entry) for entry in costs],
            costs_note=COSTS_NOTE,
            wall_time=_duration(sum(entry.seconds for entry in costs)),
            gpu_time=_duration(3600 * sum(entry.gpu_hours for entry in costs)),
            jobs=jobs_by_machine(
                [
                    *_jobs_of_tables(lines.values()),
                    *_jobs_of_distances(settings.distances, inputs),
                    *_jobs_of_counts(probed.values()),
                    *_jobs_of_counts(followed.values()),
                ]
            ),
            environment=_environment_of(inputs),
        )
    )
    for name, content in {REPORT: page, COSTS_CSV: costs_csv(costs), COSTS_MARKDOWN: costs_markdown(costs)}.items():
        write_text(context.folder / name, content)
    return StageResult([], records=[REPORT, COSTS_CSV, COSTS_MARKDOWN])


def _environment() -> jinja2.Environment:
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


# Tables


def table_section(table: ReportTable, lines: Sequence[TableLine], inputs: Mapping[str, Manifest]) -> TableSection:
    """The rows of a table that are built, with the paper's values and the charts."""
    published = read_published(table.published)
    comparisons = compare_with_paper(lines, published if table.comparable else {})
    metrics = measured_metrics(lines)
    tasks = {
        task: [
            (line.row.plain_title, line.remark, [_value(line, metric, published, comparisons) for metric in metrics])
            for line in task_lines
        ]
        for task, task_lines in by_task(lines).items()
    }
    trainings = {cells: inputs[role] for cells, role in table.trainings.items()}
    notes = [chance_note(list(comparisons.values()))]
    if lines and published and not table.comparable:
        notes.append("The paper's values belong to other models and images, so they are shown, but not compared.")
    return TableSection(
        table.name,
        metrics,
        tasks,
        [note for note in notes if note],
        table.missing,
        list(_charts(lines, published, trainings)),
    )


def _value(
    line: TableLine,
    metric: str,
    published: PublishedNumbers,
    comparisons: Mapping[tuple[str, str, str], Comparison],
) -> Value:
    key = (line.row.task, line.row.row, metric)
    deviation, interval = line.deviations[metric], line.interval(metric)
    comparison = comparisons.get(key)
    return Value(
        f"{line.means[metric]:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}"),
        "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}",
        published[key].value if key in published else "",
        comparison is not None and comparison.differs_by_holm,
    )


def _charts(
    lines: Sequence[TableLine], published: PublishedNumbers, trainings: Mapping[str, Manifest]
) -> Iterator[Picture]:
    if not lines:
        return
    with chart_style():
        for name, chart in charts_of(lines, published, trainings):
            yield Picture(name, CHART_CAPTIONS[name], _data(chart_png(chart)))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _figure(figure: FigureStage, inputs: Mapping[str, Manifest]) -> Picture:
    content = BytesIO()
    figure_image(figure, inputs).save(content, format="PNG")
    titles = ", ".join(title for _, title in figure.columns)
    return Picture(figure.name, f"Images with sampling seed {figure.seed}: {titles}.", _data(content.getvalue()))


def _probe(probe: ProbeStage, lines: Sequence[ProbeLine]) -> CountSection:
    with chart_style():
        data = _data(chart_png(probe_chart(probe.kind, lines)))
    title = TITLES[probe.kind]
    picture = Picture(probe.name, f"{title}: the shares with 95 % intervals.", data)
    return CountSection(probe.name, title, probe_tables(lines), MEANINGS[probe.kind].replace("`", ""), picture)


def _sequence(sequence: SequenceStage, lines: Sequence[SequenceLine]) -> CountSection:
    with chart_style():
        data = _data(chart_png(sequence_chart(lines)))
    title = ", ".join(step.task for step in sequence.steps)
    picture = Picture(sequence.name, f"{title}: the shares after each step with 95 % intervals.", data)
    return CountSection(sequence.name, title, sequence_tables(sequence, lines), "", picture)


# Claims and gate


def _claims(outcomes: Sequence[ClaimOutcome]) -> Iterator[tuple[ClaimOutcome, str, str]]:
    """Each claim, with the verdict by the paper's numbers and by those of the study."""
    ours = {outcome.claim.name: outcome for outcome in outcomes if outcome.numbers == OURS}
    for outcome in outcomes:
        if outcome.numbers == PAPER:
            yield outcome, in_words(outcome), in_words(ours[outcome.claim.name])


def _verdicts(outcomes: Sequence[ClaimOutcome], numbers: str) -> str:
    """How many claims have which verdict, in words."""
    counts = Counter(outcome.verdict for outcome in outcomes if outcome.numbers == numbers)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def _gate(settings: ReportStage, inputs: Mapping[str, Manifest]) -> list[GateComparison]:
    return [] if settings.gate is None else compare(settings.gate, inputs["gate"])


# Provenance


def _jobs_of_tables(tables: Iterable[Sequence[TableLine]]) -> Iterator[JobProvenance]:
    for lines in tables:
        for line in lines:
            for numbers in line.seeds:
                for metric in line.metrics:
                    yield from numbers.jobs_behind(metric)


def _jobs_of_distances(tables: Iterable[ComparisonStage], inputs: Mapping[str, Manifest]) -> Iterator[JobProvenance]:
    for table in tables:
        for row in table.rows:
            for pair in row.pairs:
                yield from provenance_of_run(inputs[pair.distances])


def _jobs_of_counts(reports: Iterable[Sequence[CountLine]]) -> Iterator[JobProvenance]:
    for lines in reports:
        for line in lines:
            for seed in line.seeds:
                yield from seed.origins


def jobs_by_machine(jobs: Iterable[JobProvenance]) -> list[tuple[str, str, str, int, str]]:
    """The jobs behind all numbers as (commit, device, host, number of jobs, end of the last one)."""
    groups: dict[tuple[str, str, str], list[JobProvenance]] = {}
    for job in dict.fromkeys(jobs):
        groups.setdefault((job.commit or "none", job.device, job.host), []).append(job)
    return [(*key, len(found), max(job.finished for job in found)) for key, found in sorted(groups.items())]


def _environment_of(inputs: Mapping[str, Manifest]) -> list[str]:
    """The versions of the numerical packages behind the inputs, a line for each Python and architecture."""
    versions: dict[str, dict[str, set[str]]] = {}
    for manifest in inputs.values():
        record = read_or_none(read_provenance, provenance_path(manifest.folder / MANIFEST))
        if record is not None:
            packages = versions.setdefault(f"Python {record.python} on {record.machine}", {})
            for name, version in record.packages.items():
                packages.setdefault(name, set()).add(version)
    return [
        f"{machine}: " + ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(packages.items()))
        for machine, packages in sorted(versions.items())
    ]

"""Settings and inputs of the products over everything that is built: the claims, and the report of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from corelib.runs.run import Run
from corelib.settings.claims import Claim, ClaimsStage
from corelib.settings.distances import ComparisonStage
from corelib.settings.gate import GateStage
from corelib.settings.probe_report import ProbeStage
from corelib.settings.reports import FigureStage, TableRow
from corelib.settings.study_report import ReportStage, ReportTable
from corelib.study.schema import ORIGINAL, Scheme, Study
from corelib.study.wording import to_yaml
from corelib.study.worlds import AssetRuns, MiniatureRuns

IsBuilt = Callable[[Run], bool]
"""Whether a run is built, or will be before the product."""

PROTOCOL_SECTIONS = (
    "prompts", "tasks", "training", "encoding", "anchoring", "methods", "sampling", "classification", "fid",
)  # fmt: skip
"""The sections of a study that a report prints."""


class StudyPlan(Protocol):
    """What a summary needs of a plan (`corelib.study.plan`)."""

    name: str
    study: Study
    published: list[list[str]]
    world: MiniatureRuns | AssetRuns

    def rows_of(self, name: str) -> tuple[list[TableRow], dict[str, Run]]:
        """The rows of a table for each of its tasks, and their cells by role."""

    def trainings_of(self, name: str) -> dict[str, Run]:
        """The training run behind each seed of each row of a table, by the role of its cells."""

    def figure_settings(self, name: str) -> tuple[FigureStage, dict[str, Run]]:
        """The settings of a figure, and the samples of its columns by role."""

    def comparison(self, name: str) -> Run:
        """The distances of the rows of a table to its retrained models."""

    def probe(self, name: str) -> Run:
        """The report on a probe."""

    def gate_settings(self) -> GateStage:
        """The settings of the gate."""

    def cells(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The counts and values of one model on one task."""


def claims_settings(plan: StudyPlan, claims: Sequence[Claim], is_built: IsBuilt) -> tuple[ClaimsStage, dict[str, Run]]:
    """The settings of the verdicts on the claims, and the cells of the rows that are built, by role."""
    rows: dict[str, list[TableRow]] = {}
    inputs: dict[str, Run] = {}
    for name, table in plan.study.tables.items():
        if table.published is None:
            continue
        built, cells = _built_rows(plan, name, is_built)
        if built:
            untitled = [row.model_copy(update={"title": "", "anchors": {}}) for row in built]
            rows.setdefault(table.published, []).extend(untitled)
            inputs |= cells
    published = [numbers for numbers in plan.published if numbers[2] != ORIGINAL]
    return ClaimsStage(claims=list(claims), rows=rows, published=published), inputs


def report_settings(plan: StudyPlan, claims: Sequence[Claim], is_built: IsBuilt) -> tuple[ReportStage, dict[str, Run]]:
    """The settings of the report, and the cells, training runs and samples that are built, by role."""
    verdicts, inputs = claims_settings(plan, claims, is_built)
    tables, figures, missing_figures = [], [], []
    for name in plan.study.tables:
        table, needed = _report_table(plan, name, is_built)
        tables.append(table)
        inputs |= needed
    for name in plan.study.figures:
        figure, samples = _report_figure(plan, name)
        if all(map(is_built, samples.values())):
            figures.append(figure)
            inputs |= samples
        else:
            missing_figures.append(name)
    distances, missing_distances = [], []
    for name in plan.study.tables_with_distances:
        comparison, needed = _comparison(plan, name)
        if all(map(is_built, needed.values())):
            distances.append(comparison)
            inputs |= needed
        else:
            missing_distances.append(comparison.name)
    probes, missing_probes = [], []
    for name in plan.study.probes:
        probe, needed = _probe(plan, name)
        if all(map(is_built, needed.values())):
            probes.append(probe)
            inputs |= needed
        else:
            missing_probes.append(name)
    gate, cells = _gate(plan)
    if gate is not None and all(map(is_built, cells.values())):
        inputs |= cells
    else:
        gate = None
    settings = ReportStage(
        study=plan.name,
        claims=verdicts if plan.study.has_claims else None,
        tables=tables,
        figures=figures,
        missing_figures=missing_figures,
        distances=distances,
        missing_distances=missing_distances,
        probes=probes,
        missing_probes=missing_probes,
        gate=gate,
        has_gate=plan.study.gate is not None,
        protocol=_protocol(plan.study),
    )
    return settings, inputs


def training_role(cells: str) -> str:
    """The role of the training run behind the cells of a role."""
    return f"{cells}/training"


def _built_rows(plan: StudyPlan, name: str, is_built: IsBuilt) -> tuple[list[TableRow], dict[str, Run]]:
    """The rows of a table of which all cells are built, and the cells; all roles begin with the table's name."""
    rows, cells = plan.rows_of(name)
    built = [
        row.model_copy(
            update={"seeds": [seed.model_copy(update={"cells": f"{name}/{seed.cells}"}) for seed in row.seeds]}
        )
        for row in rows
        if all(is_built(cells[seed.cells]) for seed in row.seeds)
    ]
    prefixed = _prefixed(name, cells)
    return built, {seed.cells: prefixed[seed.cells] for row in built for seed in row.seeds}


def _report_table(plan: StudyPlan, name: str, is_built: IsBuilt) -> tuple[ReportTable, dict[str, Run]]:
    rows, cells = _built_rows(plan, name, is_built)
    trainings = {f"{name}/{role}": run for role, run in plan.trainings_of(name).items() if is_built(run)}
    trainings = {role: run for role, run in trainings.items() if role in cells}
    present = {(row.task, row.row) for row in rows}
    table = ReportTable(
        name=name,
        rows=rows,
        missing=[f"{row.task}, {row.title}" for row in plan.rows_of(name)[0] if (row.task, row.row) not in present],
        published=[numbers for source, *numbers in plan.published if source == plan.study.tables[name].published],
        comparable=plan.world.is_comparable_with_paper,
        trainings={role: training_role(role) for role in trainings},
    )
    return table, cells | {training_role(role): run for role, run in trainings.items()}


def _report_figure(plan: StudyPlan, name: str) -> tuple[FigureStage, dict[str, Run]]:
    figure, samples = plan.figure_settings(name)
    columns = [(f"{name}/{column}", title) for column, title in figure.columns]
    return figure.model_copy(update={"columns": columns}), _prefixed(name, samples)


def _comparison(plan: StudyPlan, name: str) -> tuple[ComparisonStage, dict[str, Run]]:
    """The settings of the distances of a table, and the distances by role; all roles begin with the table's name."""
    run = plan.comparison(name)
    assert isinstance(run.settings, ComparisonStage)
    rows = [
        row.model_copy(
            update={"pairs": [pair.model_copy(update={"distances": f"{name}/{pair.distances}"}) for pair in row.pairs]}
        )
        for row in run.settings.rows
    ]
    return run.settings.model_copy(update={"rows": rows}), _prefixed(name, run.inputs)


def _probe(plan: StudyPlan, name: str) -> tuple[ProbeStage, dict[str, Run]]:
    """The settings of a probe's report, and its inputs by role; all roles begin with the probe's name."""
    run = plan.probe(name)
    assert isinstance(run.settings, ProbeStage)
    rows = [
        row.model_copy(
            update={
                "models": [
                    model.model_copy(
                        update={
                            "predictions": _with_prefix(name, model.predictions),
                            "searches": _with_prefix(name, model.searches),
                        }
                    )
                    for model in row.models
                ]
            }
        )
        for row in run.settings.rows
    ]
    return run.settings.model_copy(update={"rows": rows}), _prefixed(name, run.inputs)


def _with_prefix(name: str, roles: Mapping[str, str]) -> dict[str, str]:
    return {condition: f"{name}/{role}" for condition, role in roles.items()}


def _prefixed(name: str, inputs: Mapping[str, Run]) -> dict[str, Run]:
    return {f"{name}/{role}": run for role, run in inputs.items()}


def _gate(plan: StudyPlan) -> tuple[GateStage | None, dict[str, Run]]:
    if plan.study.gate is None:
        return None, {}
    settings = plan.gate_settings()
    return settings, {"gate": plan.cells(settings.task, ORIGINAL, None)}


def _protocol(study: Study) -> dict[str, list[tuple[str, str]]]:
    content = study.model_dump(mode="json")
    return {name: list(_leaves(content[name])) for name in PROTOCOL_SECTIONS}


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys of all leaves of a section, and their values as YAML."""
    for name, value in section.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", to_yaml(value)

"""Settings and inputs of the products over everything that is built: the claims, and the report of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from corelib.runs.run import Run
from corelib.settings.claims import Claim, ClaimsStage
from corelib.settings.distances import ComparisonStage
from corelib.settings.gate import GateStage
from corelib.settings.probe_report import ProbeStage
from corelib.settings.reports import FigureStage, TableRow
from corelib.settings.sequence_report import SequenceStage
from corelib.settings.study_report import ReportStage, ReportTable
from corelib.study.schema import ORIGINAL, Scheme, Study
from corelib.study.wording import to_yaml
from corelib.study.worlds import AssetRuns, MiniatureRuns

IsBuilt = Callable[[Run], bool]
"""Whether a run is built, or will be before the product."""

Settings = TypeVar("Settings", FigureStage, ComparisonStage, ProbeStage, SequenceStage)

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

    def sequence(self, name: str) -> Run:
        """The report on a sequence of tasks."""

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
    study, tables = plan.study, []
    for name in study.tables:
        table, needed = _report_table(plan, name, is_built)
        tables.append(table)
        inputs |= needed
    figures, missing_figures = _built_and_missing(
        (_report_figure(plan, name) for name in study.figures), is_built, inputs
    )
    distances, missing_distances = _built_and_missing(
        (_comparison(plan, name) for name in study.tables_with_distances), is_built, inputs
    )
    probes, missing_probes = _built_and_missing((_probe(plan, name) for name in study.probes), is_built, inputs)
    sequences, missing_sequences = _built_and_missing(
        (_sequence(plan, name) for name in study.sequences), is_built, inputs
    )
    gate, cells = _gate(plan)
    if gate is not None and all(map(is_built, cells.values())):
        inputs |= cells
    else:
        gate = None
    settings = ReportStage(
        study=plan.name,
        claims=verdicts if study.has_claims else None,
        tables=tables,
        figures=figures,
        missing_figures=missing_figures,
        distances=distances,
        missing_distances=missing_distances,
        probes=probes,
        missing_probes=missing_probes,
        sequences=sequences,
        missing_sequences=missing_sequences,
        gate=gate,
        has_gate=study.gate is not None,
        protocol=_protocol(study),
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


def _built_and_missing(
    products: Iterable[tuple[Settings, dict[str, Run]]], is_built: IsBuilt, inputs: dict[str, Run]
) -> tuple[list[Settings], list[str]]:
    """The settings of the products of which all inputs are built, and the names of the others.

    Args:
        products: the settings and the inputs of each product.
        is_built: whether a run is built.
        inputs: the inputs of the report, to which those of the built products are added.
    """
    built, missing = [], []
    for settings, needed in products:
        if all(map(is_built, needed.values())):
            built.append(settings)
            inputs |= needed
        else:
            missing.append(settings.name)
    return built, missing


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


def _sequence(plan: StudyPlan, name: str) -> tuple[SequenceStage, dict[str, Run]]:
    """The settings of a sequence's report, and its inputs by role; all roles begin with the sequence's name."""
    run = plan.sequence(name)
    assert isinstance(run.settings, SequenceStage)
    rows = [
        row.model_copy(
            update={
                "models": {
                    way: [
                        [
                            model.model_copy(update={"predictions": f"{name}/{model.predictions}"})
                            for model in models_of_step
                        ]
                        for models_of_step in steps
                    ]
                    for way, steps in row.models.items()
                }
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

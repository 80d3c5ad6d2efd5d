"""Settings of the report of a study."""

from __future__ import annotations

from corelib.settings.claims import ClaimsStage
from corelib.settings.distances import ComparisonStage
from corelib.settings.gate import GateStage
from corelib.settings.probe_report import ProbeStage
from corelib.settings.reports import FigureStage, TableRow
from corelib.settings.section import Section
from corelib.settings.sequence_report import SequenceStage


class ReportTable(Section):
    """A table of a report.

    Attributes:
        name: name of the table.
        rows: its rows that are built.
        missing: the other rows, in words.
        published, comparable: as in `TableStage`.
        trainings: as in `ChartsStage`.
    """

    name: str
    rows: list[TableRow]
    missing: list[str]
    published: list[list[str]]
    comparable: bool
    trainings: dict[str, str]


class ReportStage(Section):
    """Settings of the stage `reports`: what is built of a study, and what is missing.

    Attributes:
        study: name of the study.
        claims: the paper's claims; None if the study has no table of the paper.
        tables: its tables.
        figures: its figures of which all samples are built.
        missing_figures: names of the others.
        distances: the distances of its tables of which all are built.
        missing_distances: names of the others.
        probes: its probes of which all predictions are built.
        missing_probes: names of the others.
        sequences: its sequences of which all predictions are built.
        missing_sequences: names of the others.
        gate: the gate, if the study has one and its cells are built.
        has_gate: whether the study has a gate.
        protocol: the leaves of the study that determine its numbers, as (key, value), by section.
    """

    study: str
    claims: ClaimsStage | None
    tables: list[ReportTable]
    figures: list[FigureStage]
    missing_figures: list[str]
    distances: list[ComparisonStage]
    missing_distances: list[str]
    probes: list[ProbeStage]
    missing_probes: list[str]
    sequences: list[SequenceStage]
    missing_sequences: list[str]
    gate: GateStage | None
    has_gate: bool
    protocol: dict[str, list[tuple[str, str]]]

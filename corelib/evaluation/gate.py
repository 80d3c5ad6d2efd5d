"""The gate: compares the accuracies of the base model, before any unlearning, with the paper's.

It detects a wrong checkpoint, class order, prompt or sampler before a GPU-hour is spent on a method.
"""

from __future__ import annotations

from dataclasses import dataclass

from corelib.errors import ArtefactError
from corelib.evaluation.metrics import ACCURACIES, CELLS, Count
from corelib.evaluation.significance import fisher_p_value
from corelib.files.atomic import write_text
from corelib.files.csv_files import as_csv
from corelib.files.json_files import read_json
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.gate import GateStage

GATE_SIGNIFICANCE = 0.01
"""Level of each of the three tests: the paper's own base model fails the gate in at most 3 of 100 cases."""

GATE_COLUMNS = ("metric", "k", "n", "value", "published_k", "published_n", "published", "probability", "outcome")


@dataclass(frozen=True)
class Comparison:
    """One accuracy of the original model, and the paper's."""

    metric: str
    ours: Count
    published: Count

    @property
    def probability(self) -> float:
        """Probability of counts that differ at least as much, if the accuracies are equal."""
        return fisher_p_value(self.ours, self.published)

    @property
    def passes(self) -> bool:
        """Whether the two accuracies may be equal."""
        return self.probability >= GATE_SIGNIFICANCE

    def __str__(self) -> str:
        return f"{self.metric} {self.ours.percent} ({self.ours.k} of {self.ours.n}), published {self.published.percent}"


def compare(settings: GateStage, cells: Manifest) -> list[Comparison]:
    """Compare the accuracies of the original model on the gate's task with the paper's."""
    counts = read_json(cells.file(CELLS))
    return [Comparison(name, Count(**counts[name]), Count(*settings.published[name])) for name in ACCURACIES]


def check_gate(settings: GateStage, context: StageContext) -> StageResult:
    """Stage: pass, or stop everything that waits for the gate.

    Raises `ArtefactError` with the numbers if an accuracy differs from the paper's and the study has `gate: stop`.
    """
    comparisons = compare(settings, context.inputs["cells"])
    failed = [comparison for comparison in comparisons if not comparison.passes]
    if failed and settings.on_failure == "stop":
        raise ArtefactError(
            f"the gate failed: the original model has {'; '.join(map(str, failed))} on {settings.task}; check the "
            "checkpoint, class order, prompts and sampling, or set `gate: warn` in the study to continue anyway."
        )
    outcome, numbers = "failed" if failed else "passed", [str(comparison) for comparison in comparisons]
    return StageResult([], {"outcome": outcome, "numbers": numbers})


def report_gate(settings: GateStage, context: StageContext) -> StageResult:
    """Stage: write the comparison as CSV and Markdown, whatever its outcome."""
    comparisons = compare(settings, context.inputs["cells"])
    write_text(context.folder / "gate.csv", as_csv([GATE_COLUMNS, *map(_entries, comparisons)]))
    write_text(context.folder / "gate.md", as_markdown(settings, comparisons))
    return StageResult(["gate.csv", "gate.md"])


def as_markdown(settings: GateStage, comparisons: list[Comparison]) -> str:
    """The comparisons as a Markdown table with the outcome of the gate."""
    header = "| " + " | ".join(column.replace("_", " ") for column in GATE_COLUMNS) + " |"
    lines = [header, "| --- |" + " ---: |" * (len(GATE_COLUMNS) - 2) + " --- |"]
    lines += ["| " + " | ".join(_entries(comparison)) + " |" for comparison in comparisons]
    outcome = "passed" if all(comparison.passes for comparison in comparisons) else "failed"
    note = (
        f"The accuracies of the original model on the images of {settings.task}, compared with the paper's. One "
        f"fails if Fisher's exact test of the two counts gives p < {GATE_SIGNIFICANCE}."
    )
    return "\n".join([f"### Gate: {outcome}", "", note, "", *lines, ""])


def _entries(comparison: Comparison) -> list[str]:
    ours, theirs = comparison.ours, comparison.published
    counts = [str(part) for count in (ours, theirs) for part in (count.k, count.n, count.percent)]
    outcome = "passed" if comparison.passes else "failed"
    return [comparison.metric, *counts, f"{comparison.probability:.3g}", outcome]

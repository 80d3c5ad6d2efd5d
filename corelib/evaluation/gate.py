"""The gate: is the base model the paper's? Its images, before any unlearning, are counted against the paper's numbers.

A wrong checkpoint, class order, prompt or sampler shows here, before a GPU-hour is spent on a method.
"""

from __future__ import annotations

from dataclasses import dataclass

from corelib.errors import ArtefactError
from corelib.evaluation.metrics import ACCURACIES, FILE, Count
from corelib.evaluation.significance import probability_if_equal
from corelib.files.atomic import write_text
from corelib.files.json_files import read_json
from corelib.runs.manifest import Manifest
from corelib.runs.stage import Outcome, Work
from corelib.settings.gate import GateStage

SIGNIFICANCE = 0.01
"""Of each of the three tests: a base model that is the paper's fails the gate in at most 3 of 100 cases."""

COLUMNS = ("metric", "k", "n", "value", "published_k", "published_n", "published", "probability", "outcome")


@dataclass(frozen=True)
class Comparison:
    """One accuracy of the original model beside the paper's."""

    metric: str
    ours: Count
    published: Count

    @property
    def probability(self) -> float:
        """Of two counts that differ at least so much, were the accuracies equal."""
        return probability_if_equal(self.ours, self.published)

    @property
    def passes(self) -> bool:
        """Whether the two may be equal."""
        return self.probability >= SIGNIFICANCE

    def __str__(self) -> str:
        return f"{self.metric} {self.ours.percent} ({self.ours.k} of {self.ours.n}), published {self.published.percent}"


def compare(settings: GateStage, cells: Manifest) -> list[Comparison]:
    """The accuracies of the original model on the gate's task, each with the paper's."""
    found = read_json(cells.file(FILE))
    return [Comparison(name, Count(**found[name]), Count(*settings.published[name])) for name in ACCURACIES]


def check_gate(settings: GateStage, work: Work) -> Outcome:
    """Stage: let pass, or stop everything that waits behind the gate.

    Raises `ArtefactError` with the numbers if an accuracy differs from the paper's and the study says `gate: stop`.
    """
    compared = compare(settings, work.inputs["cells"])
    failed = [comparison for comparison in compared if not comparison.passes]
    if failed and settings.on_failure == "stop":
        raise ArtefactError(
            f"the gate is closed: the original model has {'; '.join(map(str, failed))} on {settings.task}, expected "
            "what the paper has; look for the fault in checkpoint, class order, prompts or sampling, or say "
            "`gate: warn` in the study to go on all the same."
        )
    return Outcome([], {"outcome": "failed" if failed else "passed", "numbers": [str(found) for found in compared]})


def report_gate(settings: GateStage, work: Work) -> Outcome:
    """Stage: the same comparison as CSV and as a page, whatever its outcome."""
    compared = compare(settings, work.inputs["cells"])
    write_text(work.folder / "gate.csv", as_csv(compared))
    write_text(work.folder / "gate.md", as_markdown(settings, compared))
    return Outcome(["gate.csv", "gate.md"])


def as_csv(compared: list[Comparison]) -> str:
    """A line a metric."""
    lines = [",".join(COLUMNS), *(",".join(_entries(comparison)) for comparison in compared)]
    return "\n".join(lines) + "\n"


def as_markdown(settings: GateStage, compared: list[Comparison]) -> str:
    """The comparison for people."""
    header = "| " + " | ".join(column.replace("_", " ") for column in COLUMNS) + " |"
    lines = [header, "| --- |" + " ---: |" * (len(COLUMNS) - 2) + " --- |"]
    lines += ["| " + " | ".join(_entries(comparison)) + " |" for comparison in compared]
    outcome = "passed" if all(comparison.passes for comparison in compared) else "failed"
    said = (
        f"The original model on the images of {settings.task}, beside the paper's. An accuracy fails if two equal ones "
        f"would differ so much with a probability below {SIGNIFICANCE} (Fisher's exact test)."
    )
    return "\n".join([f"### Gate: {outcome}", "", said, "", *lines, ""])


def _entries(found: Comparison) -> list[str]:
    ours, theirs = found.ours, found.published
    counts = [str(part) for count in (ours, theirs) for part in (count.k, count.n, count.percent)]
    return [found.metric, *counts, f"{found.probability:.3g}", "passed" if found.passes else "failed"]

"""Settings and inputs of the report on a sequence of tasks."""

from __future__ import annotations

from typing import Protocol

from corelib.runs.run import Run
from corelib.settings.sequence_report import SequenceModel, SequenceRow, SequenceStage, SequenceStep, Way
from corelib.study.schema import Row, Scheme, Study
from corelib.study.worlds import AssetRuns, MiniatureRuns


class SequencePlan(Protocol):
    """What the report on a sequence needs of a plan (`corelib.study.plan`)."""

    study: Study
    world: MiniatureRuns | AssetRuns

    def predictions(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """Style and object of every sampled image of one model."""


def sequence_settings(plan: SequencePlan, name: str) -> tuple[SequenceStage, dict[str, Run]]:
    """The settings of the report on a sequence, and the predictions of its models by role."""
    study, sequence = plan.study, plan.study.sequences[name]
    ways: dict[Way, list[str]] = {"in sequence": sequence.tasks}
    if sequence.at_once:
        ways["at once"] = sequence.at_once
    inputs: dict[str, Run] = {}

    def models_of(task: str, row: Row) -> list[SequenceModel]:
        models = []
        for seed in study.seeds_of(row):
            role = f"{task}/{row.name}" if seed is None else f"{task}/{row.name}/{seed}"
            inputs[role] = plan.predictions(task, row.method, row.anchors, seed)
            models.append(SequenceModel(seed=seed, predictions=role))
        return models

    rows = [
        SequenceRow(
            row=row.name,
            title=study.title_of(row),
            models={way: [models_of(task, row) for task in tasks] for way, tasks in ways.items()},
        )
        for row in study.rows_of(sequence.rows)
    ]
    steps = [_step(study, task) for task in sequence.tasks]
    return SequenceStage(name=name, steps=steps, tasks=ways, rows=rows, note=plan.world.note), inputs


def _step(study: Study, name: str) -> SequenceStep:
    task = study.tasks[name]
    return SequenceStep(
        task=name,
        new=study.styles_in_label_order(task.forget),
        earlier=study.styles_in_label_order(study.forgotten_before(task)),
        retain=study.styles_in_label_order(task.evaluation.retain),
        objects=study.objects_of_evaluation(task),
        seeds=sorted(task.evaluation.seeds),
    )

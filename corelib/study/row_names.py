"""Rows as names of runs: `PRODUCT TASK ROW [SEED]`, such as `results/mini/table1.csv Forget25 core`.

The name of a run contains a digest, which nobody knows by heart, and its beginning fits several runs as soon as a
hyperparameter has changed. A row of a table or a column of a figure is one model of the present configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS
from corelib.runs.model_stages import MODEL_STAGES
from corelib.runs.run import Run
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.schema import NAME, Row
from corelib.study.targets import charts_name, distances_name, product_of, relative_target, study_at
from corelib.study.wording import error_in, expected_one_of, suggest_name

ROW_FORM = "PRODUCT TASK ROW [SEED]"

ALL = "all"
"""The target of all products of the paper's study."""

EXAMPLE = f"{RESULTS}/mini/table1.csv Forget25 core"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model of a row, with its runs.

    Attributes:
        label: the row as the user names it, with the training seed if the row has one.
        world: kind of the study's world.
        runs: the runs that belong to the model, by stage, in the order of the data: `saliency`, `generated`,
            one of `MODEL_STAGES`, `samples`, `predictions`, `fid`, `cells`.
    """

    label: str
    world: str
    runs: Mapping[str, Run]

    @property
    def model(self) -> Run:
        """The run of the model itself; of the original model, that of its images."""
        return next(self.runs[stage] for stage in (*MODEL_STAGES, "samples") if stage in self.runs)


def names_row(words: Sequence[str]) -> bool:
    """Whether words are the name of a row, not names of runs or targets: a product, then a name that is no path."""
    return len(words) > 1 and is_product_path(words[0]) and words[1] != ALL and NAME.fullmatch(words[1]) is not None


def is_product_path(word: str) -> bool:
    """Whether a word is a path in `results/`."""
    return Path(relative_target(word)).parts[:1] == (RESULTS.name,)


def models_of_row(words: Sequence[str], configuration: Path) -> list[EvaluatedModel]:
    """The models of a row, one for each training seed, or the one of the given seed.

    Args:
        words: product, task, row and, if wanted, training seed.
        configuration: the folder of the configuration.

    Raises `ConfigurationError` if the study has no such product, task, row or seed.
    """
    if len(words) not in (3, 4):
        raise ConfigurationError(f"{' '.join(words)}: expected {ROW_FORM}, such as {EXAMPLE}.")
    product, task, name = words[:3]
    path = Path(relative_target(product))
    if path.parent != RESULTS and path.parent.parent != RESULTS:
        raise ConfigurationError(f"{product}: expected a table or figure, such as {RESULTS}/mini/table1.csv.")
    plan = load_plan(study_at(path.parent), configuration)
    tasks, rows = tasks_and_rows(plan, product, product_of(path))
    if task not in tasks:
        raise error_in(product, f"it has no task {task!r}{suggest_name(task, tasks)}")
    row = next((row for row in rows if row.name == name), None)
    if row is None:
        raise error_in(product, f"it has no row {name!r}{suggest_name(name, [row.name for row in rows])}")
    seeds = plan.study.seeds_of(row)
    if len(words) == 4:
        known = [str(seed) for seed in seeds if seed is not None]
        if words[3] not in known:
            expected = f"one of {', '.join(known)}" if known else "none, since the model is not trained here"
            raise error_in(product, f"the training seed of {task} {name} is {words[3]!r}, expected {expected}")
        seeds = [int(words[3])]
    kind = plan.study.world.kind
    return [EvaluatedModel(_label(words[:3], seed), kind, runs_of_model(plan, task, row, seed)) for seed in seeds]


def only_model_of_row(words: Sequence[str], configuration: Path) -> EvaluatedModel:
    """The model of a row with one training seed, or of the given seed.

    Raises `ConfigurationError` as `models_of_row` does, and if the row has several seeds and none is given.
    """
    models = models_of_row(words, configuration)
    if len(models) > 1:
        seeds = ", ".join(model.label.rpartition(" ")[2] for model in models)
        raise ConfigurationError(f"{' '.join(words)}: the row has several training seeds; add one of {seeds}.")
    return models[0]


def tasks_and_rows(plan: Plan, path: str, product: str) -> tuple[list[str], list[Row]]:
    """The tasks and the rows, or columns, of a product.

    Args:
        plan: the plan of the study.
        path: the product as the user wrote it, for the error.
        product: name of the product.

    Raises `ConfigurationError` if the study has no product of that name with rows.
    """
    study = plan.study
    for name, table in study.tables.items():
        if product in (name, charts_name(name), distances_name(name)):
            return table.tasks, study.rows_of(table.rows)
    if product in study.figures:
        figure = study.figures[product]
        return [figure.task], study.rows_of(figure.columns)
    if product in study.probes:
        probe = study.probes[product]
        return probe.tasks, study.rows_of(probe.rows)
    if product in study.sequences:
        sequence = study.sequences[product]
        return [*dict.fromkeys([*sequence.tasks, *sequence.at_once])], study.rows_of(sequence.rows)
    known = [*study.tables, *study.figures, *study.probes, *study.sequences]
    raise error_in(path, f"study {plan.name!r} has no such table or figure, {expected_one_of(product, known)}")


def _label(words: Sequence[str], seed: int | None) -> str:
    return " ".join([*words, *([] if seed is None else [str(seed)])])


def runs_of_model(plan: Plan, task: str, row: Row, seed: int | None) -> dict[str, Run]:
    """The runs of a model of a row, by stage (`EvaluatedModel.runs`)."""
    cells = plan.cells(task, row.method, row.anchors, seed)
    predictions = cells.inputs["predictions"]
    fid = [cells.inputs["fid"]] if "fid" in cells.inputs else []  # a world may have no network for FID
    samples = predictions.inputs["samples"]
    model = next((run for run in samples.inputs.values() if run.stage in MODEL_STAGES), None)
    before = [] if model is None else [run for role, run in model.inputs.items() if role in ("saliency", "generated")]
    chain = [*before, *([] if model is None else [model]), samples, predictions, *fid, cells]
    return {run.stage: run for run in chain}

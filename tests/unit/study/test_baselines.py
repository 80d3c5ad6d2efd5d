"""Baselines that no objective trains, as rows of a study: their runs, their prompts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.settings.edits import EditStage
from corelib.settings.retraining import RetrainingStage
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.row_names import only_model_of_row

CONFIGURATION = REPOSITORY / "config"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A copy of the configuration, for further studies."""
    folder = tmp_path / "config"
    (folder / "studies").mkdir(parents=True)
    for path in [*CONFIGURATION.iterdir(), *(CONFIGURATION / "studies").iterdir()]:
        if path.name != "studies":
            (folder / path.relative_to(CONFIGURATION)).symlink_to(path)
    return folder


def plan_of(configuration: Path, base: str, rows: list[Any], **sections: Any) -> Plan:
    table = {"tasks": ["Forget06"], "rows": rows, "published": None}
    content = {"base": base, "tables": {"table9": table}, **sections}
    (configuration / "studies/trial.yaml").write_text(json.dumps(content))
    return load_plan("trial", configuration)


EXTENDED = load_plan("extended", CONFIGURATION)


def test_an_edit_is_one_run_whatever_the_training_seeds() -> None:
    rows, _ = EXTENDED.rows_of("table1")
    seeds = {row.row: [seed.seed for seed in row.seeds] for row in rows}
    assert seeds["core"] == seeds["retrained"] == [0, 1, 2]
    assert seeds["uce"] == seeds["rece"] == seeds["relabelled"] == [None]
    assert {row.row for row in rows if row.anchors} == {"salun", "esd", "core", "uce", "rece", "relabelled"}


def test_an_edit_erases_towards_the_anchors_of_its_row() -> None:
    core = EXTENDED.unlearning("Forget06", "core", "one_to_all").settings
    edit = EXTENDED.edit("Forget06", "uce", "one_to_all").settings
    assert isinstance(edit, EditStage) and edit.candidates == core.model_dump()["candidates"]
    assert set(edit.retain) == set(EXTENDED.study.retain_set(EXTENDED.study.tasks["Forget06"]))


def test_relabelled_prompts_are_those_of_the_anchor_and_retain_prompts_stay() -> None:
    run = EXTENDED.samples("Forget06", "relabelled", None)
    original = EXTENDED.samples("Forget06", "original", None)
    assert run.inputs == original.inputs and isinstance(run.settings, SamplesStage)
    wording, own = run.settings.wording, EXTENDED.study.prompts.in_evaluation
    task = EXTENDED.study.tasks["Forget06"]
    for style, (anchor,) in EXTENDED.candidates(task, "one_to_one").items():
        assert wording.prompt(style, "Stars") == own.prompt(anchor, "Stars")
    for style in task.evaluation.retain:
        assert wording.prompt(style, "Stars") == own.prompt(style, "Stars")
    embedded = run.inputs["embeddings"].settings.model_dump()["prompts"]
    assert {wording.prompt(style, object_) for style, object_, _ in run.settings.grid} <= set(embedded)


def test_a_retrained_model_takes_the_place_of_the_base_model_and_its_text_encoder() -> None:
    samples = EXTENDED.samples("Forget06", "retrained", None, 2)
    retrained = samples.inputs["pipeline"]
    assert retrained.stage == "retrained" and samples.inputs["embeddings"].inputs == {"pipeline": retrained}
    settings = retrained.settings
    assert isinstance(settings, RetrainingStage)
    assert set(settings.forget) == set(EXTENDED.study.tasks["Forget06"].forget) and settings.seed == 2
    assert "Amber" in settings.vocabulary
    judges = EXTENDED.predictions("Forget06", "retrained", None, 2).inputs
    assert judges["style_classifier"] == EXTENDED.world.classifier("style"), "the judges know all styles"


def test_the_first_retrained_model_has_the_seed_of_the_world() -> None:
    scratch = load_plan("mini-from-scratch", CONFIGURATION)
    base = scratch.world.pipeline().settings.model_dump()
    again = scratch.retrained("Forget06", "retrained", 0).settings.model_dump()
    assert again == base | {"forget": again["forget"]}


def test_a_row_of_each_baseline_has_a_name(configuration: Path) -> None:
    models = {
        row: only_model_of_row(["results/extended/table1.csv", "Forget06", row, *seed], configuration)
        for row, *seed in (["uce"], ["rece"], ["relabelled"], ["retrained", "1"])
    }
    stages = {row: model.model.stage for row, model in models.items()}
    assert stages == {"uce": "edits", "rece": "edits", "relabelled": "samples", "retrained": "retrained"}


def test_removing_a_task_removes_the_anchors_for_it(configuration: Path) -> None:
    anchors = {"Forget01": "all_to_one", "Forget06": "five_to_one"}
    plan = plan_of(configuration, "mini", ["uce"], baselines={"uce": {"anchors": anchors}})
    assert plan.study.anchor_entries("uce") == {"default": "one_to_one", **anchors}
    products = {
        "tables": dict.fromkeys(["table1", "table2"]),
        "figures": dict.fromkeys(plan.study.figures),
        "tasks": {"Forget01": None},
    }
    (configuration / "studies/next.yaml").write_text(json.dumps({"base": "trial", **products}))
    study = load_plan("next", configuration).study
    assert study.anchor_entries("uce") == {"default": "one_to_one", "Forget06": "five_to_one"}


def test_only_a_table_of_retrained_models_needs_an_image_for_the_distances(configuration: Path) -> None:
    assert plan_of(configuration, "mini", ["core"], training={"images": [2, 3]}, distances={"image": 1})


OWN_PAIRS = {"Amber_Checks": ""}

REFUSED: dict[str, tuple[str, list[Any], dict[str, Any], str]] = {
    "a retrained model of a world that trains nothing": (
        "paper", ["retrained"], {}, "only the miniature's base model can be trained again",
    ),
    "anchors of a retrained model": (
        "mini", [{"method": "retrained", "anchors": "one_to_all"}], {}, "no anchors for retrained, which has none",
    ),
    "seeds of an edit": (
        "mini", [{"method": "uce", "seeds": [1]}], {}, "no training seeds for uce, which is not trained here",
    ),
    "several anchors of a relabelled prompt": (
        "mini", [{"method": "relabelled", "anchors": "one_to_all"}], {}, "a scheme with one anchor for each style",
    ),
    "no anchor of a relabelled prompt": (
        "mini", [{"method": "relabelled", "anchors": "empty"}], {}, "its prompt takes the place of the forget style's",
    ),
    "a mapping to the empty prompt": (
        "mini", [{"method": "relabelled", "anchors": OWN_PAIRS}], {}, "baselines.relabelled.anchors.Forget06",
    ),
    "no entry for a task": (
        "mini", ["mine"], {"baselines": {"mine": {"kind": "relabelled", "title": "Mine", "anchors": {}}}},
        "baselines.mine.anchors",
    ),
    "the name of a method": (
        "mini", ["core"], {"baselines": {"core": {"kind": "retrained", "title": "Core", "seeds": None}}},
        "a name that no method has",
    ),
    "a seed twice": (
        "mini", ["retrained"], {"baselines": {"retrained": {"seeds": [1, 1]}}}, "baselines.retrained.seeds is 1",
    ),
    "an unknown task": (
        "mini", ["uce"], {"baselines": {"uce": {"anchors": {"Forget07": "empty"}}}}, "baselines.uce.anchors",
    ),
    "a title twice": (
        "mini", ["uce", "rece"], {"baselines": {"rece": {"title": "UCE"}}}, "baselines.rece.title",
    ),
    "a ridge of 0": (
        "mini", ["uce"], {"baselines": {"uce": {"edit": {"ridge": 0.0}}}}, "baselines.uce.edit.ridge",
    ),
    "a timestep beyond the noise schedule": (
        "mini", ["retrained"], {"distances": {"timesteps": [500, 1000]}}, "distances.timesteps is 1000",
    ),
    "no timestep": ("mini", ["retrained"], {"distances": {"timesteps": []}}, "distances.timesteps is []"),
    "an image that is not encoded": (
        "mini", ["retrained"], {"distances": {"image": 4}}, "distances.image is 4, expected one of training.images",
    ),
    "a negative weight": (
        "mini", ["uce"], {"baselines": {"uce": {"edit": {"preserve_weight": -1.0}}}},
        "baselines.uce.edit.preserve_weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_baseline_that_cannot_be_right_is_refused_in_one_sentence(case: str, configuration: Path) -> None:
    base, rows, sections, message = REFUSED[case]
    with pytest.raises(ConfigurationError) as caught:
        plan_of(configuration, base, rows, **sections)
    assert message in str(caught.value) and "\n" not in str(caught.value)

"""Tasks that come after another one: their runs, what stays the same, what a sequence reports, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkout import REPOSITORY, link_configuration
from support.contract import OWN

from corelib.commands.leaf_names import uses_of
from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.settings.data import SliceStage
from corelib.settings.edits import EditStage
from corelib.settings.retraining import RetrainingStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.sequence_report import SequenceStage
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.targets import files_of, targets_of

EVALUATION = {"retain": ["Cobalt_Waves", "Rose_Dots"], "objects": ["Arrows", "Circles"], "seeds": [188]}
FIRST, SECOND, THIRD = ["Sky_Waves"], ["Amber_Checks", "Cobalt_Dots"], ["Lilac_Rings"]
ROWS = ["original", "core", "salun", "esd", "ca_released", "uce", "relabelled", "retrained"]

NO_TASKS = dict.fromkeys(("Forget01", "Forget06", "Forget25", "Forget06-unseen"))
NO_TABLES = dict.fromkeys(("table1", "table2", "table3", "table4"))

STUDY: dict[str, Any] = {
    "base": "mini-from-scratch",
    "tasks": {
        "One": {"forget": FIRST, "evaluation": EVALUATION},
        "Two": {"like": "One", "after": "One", "forget": SECOND},
        "Three": {"like": "One", "after": "Two", "forget": THIRD},
        "TwoAtOnce": {"like": "One", "forget": [*SECOND, *FIRST]},
        "ThreeAtOnce": {"like": "One", "forget": [*THIRD, *SECOND, *FIRST]},
        **NO_TASKS,
    },
    "methods": {
        name: {"length": {"default": {"steps": 1000}}, "anchors": {"default": "one_to_one"}}
        for name in ("core", "salun", "esd", "ca_released")
    },
    "tables": {
        **NO_TABLES,
        "table1": {"tasks": ["One", "Two", "Three"], "rows": ROWS, "published": None},
    },
    "figures": {"figure2": None, "figure3": None},
    "sequences": {
        "sequence1": {
            "tasks": ["One", "Two", "Three"],
            "at_once": ["One", "TwoAtOnce", "ThreeAtOnce"],
            "rows": ["original", {"method": "core", "seeds": [0, 1]}],
        }
    },
}


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    return link_configuration(tmp_path / "config")


def plan(configuration: Path, changes: dict[str, Any] | None = None, study: dict[str, Any] = STUDY) -> Plan:
    """The plan of the study of this page with changes, by the path of each leaf; None removes it from the file."""
    content = copy.deepcopy(study)
    for path, value in (changes or {}).items():
        *sections, leaf = path.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = value
    (configuration / "studies/steps.yaml").write_text(json.dumps(content))
    return load_plan("steps", configuration)


def starts(run: Run) -> list[str]:
    """The runs of a sequence that lead to a run, the last one first."""
    names = []
    while (before := run.inputs.get("start")) is not None:
        names.append(before.name)
        run = before
    return names


def test_a_training_builds_on_that_of_the_task_before_with_the_same_row_and_seed(configuration: Path) -> None:
    found = plan(configuration)
    for method, seed in itertools.product(("core", "esd", "salun"), (0, 1)):
        chain = [found.unlearning(task, method, None, seed) for task in ("One", "Two", "Three")]
        assert starts(chain[2]) == [chain[1].name, chain[0].name] and starts(chain[0]) == []
    other = found.unlearning("Two", "core", "one_to_all", 1)
    assert other.inputs["start"].name == found.unlearning("One", "core", "one_to_all", 1).name


def test_masks_and_generated_images_are_those_of_the_model_from_which_the_training_starts(configuration: Path) -> None:
    found = plan(configuration)
    salun, released = found.unlearning("Two", "salun", None, 0), found.unlearning("Two", "ca_released", None, 0)
    assert salun.inputs["saliency"].inputs["start"] == salun.inputs["start"]
    assert "start" not in found.unlearning("One", "salun", None, 0).inputs["saliency"].inputs
    assert released.inputs["generated"].inputs["samples"].inputs["delta"] == released.inputs["start"]
    assert "delta" not in found.unlearning("One", "ca_released", None, 0).inputs["generated"].inputs["samples"].inputs


def test_the_retain_set_and_the_anchors_have_no_style_that_was_forgotten_before(configuration: Path) -> None:
    found = plan(configuration)
    slice_ = found.slice("Three").settings
    assert isinstance(slice_, SliceStage) and slice_.forget == THIRD
    assert not {*FIRST, *SECOND, *THIRD} & set(slice_.retain)
    assert len(slice_.retain) == len(found.slice("One").settings.model_dump()["retain"]) - 3
    candidates = found.candidates(found.study.tasks["Three"], "one_to_all")
    assert not {*FIRST, *SECOND, *THIRD} & set(candidates["Lilac_Rings"])


def test_a_later_task_samples_the_styles_that_were_forgotten_before(configuration: Path) -> None:
    found = plan(configuration)
    samples = found.samples("Three", "core", None).settings
    assert isinstance(samples, SamplesStage)
    assert {style for style, _, _ in samples.grid} == {*FIRST, *SECOND, *THIRD, *EVALUATION["retain"]}
    cells = found.cells("Three", "core", None).settings.model_dump()
    assert cells["forget"] == THIRD and set(cells["retain"]) == set(EVALUATION["retain"])
    fid = found.fid("Three", "core", None).settings.model_dump()
    assert {style for style, *_ in fid["grid"]} == set(EVALUATION["retain"])


def test_a_change_of_the_earlier_task_gives_the_later_run_another_name(configuration: Path) -> None:
    names, lengths = ["Two", "Three"], {name: {"steps": 1000} for name in ("One", "Two", "Three")}
    before = {name: plan(configuration).unlearning(name, "core", None).name for name in names}
    one = plan(configuration, {"methods.core.length": lengths | {"One": {"steps": 2000}}})
    for name in names:
        run = one.unlearning(name, "core", None)
        assert run.name != before[name]
        assert run.settings == plan(configuration).unlearning(name, "core", None).settings
    last = plan(configuration, {"methods.core.length": lengths | {"Three": {"steps": 2000}}})
    assert last.unlearning("Two", "core", None).name == before["Two"]


def test_a_task_without_after_has_the_runs_that_it_has_in_a_study_without_sequences(configuration: Path) -> None:
    found = plan(configuration)
    alone = copy.deepcopy(STUDY) | {"sequences": {}}
    alone["tasks"] = {name: task for name, task in STUDY["tasks"].items() if name not in ("Two", "Three")}
    alone["tables"]["table1"] = STUDY["tables"]["table1"] | {"tasks": ["One"]}
    other = plan(configuration, study=alone)
    for method in ROWS[1:]:
        assert found.cells("One", method, None).inputs["predictions"].inputs["samples"].name == (
            other.cells("One", method, None).inputs["predictions"].inputs["samples"].name
        )


def test_edits_start_from_the_edit_before_and_retrained_models_lack_all_forgotten_styles(configuration: Path) -> None:
    found = plan(configuration)
    edit = found.edit("Three", "uce", None)
    assert starts(edit) == [found.edit("Two", "uce", None).name, found.edit("One", "uce", None).name]
    assert isinstance(edit.settings, EditStage) and list(edit.settings.candidates) == THIRD
    retrained = found.retrained("Three", "retrained").settings
    assert isinstance(retrained, RetrainingStage)
    assert set(retrained.forget) == {*FIRST, *SECOND, *THIRD}


def test_relabelled_prompts_relabel_the_earlier_styles_and_anchors_that_are_forgotten_later(
    configuration: Path,
) -> None:
    found = plan(configuration)
    (first,) = found.candidates(found.study.tasks["One"], "one_to_one")["Sky_Waves"]
    assert first == "Amber_Checks", "this anchor is forgotten by the second task"
    wording = found.samples("Three", "relabelled", None).settings.model_dump()["wording"]
    anchors = found.candidates(found.study.tasks["Two"], "one_to_one")
    assert wording["names"]["Sky_Waves"] == wording["names"]["Amber_Checks"]
    assert wording["names"]["Amber_Checks"] == found.study.prompts.in_evaluation.words(anchors["Amber_Checks"][0])


def test_a_model_of_the_users_own_is_the_model_of_its_task_whatever_the_sequence(configuration: Path) -> None:
    given = {"title": "Given", "weights": {"Three": "given/unet"}}
    table = {"tasks": ["Three"], "rows": ["given"], "published": None}
    found = plan(configuration, {"models": {"given": given}, "tables.table9": table})
    assert found.samples("Three", "given", None).inputs["delta"].stage == "models"


def test_a_sequence_reports_each_step_beside_forgetting_at_once(configuration: Path) -> None:
    found = plan(configuration)
    run = found.products()["sequence1"]
    report = run.settings
    assert isinstance(report, SequenceStage)
    assert [(step.new, step.earlier) for step in report.steps] == [
        (FIRST, []), (SECOND, FIRST), (THIRD, [*SECOND, *FIRST]),
    ]  # fmt: skip
    assert report.tasks == {"in sequence": ["One", "Two", "Three"], "at once": ["One", "TwoAtOnce", "ThreeAtOnce"]}
    core = report.rows[1]
    assert {
        way: [[model.predictions for model in models] for models in steps] for way, steps in core.models.items()
    } == {
        "in sequence": [[f"{task}/core/{seed}" for seed in (0, 1)] for task in ("One", "Two", "Three")],
        "at once": [[f"{task}/core/{seed}" for seed in (0, 1)] for task in ("One", "TwoAtOnce", "ThreeAtOnce")],
    }
    for role, input_ in run.inputs.items():
        task, method, *seed = role.split("/")
        assert input_.name == found.predictions(task, method, None, int(seed[0]) if seed else None).name


def test_a_run_of_an_earlier_task_is_for_that_task_even_if_no_product_names_it(configuration: Path) -> None:
    table = {"tasks": ["Three"], "rows": ["core"], "published": None}
    found = plan(configuration, {"tables.table1": table, "sequences": {}})
    uses = uses_of(found)
    for task in ("One", "Two", "Three"):
        assert uses[found.unlearning(task, "core", None).name].task == task


def test_a_sequence_needs_no_comparison(configuration: Path) -> None:
    found = plan(configuration, {"sequences.sequence1.at_once": []})
    report = found.products()["sequence1"].settings
    assert isinstance(report, SequenceStage)
    assert all(list(row.models) == ["in sequence"] for row in report.rows)


def test_a_sequence_has_a_target_files_and_rows_with_names(configuration: Path, monkeypatch: Any) -> None:
    found = plan(configuration)
    (target,) = [name for name in targets_of("steps", found.study) if Path(name).name.startswith("sequence")]
    assert [path.name for path in files_of(Path(target))] == [
        f"sequence1.{kind}" for kind in ("csv", "md", "pdf", "png", "provenance.csv")
    ]


def test_the_order_of_many_tasks_is_followed_to_its_beginning(configuration: Path) -> None:
    styles = [
        f"{palette}_{texture}" for palette in ("Teal", "Olive", "Emerald") for texture in ("Dots", "Rings", "Waves")
    ]
    tasks: dict[str, Any] = {"T0": {"forget": styles[:1], "evaluation": EVALUATION}}
    for number, style in enumerate(styles[1:], start=1):
        tasks[f"T{number}"] = {"like": "T0", "after": f"T{number - 1}", "forget": [style]}
    last = f"T{len(styles) - 1}"
    table = {"tasks": [last], "rows": ["core"], "published": None}
    content = {**STUDY, "tasks": {**STUDY["tasks"], **tasks}, "tables": {**STUDY["tables"], "table1": table}}
    found = plan(configuration, {"sequences": {}}, content)
    assert len(starts(found.unlearning(last, "core", None))) == len(styles) - 1
    assert found.study.sequence_to(last) == list(tasks)


MISTAKES = {
    "unknown task": ({"tasks.Two.after": "Oen"}, "tasks.Two.after is 'Oen', expected a task: One"),
    "itself": ({"tasks.One.after": "One"}, "tasks.One.after is 'One', .* a circle: One after One"),
    "circle": ({"tasks.One.after": "Three"}, "tasks.One.after is 'Three', .* One after Three after Two after One"),
    "retained before": (
        {"tasks.Three.evaluation": {"retain": ["Sky_Waves"]}},
        "tasks.Three.evaluation.retain is 'Sky_Waves', expected styles that no earlier task of the sequence forgets",
    ),
    "in D_r": (
        {"tasks.Three.retain": ["Amber_Checks", "Rose_Dots"]},
        "tasks.Three.retain is 'Amber_Checks', expected styles that no earlier task of the sequence forgets: One, Two",
    ),
    "no length for the earlier task": (
        {"methods.core.length": {"default": None, "Two": {"steps": 1}, "Three": {"steps": 1}}},
        "methods.core.length.default|an entry for One, which",
    ),
    "pairs of a row": (
        {"tables.table1.rows": [{"method": "core", "anchors": {"Lilac_Rings": "Rose_Dots"}}]},
        "expected a scheme by its name, since Two is after One; methods.core.anchors may have pairs for each task",
    ),
    "pairs with a forgotten style": (
        {"methods.core.anchors": {"default": "one_to_one", "Three": {"Lilac_Rings": "Sky_Waves"}}},
        "methods.core.anchors.Three.Lilac_Rings is 'Sky_Waves', expected a style that no task before Three forgets",
    ),
    "one-to-one with a forgotten style": (
        {"anchoring": {"one_to_one": dict(zip(
            [*FIRST, *SECOND, *THIRD], ["Rose_Dots", "Sky_Waves", "Teal_Dots", "Sky_Dots"], strict=True
        ))}},
        "anchoring.one_to_one.Amber_Checks is 'Sky_Waves', expected a style that no task before Two forgets",
    ),
    "base is forgotten": (
        {"anchoring": {"base": "Sky_Waves"}, "methods.core.anchors": {"default": "one_to_one", "Two": "all_to_one"}},
        "anchoring.base is 'Sky_Waves', expected a style that no task before Two forgets",
    ),
    "name": (
        {"sequences": {"steps": STUDY["sequences"]["sequence1"]}},
        "sequences.steps is 'steps', expected a name such as `sequence1`",
    ),
    "order": ({"sequences.sequence1.tasks": ["One", "Three", "Two"]}, "is 'Three', expected a task that is after One"),
    "one step": ({"sequences.sequence1.tasks": ["One"]}, "sequences.sequence1.tasks is"),
    "too few at once": ({"sequences.sequence1.at_once": ["One"]}, "expected 3 tasks, one for each step"),
    "unknown at once": (
        {"sequences.sequence1.at_once": ["One", "Two2", "Three"]},
        "sequences.sequence1.at_once is 'Two2', expected a task",
    ),
    "other styles at once": (
        {"sequences.sequence1.at_once": ["One", "One", "ThreeAtOnce"]},
        "at_once is 'One', expected a task that forgets what the steps up to Two forget: Amber_Checks, Cobalt_Dots",
    ),
    "a sequence at once": (
        {"sequences.sequence1.at_once": ["One", "TwoAtOnce", "Three"]},
        "at_once is 'Three', expected a task that is after no other; tasks.Three.after is Two",
    ),
    "another evaluation at once": (
        {"tasks.TwoAtOnce.evaluation": {"seeds": [288]}},
        "at_once is 'TwoAtOnce', expected a task with the evaluation.seeds of Two, with which it is compared",
    ),
    "unknown row": ({"sequences.sequence1.rows": ["cor"]}, "sequences.sequence1.rows is 'cor', expected a method"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_one_sentence(mistake: str, configuration: Path) -> None:
    changes, message = MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=message) as error:
        plan(configuration, changes)
    assert "\n" not in str(error.value)
    assert "circle" not in mistake or str(error.value).count("tasks.") == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(afters=st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=6))
def test_an_order_is_accepted_if_and_only_if_it_is_known_and_has_a_beginning(
    afters: list[int | None], configuration: Path
) -> None:
    """Tasks in any order, with a retain set that no task forgets."""
    styles = ["Sky_Waves", "Amber_Checks", "Cobalt_Dots", "Lilac_Rings", "Teal_Dots", "Olive_Rings"]
    tasks = {
        f"T{number}": {"forget": [styles[number]], "evaluation": EVALUATION, "after": None if at is None else f"T{at}"}
        for number, at in enumerate(afters)
    }
    study = {**STUDY, "tasks": {**tasks, **NO_TASKS}, "tables": NO_TABLES, "sequences": {}}

    def has_beginning(number: int | None, length: int = 0) -> bool:
        if number is None:
            return True
        return number < len(afters) and length <= len(afters) and has_beginning(afters[number], length + 1)

    if all(map(has_beginning, range(len(afters)))):
        assert set(plan(configuration, study=study).study.tasks) == set(tasks)
    else:
        with pytest.raises(ConfigurationError, match=r"tasks\.T\d\.after is 'T\d', expected a task"):
            plan(configuration, study=study)


def test_a_world_without_a_judge_of_concepts_has_no_sequences(configuration: Path) -> None:
    own = json.loads(OWN)
    evaluation = {"retain": ["horse"], "seeds": [0, 1]}
    own["tasks"] = {
        "NoCat": {"forget": ["cat"], "evaluation": evaluation},
        "NoDog": {"forget": ["dog"], "after": "NoCat", "evaluation": evaluation},
    }
    own["sequences"] = {"sequence1": {"tasks": ["NoCat", "NoDog"], "rows": ["core"]}}
    assert "sequence1" in plan(configuration, study=own).products()
    own["world"]["assets"]["clip"] = None
    with pytest.raises(ConfigurationError, match=r"sequences\.sequence1 is .*, expected none, since no judge"):
        plan(configuration, study=own)


def test_a_figure_may_show_a_style_that_was_forgotten_before(configuration: Path) -> None:
    prompts = [["Sky_Waves", "Circles"], ["Lilac_Rings", "Arrows"], ["Rose_Dots", "Arrows"]]
    figure = {"task": "Three", "prompts": prompts, "columns": ["core"], "seed": 188, "pixels": 32}
    shown, _ = plan(configuration, {"figures.figure9": figure}).figure_settings("figure9")
    assert [title.partition(":")[0] for title in shown.row_titles] == ["Forgotten", "Forgotten", "Kept"]


def test_the_shipped_study_forgets_1_to_25_styles_beside_all_at_once() -> None:
    found = load_plan("mini-sequences", REPOSITORY / "config")
    report = found.products()["sequence1"].settings
    assert isinstance(report, SequenceStage)
    assert [len(step.new) + len(step.earlier) for step in report.steps] == [1, 5, 10, 15, 20, 25]
    mini = load_plan("mini", REPOSITORY / "config")
    assert {*report.steps[-1].new, *report.steps[-1].earlier} == set(mini.study.tasks["Forget25"].forget)
    for method in ("core", "esd", "salun"):
        at_once = found.unlearning("AtOnce25", method, None)
        assert at_once.digest == mini.unlearning("Forget25", method, None).digest, "the runs of Table 1"
        for name, task in found.study.tasks.items():
            anchors = {anchor for styles in found.candidates(task, "one_to_one").values() for anchor in styles}
            assert not anchors & {*report.steps[-1].new, *report.steps[-1].earlier}, name

"""Tasks that are `like:` another, and explicit anchors of a method or of a row."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan

CONFIGURATION = REPOSITORY / "config"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    shutil.copytree(CONFIGURATION, tmp_path / "config")
    return tmp_path / "config"


def plan(configuration: Path, text: str) -> Plan:
    (configuration / "studies/other.yaml").write_text(f"base: mini\n{text}\n")
    return load_plan("other", configuration)


def test_a_task_like_another_takes_its_leaves_and_the_methods_entries(configuration: Path) -> None:
    study = plan(
        configuration,
        "tasks: {More: {like: Forget06, evaluation: {seeds: [1, 2]}}, Most: {like: More, objects: [Stars, Hearts]}}\n"
        "methods: {core: {length: {More: {steps: 7}}}}\n"
        "tables: {table1: {tasks: [Forget06, More, Most], rows: [original, esd, core]}}",
    ).study
    base = study.tasks["Forget06"]
    assert study.tasks["More"].forget == base.forget and study.tasks["More"].evaluation.seeds == [1, 2]
    assert study.tasks["Most"].objects == ["Stars", "Hearts"] and study.tasks["Most"].evaluation.seeds == [1, 2]
    assert study.methods["core"].length["More"].steps == study.methods["core"].length["Most"].steps == 7
    assert study.methods["esd"].length["Most"] == study.methods["esd"].length["Forget06"]
    assert study.methods["esd"].anchors["Most"] == study.methods["esd"].anchors["Forget06"]
    assert "More" not in load_study("mini", configuration).methods["core"].length


def test_an_error_names_the_file_that_sets_the_leaf_of_the_other_task(configuration: Path) -> None:
    middle = configuration / "studies/middle.yaml"
    middle.write_text(
        "base: mini\ntasks: {Forget06: {forget: [Nowhere_Waves]}}\nmethods: {core: {length: {Forget06: {steps: 0}}}}\n"
    )
    (configuration / "studies/other.yaml").write_text(
        "base: middle\ntasks: {More: {like: Forget06}, Some: {like: Forget01, objects: [Nothing]}}\n"
        "tables: {table1: {tasks: [More], rows: [original, core]}}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_study("other", configuration)
    text = str(caught.value)
    assert re.search(rf"methods\.core\.length\.More\.steps is 0, [^;]*\(set in {re.escape(str(middle))}\)", text), text
    middle.write_text("base: mini\ntasks: {Forget06: {forget: [Nowhere_Waves]}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study("other", configuration)
    faults = str(caught.value).split("; ")
    (forget,) = (fault for fault in faults if "tasks.More.forget" in fault)
    (objects,) = (fault for fault in faults if "tasks.Some.objects" in fault)
    assert forget.rstrip(".").endswith(f"(set in {middle})") and "(set in" not in objects, faults


def test_a_task_like_another_reuses_its_models(configuration: Path) -> None:
    other = plan(configuration, "tasks: {More: {like: Forget06, evaluation: {seeds: [1, 2]}}}")
    assert other.unlearning("More", "core", None).name == other.unlearning("Forget06", "core", None).name
    assert other.samples("More", "core", None).digest != other.samples("Forget06", "core", None).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: {More: {like: Forget}}", "tasks.More.like is 'Forget', expected another task: Forget01, "),
        ("tasks: {A: {like: B}, B: {like: A}}", "expected another task: Forget01, "),
        ("tasks: {Forget7: {objects: all}}", "or `like: Forget25` to take the other leaves from there."),
        ("tasks: {More: {like: Forget06}, Forget06: null}", "tasks.More.like is 'Forget06', expected another task"),
    ],
)
def test_a_task_like_an_unknown_one_is_refused(text: str, message: str, configuration: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(configuration, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


PAIRS = "{Amber_Checks: Rose_Dots, Amber_Waves: Rose_Dots, Cobalt_Checks: Teal_Dots, Cobalt_Dots: Seed_Images, "


def test_a_method_and_a_row_may_name_the_anchor_of_each_forget_style(configuration: Path) -> None:
    pairs = f'{PAIRS}Sky_Stripes: "", Sky_Waves: Sky_Stripes}}'
    other = plan(
        configuration,
        f"methods: {{core: {{anchors: {{Forget06: {pairs}}}}}}}\n"
        f"tables: {{table1: {{tasks: [Forget06], rows: [core, {{name: far, method: esd, anchors: {pairs}}}]}}}}",
    )
    core, esd = (
        other.unlearning("Forget06", method, other.study.rows_of(["core"])[0].anchors) for method in ("core", "esd")
    )
    assert core.slug == "core-forget06-pairs-s0" and esd.slug == "esd-forget06-one_to_all-s0"
    rows, _ = other.rows_of("table1")
    assert rows[0].anchors == rows[1].anchors
    assert rows[0].anchors["Amber_Waves"] == ["Rose_Dots"] and rows[0].anchors["Sky_Stripes"] == [""]
    assert core.settings.model_dump()["candidates"] == rows[0].anchors
    assert len(other.products()) > 3


def test_explicit_anchors_that_equal_a_scheme_use_its_run(configuration: Path) -> None:
    mini = load_plan("mini", configuration)
    candidates = mini.candidates(mini.study.tasks["Forget06"], "one_to_one")
    pairs = ", ".join(f"{style}: {anchors[0]}" for style, anchors in candidates.items())
    other = plan(configuration, f"methods: {{core: {{anchors: {{Forget06: {{{pairs}}}}}}}}}")
    assert other.unlearning("Forget06", "core", None).digest == mini.unlearning("Forget06", "core", None).digest


@pytest.mark.parametrize(
    ("method", "pairs", "message"),
    [
        (
            "core",
            "{Amber_Checks: Rose_Dots}",
            "methods.core.anchors.Forget06 has entries for Amber_Checks, expected an anchor for Amber_Waves (",
        ),
        (
            "core",
            f"{PAIRS}Sky_Stripes: Rose_Dots, Sky_Wave: Rose_Dots}}",
            "expected an anchor for Sky_Waves instead of `Sky_Wave`, which is no forget style of Forget06 (",
        ),
        (
            "core",
            f"{PAIRS}Sky_Stripes: Rose_Dots, Sky_Waves: Sky_Waves}}",
            "is 'Sky_Waves', expected a style other than",
        ),
        ("core", f"{PAIRS}Sky_Stripes: Rose_Dots, Sky_Waves: Nowhere}}", "is 'Nowhere', expected a style: "),
        (
            "core",
            f"{PAIRS}Sky_Stripes: A, Sky_Waves: A, Teal_Dots: Rose_Dots}}",
            "expected forget styles of Forget06 only",
        ),
        (
            "ca_model",
            f'{PAIRS}Sky_Stripes: "", Sky_Waves: Rose_Dots}}',
            "expected a style: the method trains on its images",
        ),
        ("core", "{Amber_Checks: 3}", "methods.core.anchors.Forget06.Amber_Checks is 3, expected text"),
        ("core", "one_to_on", "methods.core.anchors.Forget06 is 'one_to_on', expected 'one_to_one', 'all_to_one'"),
    ],
)
def test_explicit_anchors_that_do_not_fit_the_task_are_refused(
    method: str, pairs: str, message: str, configuration: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(configuration, f"methods: {{{method}: {{anchors: {{Forget06: {pairs}}}}}}}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("leaf", ["length", "anchors"])
def test_a_task_without_an_entry_needs_one_or_the_default(leaf: str, configuration: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(configuration, f"methods: {{core: {{{leaf}: {{Forget06: null}}}}}}")
    found, _, expected = str(caught.value).partition(", expected ")
    assert f": methods.core.{leaf} has entries for Forget01, Forget" in found
    assert expected.startswith("an entry for Forget06, which tables.table1.rows needs, or for `default`")


def test_the_nearest_name_is_the_first_of_those_that_exist(configuration: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is 'Teal_Dotz', expected a style of the world: Teal_Dots, Amber_"):
        plan(configuration, "tasks: {Forget06: {evaluation: {retain: [Teal_Dotz]}}}")


def test_rows_and_figures_have_defaults(configuration: Path) -> None:
    other = plan(
        configuration,
        "tables: {table1: {tasks: [Forget06], "
        "rows: [core, {method: core, anchors: one_to_all, title: X}, {method: esd}]}}\n"
        "figures: {figure9: {task: Forget06, prompts: [[Sky_Waves, Circles]], columns: [original]}}",
    )
    assert [row.name for row in other.study.rows_of(other.study.tables["table1"].rows)] == [
        "core",
        "core-one_to_all",
        "esd",
    ]
    figure = other.products()["figure9"].settings
    assert figure.model_dump()["seed"] == other.study.tasks["Forget06"].evaluation.seeds[0]
    assert figure.model_dump()["pixels"] == other.study.sampling.resolution == 32


def test_a_study_of_concepts_is_told_of_concepts(configuration: Path) -> None:
    (configuration / "studies/pets.yaml").write_text(
        "base: own\n"
        "world: {concepts: [cat, dog], assets: {images: photos, pipeline: base, clip: clip}}\n"
        "prompts: {template: 'a {concept}', evaluation: ['a {concept}']}\n"
        "tasks: {NoCat: {forget: [cats], evaluation: {retain: [dog], seeds: [0, 1]}}}\n"
        "tables: {table1: {tasks: [NoCat], rows: [original, core]}}\n"
    )
    with pytest.raises(ConfigurationError, match=r"tasks.NoCat.forget is 'cats', expected a concept of the world: cat"):
        load_study("pets", configuration)

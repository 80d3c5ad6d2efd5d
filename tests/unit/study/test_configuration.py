"""Configuration: studies that load, their plans, and one clear sentence for everything that does not load."""

from __future__ import annotations

import copy
import csv
import datetime
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.settings.unlearning import Length
from corelib.study import loading, overlays
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.schema import Study
from corelib.study.shipped_world import load_shipped
from corelib.study.study_files import study_names

CONFIGURATION = REPOSITORY / "config"

Load = Callable[..., Study]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration folder for this test alone."""
    return Path(shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pipeline", "*.pth")))


@pytest.fixture
def load(folder: Path) -> Load:
    """Load the study `trial` from the text (or the bytes) of its overlay."""

    def load(overlay: str | bytes) -> Study:
        (folder / "studies" / "trial.yaml").write_bytes(overlay if isinstance(overlay, bytes) else overlay.encode())
        return load_study("trial", folder)

    return load


@pytest.fixture
def error_for(load: Load, folder: Path) -> Callable[..., str]:
    """The error for an overlay, without the name of the file."""

    def error_for(overlay: str | bytes, file: str = "studies/trial.yaml") -> str:
        with pytest.raises(ConfigurationError) as caught:
            load(overlay)
        return sentence(caught.value, folder / file)

    return error_for


def sentence(error: ConfigurationError, file: Path) -> str:
    """The text of an error after the name of the file, which must be one line with a full stop."""
    text = str(error)
    assert text.startswith(str(file)), text
    assert "\n" not in text
    assert text.endswith(".")
    return text.removeprefix(str(file))


def published() -> list[list[str]]:
    with (CONFIGURATION / "published.csv").open(newline="") as stream:
        return list(csv.reader(stream))[1:]


def runs_of(plan: Plan, *products: str) -> dict[str, Run]:
    """Every run from which some products are built; by default all products."""
    found: dict[str, Run] = {}
    for name, product in plan.products().items():
        if not products or name in products:
            found |= product.with_all_inputs()
    return found


# Shipped studies


@pytest.mark.parametrize("name", study_names(CONFIGURATION))
def test_every_shipped_study_loads_and_plans(name):
    study = load_study(name, CONFIGURATION)
    plan = Plan(name, study, published(), load_shipped(CONFIGURATION))
    gate = set() if study.gate is None else {"gate"}
    claims = {"claims"} if study.has_claims else set()
    charts = {name.replace("table", "charts") for name in study.tables}
    compared = {
        name.replace("table", "distances") for name, table in study.tables.items() if study.retrained_row(table)
    }
    others = {*study.figures, *study.probes, *study.sequences, *gate, *claims, "report"}
    assert set(plan.products()) == {*study.tables, *charts, *compared, *others}


def test_three_studies_of_the_paper_and_eight_miniatures_are_shipped():
    kinds = {name: load_study(name, CONFIGURATION).world.kind for name in study_names(CONFIGURATION)}
    assert kinds == {
        "paper": "unlearn_canvas",
        "mini": "miniature",
        "mini-from-scratch": "miniature",
        "mini-random-alternatives": "miniature",
        "mini-released": "miniature",
        "extended": "miniature",
        "mini-seeds": "miniature",
        "mini-sequences": "miniature",
        "random-alternatives": "unlearn_canvas",
        "released": "unlearn_canvas",
        "tiny": "miniature",
    }


def plan_of(name: str) -> Plan:
    return Plan(name, load_study(name, CONFIGURATION), published(), load_shipped(CONFIGURATION))


@pytest.fixture(scope="module")
def paper() -> Plan:
    return plan_of("paper")


@pytest.fixture(scope="module")
def mini() -> Plan:
    return plan_of("mini")


@pytest.fixture(scope="module", params=["paper", "mini"])
def full(request) -> Plan:
    """The plan of a study that has all tables of the paper."""
    return plan_of(request.param)


def steps_of(run: Run) -> int:
    """The length of a run on the paper's slices: three images of each forget style and object."""
    settings, forget = run.settings, run.inputs["slice"].settings
    if settings.length.steps is not None:
        return settings.length.steps
    pairs = len(forget.forget) * len(forget.objects) * 3
    return math.ceil(settings.length.epochs * pairs / settings.batch)


def test_the_papers_tables_are_31_unlearning_runs_of_382_250_steps(paper):
    tables = ("table1", "table2", "table3", "table4")
    unlearning = [run for run in runs_of(paper, *tables).values() if run.stage == "unlearning"]
    assert len(unlearning) == 31
    assert sum(steps_of(run) for run in unlearning) == 382_250


def test_each_table_of_the_paper_adds_the_steps_that_the_protocol_counts(paper):
    seen: set[str] = set()
    added = []
    for name in ("table1", "table2", "table3", "table4"):
        runs = {key: run for key, run in runs_of(paper, name).items() if run.stage == "unlearning"}
        added.append(sum(steps_of(run) for key, run in runs.items() if key not in seen))
        seen |= set(runs)
    assert added == [2_000 + 34_750 + 169_750, 19_000, 6_750, 150_000]


def test_the_papers_tables_and_figures_need_14_220_images_of_which_the_original_model_samples_1_140(full):
    samples = [run for run in runs_of(full).values() if run.stage == "samples"]
    assert len(samples) == 32
    assert sum(len(run.settings.grid) for run in samples) == 14_220
    assert [len(run.settings.grid) for run in samples if "delta" not in run.inputs] == [1_140]
    assert all(len(set(run.settings.grid)) == len(run.settings.grid) for run in samples)


def test_rows_that_are_the_same_experiment_are_the_same_run(full):
    core = {task: full.cells(task, "core", None).digest for task in ("Forget06", "Forget25")}
    default = full.table("table4").inputs["Forget25/one_to_one/0"]
    assert default.digest == core["Forget25"] == full.table("table1").inputs["Forget25/core/0"].digest
    assert full.table("table3").inputs["Forget06/core/0"].digest == core["Forget06"]
    others = [full.table("table4").inputs[f"Forget25/{scheme}/0"].digest for scheme in ("all_to_one", "one_to_all")]
    assert default.digest not in others


def test_the_evaluation_grids_are_those_behind_the_published_counts(full):
    found = {}
    for task in full.study.tasks:
        cells = full.cells(task, "core", None).settings
        each = len(cells.objects) * len(cells.seeds)
        found[task] = (len(cells.forget) * each, len(cells.retain) * each)
    assert found == {
        "Forget01": (30, 150),
        "Forget06": (60, 60),
        "Forget25": (500, 520),
        "Forget06-unseen": (60, 60),
    }


def test_table_2_is_evaluated_on_objects_that_were_not_trained_on(full):
    task = full.study.tasks["Forget06-unseen"]
    assert set(task.objects).isdisjoint(task.evaluation.objects)
    assert sorted([*task.objects, *task.evaluation.objects]) == full.study.world.objects


# The miniature is the paper's experiment


def test_the_miniature_has_the_papers_shape(paper, mini):
    ours, theirs = mini.study.world, paper.study.world
    for names in ("styles", "objects"):
        assert len(getattr(ours, names)) == len(getattr(theirs, names))
        assert sorted(getattr(ours, names)) == getattr(ours, names)
    assert ours.images_per_cell == theirs.images_per_cell == 20


def test_the_miniature_differs_from_the_paper_only_in_its_world_and_its_scale(paper, mini):
    for section in ("anchoring", "methods", "tables"):
        assert getattr(mini.study, section) == getattr(paper.study, section)
    ours, theirs = (plan.study.training.model_dump(exclude={"scale"}) for plan in (mini, paper))
    assert ours == theirs
    assert mini.study.figures.keys() == paper.study.figures.keys()
    for name, task in mini.study.tasks.items():
        model = paper.study.tasks[name]
        assert (task.retain, task.photos_in_retain) == (model.retain, model.photos_in_retain)
        assert task.evaluation.seeds == model.evaluation.seeds


@pytest.mark.parametrize("task", ["Forget01", "Forget06", "Forget06-unseen"])
def test_the_miniature_forgets_and_evaluates_styles_at_the_same_positions_as_the_paper(task, paper, mini):
    places = []
    for plan in (paper, mini):
        painted = [style for style in plan.study.world.styles if style != plan.study.prompts.photo_style]
        chosen = plan.study.tasks[task]
        places.append([[painted.index(style) for style in part] for part in (chosen.forget, chosen.evaluation.retain)])
    assert places[0] == places[1]


def test_the_miniatures_forget25_forgets_and_retains_a_part_of_every_palette_and_texture(mini):
    task = mini.study.tasks["Forget25"]
    painted = [style for style in mini.study.world.styles if style != "Seed_Images"]
    assert task.forget == painted[::2]
    assert sorted([*task.forget, *task.evaluation.retain]) == mini.study.world.styles
    words = {word for style in painted for word in style.split("_")}
    assert words == {word for style in task.forget for word in style.split("_")}
    assert words == {word for style in painted[1::2] for word in style.split("_")}


def test_one_rule_scales_every_method_of_the_miniature(paper, mini):
    scale = mini.study.training.scale
    seen = 0
    for task in mini.study.tasks:
        for name, method in mini.study.methods.items():
            if task not in method.length:
                continue
            ours, theirs = (plan.unlearning(task, name, None).settings for plan in (mini, paper))
            assert ours.learning_rate == pytest.approx(theirs.learning_rate * scale.learning_rate)
            in_steps = theirs.length.steps is not None
            was, now = ((part.steps if in_steps else part.epochs) for part in (theirs.length, ours.length))
            assert now == pytest.approx(was * scale.length)
            assert ours.min_steps == scale.min_steps
            assert (ours.batch, ours.objective) == (theirs.batch, theirs.objective)
            seen += 1
    assert seen == 27 + 4 * 3, "with the four released variants on three tasks"


@pytest.mark.parametrize(
    ("length", "factor", "expected"),
    [
        (Length(steps=1000), 0.02, Length(steps=20)),
        (Length(steps=30), 0.1, Length(steps=3)),
        (Length(steps=31), 0.1, Length(steps=4)),
        (Length(steps=1), 0.001, Length(steps=1)),
        (Length(epochs=6), 0.1, Length(epochs=0.6)),
        (Length(epochs=100), 0.02, Length(epochs=2)),
    ],
)
def test_rounding_adds_no_step_to_a_scaled_length(length, factor, expected):
    assert length.times(factor) == expected


def test_the_papers_own_scale_changes_nothing(paper):
    for name, method in paper.study.methods.items():
        for task, length in method.length.items():
            settings = paper.unlearning(task, name, None).settings
            assert (settings.learning_rate, settings.length, settings.min_steps) == (method.learning_rate, length, 1)


def test_configuration_is_read_without_importing_torch():
    code = "import sys; from pathlib import Path; from corelib.study.loading import load_study; [load_study(name, Path('config')) for name in ('paper', 'tiny')]; print([name for name in ('torch', 'diffusers', 'pandas') if name in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


# Overlays


def test_an_overlay_changes_only_the_leaves_in_it(load):
    study = load("methods: {core: {learning_rate: 3.0e-5}}")
    base = load_study("paper", CONFIGURATION)
    assert study.methods["core"].learning_rate == 3.0e-5
    assert study.methods["core"].model_copy(update={"learning_rate": 1.0e-5}) == base.methods["core"]
    assert study.model_copy(update={"methods": base.methods}) == base


@pytest.mark.parametrize("overlay", ["", "# nothing yet\n", "---\n", "{}", "base: paper"])
def test_an_empty_overlay_is_its_base(load, overlay):
    assert load(overlay) == load_study("paper", CONFIGURATION)


def test_a_method_like_another_differs_only_in_its_own_leaves(load):
    study = load("methods: {core_faster: {like: core, learning_rate: 3.0e-5, length: {Forget25: {steps: 7}}}}")
    core, faster = study.methods["core"], study.methods["core_faster"]
    assert faster.learning_rate == 3.0e-5
    assert faster.length == {**core.length, "Forget25": Length(steps=7)}
    same = {"learning_rate": core.learning_rate, "length": core.length, "title": core.title}
    assert faster.model_copy(update=same) == core


def test_the_title_of_a_method_like_another_contains_its_name_by_default(load):
    methods = load("methods: {a: {like: core}, b: {like: core, title: Bee}, c: {like: b}}").methods
    assert [methods[name].title for name in ("core", "a", "b", "c")] == [
        "CORE (ours)", "CORE (ours) (a)", "Bee", "Bee (c)",
    ]  # fmt: skip


def test_null_in_a_method_like_another_removes_the_others_entry_for_a_task(load, folder):
    brief = "methods: {a: {length: {Forget25: null, Forget01: {steps: 7}}, like: core, anchors: {Forget25: null}}}"
    a = load(brief).methods["a"]
    assert set(a.length) == set(a.anchors) == {"Forget01", "Forget06", "Forget06-unseen"}
    (folder / "studies" / "middle.yaml").write_text(brief)
    assert set(load("base: middle\nmethods: {a: {length: {Forget01: null}}}").methods["a"].length) == {
        "Forget06", "Forget06-unseen",
    }  # fmt: skip


def test_null_in_a_method_like_another_removes_only_existing_entries(error_for):
    assert error_for("methods: {a: {like: core_live_target, length: {Forget25: null}}}") == (
        ": methods.a.length.Forget25 is null, which removes an entry, but there is none, expected `Forget06`."
    )


def test_a_method_like_another_follows_an_overlay_of_the_other(load, folder):
    (folder / "studies" / "middle.yaml").write_text("methods: {a: {like: b}, b: {like: core, batch: 2}}")
    study = load("base: middle\nmethods: {core: {title: New}, b: {batch: 3}}")
    assert (study.methods["a"].title, study.methods["a"].batch) == ("New (b) (a)", 3)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("{a: {like: cor}}", "methods.a.like is 'cor', expected another method: core, esd,"),
        ("{a: {like: a}}", "methods.a.like is 'a', expected another method: core, esd,"),
        ("{a: {like: b}, b: {like: a}}", "methods.b.like is 'a', expected another method: core, esd,"),
        ("{a: {like: 3}}", "methods.a.like is 3, expected another method: core, esd,"),
        ("{a: {like: [core]}}", "methods.a.like is ['core'], expected another method: core, esd,"),
        ("{a: {like: core, learning_rte: 1}}", "methods.a.learning_rte is not a known key, expected `learning_rate`"),
        ("{core: null, a: {like: core}}", "methods.a.like is 'core', expected another method: esd,"),
    ],
)
def test_a_method_like_an_unknown_one_is_refused(overlay, message, load):
    with pytest.raises(ConfigurationError, match=re.escape(f"trial.yaml: {message}")):
        load(f"methods: {overlay}")


def test_a_study_may_be_built_on_another_one(load, folder):
    (folder / "studies" / "middle.yaml").write_text(
        "base: tiny\ntraining: {seeds: [5]}\nsampling: {guidance_scale: 4.0}\n"
    )
    study = load("base: middle\ntraining: {seeds: [6]}\n")
    assert (study.training.seeds, study.sampling.guidance_scale, study.world.kind) == ([6], 4.0, "miniature")


@pytest.mark.parametrize("written", ["1e-5", "1E-5", "1e-05", "1.0e-5", "0.00001"])
def test_small_numbers_are_read_in_every_notation(load, written):
    assert load(f"methods: {{core: {{learning_rate: {written}}}}}").methods["core"].learning_rate == 1e-5


def test_a_whole_number_is_accepted_where_a_number_is_expected(load):
    assert load("sampling: {guidance_scale: 7}").sampling.guidance_scale == 7.0


def test_null_removes_a_task_and_the_methods_entries_for_it(load):
    study = load(
        "tasks: {Forget25: null}\nfigures: {figure2: null, figure3: null}\n"
        "tables: {table4: null, table1: {tasks: [Forget01, Forget06]}}"
    )
    assert list(study.tasks) == ["Forget01", "Forget06", "Forget06-unseen"]
    assert set(study.tables) == {"table1", "table2", "table3"}
    assert study.figures == {}
    for method in study.methods.values():
        assert "Forget25" not in {*method.length, *method.anchors}


def test_null_removes_a_method_and_a_methods_entry_for_one_task(load):
    study = load(
        "methods: {ediff: null, esd: {length: {Forget25: null}, anchors: {Forget25: null}}}\n"
        "tables: {table1: {rows: [original, core]}, table2: {rows: [core]}}\nfigures: {figure2: null, figure3: null}"
    )
    assert "ediff" not in study.methods
    assert set(study.methods["esd"].length) == set(study.methods["esd"].anchors) == {
        "Forget01", "Forget06", "Forget06-unseen",
    }  # fmt: skip


def test_null_is_a_value_where_a_section_may_be_absent(load):
    study = load(
        "methods: {core: {objective: {retain: null}}, salun: {saliency: null}}\ntables: {table1: {published: null}}"
    )
    assert study.methods["core"].objective.retain is None
    assert study.methods["salun"].saliency is None
    assert study.tables["table1"].published is None


def test_another_kind_of_target_replaces_the_section_and_keeps_no_leaf_of_the_old_one(load):
    target = load("methods: {esd: {objective: {unlearn: {target: {kind: frozen_model, prompt: anchor}}}}}").methods[
        "esd"
    ]
    assert target.objective.unlearn.target.model_dump() == {"kind": "frozen_model", "prompt": "anchor"}
    assert target.objective.unlearn.distance == "squared"


def test_the_same_kind_of_target_keeps_the_leaves_that_are_not_named(load):
    overlay = "methods: {salun: {objective: {unlearn: {target: {kind: current_model, gradient: through}}}}}"
    target = load(overlay).methods["salun"].objective.unlearn.target
    assert target.model_dump() == {
        "kind": "current_model",
        "prompt": "anchor",
        "gradient": "through",
        "posterior": "shared",
    }


@pytest.mark.parametrize(
    ("method", "length", "expected"),
    [("core", "{steps: 7}", (None, 7)), ("esd", "{epochs: 2}", (2.0, None)), ("core", "{epochs: 0.5}", (0.5, None))],
)
def test_steps_replace_epochs_and_epochs_steps(load, method, length, expected):
    found = load(f"methods: {{{method}: {{length: {{Forget01: {length}}}}}}}").methods[method].length["Forget01"]
    assert (found.epochs, found.steps) == expected


def test_a_list_is_replaced_as_a_whole(load):
    assert load("training: {images: [4]}").training.images == [4]


def test_anchors_of_yaml_may_share_a_section(load):
    study = load(
        "methods:\n  core: {length: {Forget01: &short {steps: 5}, Forget06: *short, Forget25: {<<: *short, steps: 6}}}"
    )
    assert [study.methods["core"].length[task].steps for task in ("Forget01", "Forget06", "Forget25")] == [5, 5, 6]


# Studies in the documentation


def examples() -> dict[str, str]:
    """Every study that a page shows, by its name."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    blocks = re.findall(
        r"```yaml\n# config/studies/([\w-]+)\.yaml(.*?)```", "".join(map(Path.read_text, pages)), re.DOTALL
    )
    assert len(dict(blocks)) == len(blocks), "two examples of one name"
    return {name: f"#{content}" for name, content in blocks}


@pytest.mark.parametrize("name", examples())
def test_every_study_that_a_page_shows_can_be_planned(name, folder):
    (folder / f"studies/{name}.yaml").write_text(examples()[name])
    assert Plan(name, load_study(name, folder), published(), load_shipped(CONFIGURATION)).products()


def test_every_open_reading_names_an_existing_key():
    rows = (REPOSITORY / "docs/protocol.md").read_text().split("## What is open")[1].split("\n## ")[0]
    keys = [
        key
        for row in re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \|", rows, re.MULTILINE)[2:]
        for key in re.findall(r"`([\w*.]+)`", row)
    ]
    assert len(keys) > 30
    known = [".".join(key) for key in keys_of(shipped())]
    patterns = {key: re.escape(key).replace(r"\*", r"\w+(-\w+)*").replace(r"\.\.\.", ".*") for key in keys}
    assert [key for key, pattern in patterns.items() if not any(re.match(pattern, name) for name in known)] == []


def keys_of(section: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in section.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, name))


# Refused: keys, values and types. Each entry: overlay, key, value, expectation

REFUSED = {
    "gradients in fp16": (
        "training: {precision: {gpu: fp16}}",
        "training.precision.gpu",
        "'fp16'",
        "'fp32' or 'bf16': small gradients are 0 in fp16",
    ),
    "unknown key": (
        "methods: {core: {learning_rat: 1.0e-5}}",
        "methods.core.learning_rat",
        "not a known key",
        "`learning_rate`",
    ),
    "unknown section": ("sampler: {}", "sampler", "not a known key", "`sampling`"),
    "unknown key without a neighbour": (
        "fid: {zzz: 1}",
        "fid.zzz",
        "not a known key",
        "one of mode, reference_images, batch",
    ),
    "unknown key of a kind": (
        "methods: {core: {objective: {unlearn: {target: {promt: own}}}}}",
        "methods.core.objective.unlearn.target.promt",
        "not a known key",
        "`prompt`",
    ),
    "key of another kind": (
        "methods: {core: {objective: {unlearn: {target: {eta: 1.0}}}}}",
        "methods.core.objective.unlearn.target.eta",
        "not a known key",
        "one of kind, prompt",
    ),
    "unknown key of a row": (
        "tables: {table3: {rows: [{name: a, method: core, titel: A}]}}",
        "tables.table3.rows.0.titel",
        "not a known key",
        "`title`",
    ),
    "unknown key with a line break": ('"a\\nb": 1', "a b", "not a known key", "one of world"),
    "key of the base": ("world: {seed: 1}", "world.seed", "not a known key", "one of kind, styles"),
    "text for a number": ("methods: {core: {learning_rate: fast}}", "methods.core.learning_rate", "'fast'", "a number"),
    "number in quotes": (
        "methods: {core: {learning_rate: '1e-5'}}",
        "methods.core.learning_rate",
        "'1e-5'",
        "a number",
    ),
    "true for a number": ("sampling: {batch: true}", "sampling.batch", "true", "a whole number"),
    "fraction for a whole number": ("sampling: {batch: 1.5}", "sampling.batch", "1.5", "a whole number"),
    "number for text": ("methods: {core: {title: 6}}", "methods.core.title", "6", "text"),
    "text for yes": (
        "sampling: {scheduler: {clip_sample: 'no'}}",
        "sampling.scheduler.clip_sample",
        "'no'",
        "`true` or `false`",
    ),
    "text for a list": ("tasks: {Forget01: {forget: Monet}}", "tasks.Forget01.forget", "'Monet'", "a list"),
    "list for a section": ("sampling: [1]", "sampling", "[1]", "a section"),
    "null for a section": ("sampling: null", "sampling", "null", "a section"),
    "number for a world": ("world: 3", "world", "3", "a section"),
    "number for all tasks": ("tasks: 3", "tasks", "3", "a section"),
    "number for a task": ("tasks: {Forget01: 3}", "tasks.Forget01", "3", "a section"),
    "number deep in a list": ("world: {styles: [Monet, 3]}", "world.styles.1", "3", "text"),
    "false is not a name": ("world: {styles: [Monet, false]}", "world.styles.1", "false", "text"),
    "number in a list that may be a word": (
        "tasks: {Forget01: {evaluation: {objects: [Cats, 3]}}}",
        "tasks.Forget01.evaluation.objects.1",
        "3",
        "text",
    ),
    "wrong word where a list would do": (
        "tasks: {Forget01: {objects: most}}",
        "tasks.Forget01.objects",
        "'most'",
        "'all' or a list",
    ),
    "wrong word for the retain set": (
        "tasks: {Forget01: {retain: others}}",
        "tasks.Forget01.retain",
        "'others'",
        "'rest' or 'evaluated' or a list",
    ),
    "list in a list": ("training: {images: [1, [2]]}", "training.images.1", "[2]", "a whole number"),
    "number for a row": ("tables: {table3: {rows: [3]}}", "tables.table3.rows.0", "3", "text or a section"),
    "row without a method": (
        "tables: {table3: {rows: [{name: a}]}}",
        "tables.table3.rows.0.method",
        "missing",
        "a value",
    ),
    "negative number": (
        "methods: {core: {learning_rate: -1e-5}}",
        "methods.core.learning_rate",
        "-1e-05",
        "greater than 0",
    ),
    "zero batch": ("sampling: {batch: 0}", "sampling.batch", "0", "greater than 0"),
    "negative seed": ("training: {seeds: [-1]}", "training.seeds.0", "-1", "at least 0"),
    "negative seed of an image": (
        "tasks: {Forget01: {evaluation: {seeds: [188, -1]}}}",
        "tasks.Forget01.evaluation.seeds.1",
        "-1",
        "at least 0",
    ),
    "quality beyond a hundred": ("sampling: {jpeg_quality: 101}", "sampling.jpeg_quality", "101", "at most 100"),
    "endless training": (
        "methods: {core: {length: {Forget01: {epochs: .inf}}}}",
        "methods.core.length.Forget01.epochs",
        "inf",
        "finite",
    ),
    "number without bounds": ("sampling: {guidance_scale: .inf}", "sampling.guidance_scale", ".inf", "finite"),
    "weight that is no number": (
        "methods: {core: {objective: {unlearn: {weight: .nan}}}}",
        "methods.core.objective.unlearn.weight",
        "nan",
        "finite",
    ),
    "omega_t of no kind": (
        "methods: {ca_model: {objective: {unlearn: {weight: {kind: snr, scale: 1.0}}}}}",
        "methods.ca_model.objective.unlearn.weight.kind",
        "'snr'",
        "one of min_snr, one_minus_alpha_bar",
    ),
    "omega_t without a kind": (
        "methods: {ca_model: {objective: {unlearn: {weight: {scale: 1.0}}}}}",
        "methods.ca_model.objective.unlearn.weight.kind",
        "missing",
        "one of min_snr, one_minus_alpha_bar",
    ),
    "omega_t without a bound": (
        "methods: {ca_model: {objective: {unlearn: {weight: {kind: min_snr, scale: 1.0, gamma: 0.0}}}}}",
        "methods.ca_model.objective.unlearn.weight.gamma",
        "0.0",
        "greater than 0",
    ),
    "weight in words": (
        "methods: {ca_model: {objective: {unlearn: {weight: min_snr}}}}",
        "methods.ca_model.objective.unlearn.weight",
        "'min_snr'",
        "a number",
    ),
    "a second latent of retain pairs": (
        "methods: {salun: {objective: {retain: {target: "
        "{kind: current_model, prompt: own, gradient: detached, posterior: own}}}}}",
        "methods.salun.objective.retain",
        "current_model",
        "`posterior: shared`",
    ),
    "a latent of an x_t that is sampled": (
        "methods: {esd_released: {objective: {unlearn: {target: "
        "{kind: current_model, prompt: own, gradient: detached, posterior: own}}}}}",
        "methods.esd_released.objective.unlearn",
        "sampled",
        "`posterior: shared`",
    ),
    "nought images": ("fid: {reference_images: []}", "fid.reference_images", "[]", "at least one"),
    "no seeds": ("tasks: {Forget01: {evaluation: {seeds: []}}}", "tasks.Forget01.evaluation.seeds", "[]", "at least 1"),
    "one beta": ("training: {optimizer: {betas: [0.9]}}", "training.optimizer.betas", "[0.9]", "at least 2"),
    "beta of one": ("training: {optimizer: {betas: [0.9, 1.0]}}", "training.optimizer.betas", "1.0", "below 1"),
    "wrong choice": ("training: {reduction: median}", "training.reduction", "'median'", "'mean' or 'sum'"),
    "wrong scheme": (
        "methods: {core: {anchors: {Forget01: two_to_one}}}",
        "methods.core.anchors.Forget01",
        "'two_to_one'",
        "'one_to_one'",
    ),
    "wrong kind of target": (
        "methods: {core: {objective: {unlearn: {target: {kind: frozn_model}}}}}",
        "methods.core.objective.unlearn.target.kind",
        "'frozn_model'",
        "one of frozen_model, current_model",
    ),
    "wrong kind of world": ("world: {kind: moon}", "world.kind", "'moon'", "one of unlearn_canvas, miniature"),
    "kind that is a list": (
        "world: {kind: [miniature]}",
        "world.kind",
        "['miniature']",
        "one of unlearn_canvas, miniature",
    ),
    "kind without its leaves": (
        "methods: {esd: {objective: {unlearn: {target: {kind: uniform_noise, low: 0.0}}}}}",
        "methods.esd.objective.unlearn.target.high",
        "missing",
        "a value",
    ),
    "target without a kind": (
        "methods: {esd: {objective: {retain: {target: {prompt: own}, weight: 1.0}}}}",
        "methods.esd.objective.retain.target.kind",
        "missing",
        "one of frozen_model",
    ),
    "interval upside down": (
        "methods: {ediff: {objective: {unlearn: {target: {low: 2.0}}}}}",
        "methods.ediff.objective.unlearn.target",
        "2.0",
        "low < high",
    ),
    "anchor for retain pairs": (
        "methods: {core: {objective: {retain: {target: {prompt: anchor}}}}}",
        "methods.core.objective.retain",
        "'anchor'",
        "a target that needs no anchor",
    ),
    "both lengths": (
        "methods: {core: {length: {Forget01: {epochs: 1, steps: 1}}}}",
        "methods.core.length.Forget01",
        "{epochs: 1",
        "either `epochs` or `steps`",
    ),
    "no length": (
        "methods: {core: {length: {Forget01: {}}}}",
        "methods.core.length.Forget01",
        "{}",
        "either `epochs` or `steps`",
    ),
    "template without a style": (
        "prompts: {template: 'A {object} image.'}",
        "prompts.template",
        "'A {object} image.'",
        "{object} and {style}",
    ),
    "template with another field": (
        "prompts: {template: '{object} {style} {artist}'}",
        "prompts.template",
        "{artist}",
        "no others",
    ),
    "template with an open brace": ("prompts: {template: '{object} {style} {'}", "prompts.template", "{'", "no others"),
}


# Refused: inconsistent leaves

INCONSISTENCIES = {
    "unknown forget style": (
        "tasks: {Forget01: {forget: [Van_Goch]}}",
        "tasks.Forget01.forget",
        "'Van_Goch'",
        "a style of the world",
    ),
    "unknown retain style": (
        "tasks: {Forget01: {retain: [Manet]}}",
        "tasks.Forget01.retain",
        "'Manet'",
        "a style of the world",
    ),
    "unknown evaluated style": (
        "tasks: {Forget01: {evaluation: {retain: [Manet]}}}",
        "tasks.Forget01.evaluation.retain",
        "'Manet'",
        "a style of the world",
    ),
    "unknown object": (
        "tasks: {Forget01: {objects: [Cars]}}",
        "tasks.Forget01.objects",
        "'Cars'",
        "an object of the world",
    ),
    "unknown evaluated object": (
        "tasks: {Forget01: {evaluation: {objects: [Cars]}}}",
        "tasks.Forget01.evaluation.objects",
        "'Cars'",
        "an object of the world",
    ),
    "unknown photo style": (
        "prompts: {photo_style: Photos}",
        "prompts.photo_style",
        "'Photos'",
        "a style of the world",
    ),
    "photos to forget": (
        "tasks: {Forget01: {forget: [Seed_Images]}}",
        "tasks.Forget01.forget",
        "'Seed_Images'",
        "other than the photos",
    ),
    "photos in a retain list": (
        "tasks: {Forget01: {retain: [Monet, Seed_Images]}}",
        "tasks.Forget01.retain",
        "'Seed_Images'",
        "`photos_in_retain: true`",
    ),
    "overlap in training": (
        "tasks: {Forget01: {retain: [Monet, Van_Gogh]}}",
        "tasks.Forget01.retain",
        "'Van_Gogh'",
        "styles that are not in tasks.Forget01.forget",
    ),
    "overlap in evaluation": (
        "tasks: {Forget06: {evaluation: {retain: [Monet, Ukiyoe]}}}",
        "tasks.Forget06.evaluation.retain",
        "'Ukiyoe'",
        "styles that are not in tasks.Forget06.forget",
    ),
    "nothing to retain": (
        "tasks: {Forget01: {retain: evaluated, evaluation: {retain: [Seed_Images]}}}",
        "tasks.Forget01.retain",
        "'evaluated'",
        "at least one style that is not forgotten",
    ),
    "nothing to evaluate": (
        "tasks: {Forget01: {evaluation: {retain: []}}}",
        "tasks.Forget01.evaluation.retain",
        "[]",
        "at least one style",
    ),
    "no objects": ("tasks: {Forget01: {objects: []}}", "tasks.Forget01.objects", "[]", "at least one object"),
    "one retained image": (
        "tasks: {Forget01: {evaluation: {retain: [Monet], objects: [Cats], seeds: [188]}}}",
        "tasks.Forget01.evaluation.retain",
        "['Monet']",
        "at least two images",
    ),
    "style twice": (
        "tasks: {Forget01: {forget: [Monet, Monet], evaluation: {retain: [Rust]}}}",
        "tasks.Forget01.forget",
        "'Monet'",
        "each entry once",
    ),
    "seed twice": (
        "tasks: {Forget01: {evaluation: {seeds: [188, 188]}}}",
        "tasks.Forget01.evaluation.seeds",
        "188",
        "each entry once",
    ),
    "image twice": ("training: {images: [1, 1]}", "training.images", "1", "each entry once"),
    "image that no cell has": (
        "training: {images: [20, 21]}",
        "training.images",
        "21",
        "up to world.images_per_cell (20)",
    ),
    "reference that no cell has": (
        "fid: {reference_images: [21]}",
        "fid.reference_images",
        "21",
        "up to world.images_per_cell (20)",
    ),
    "world without objects": ("world: {objects: []}", "world.objects", "[]", "at least one name"),
    "object twice": ("world: {objects: [Cats, Cats]}", "world.objects", "'Cats'", "each entry once"),
    "style with a separator": (
        "world: {styles: [Seed_Images, ../Monet]}",
        "world.styles",
        "'../Monet'",
        "letters, digits",
    ),
    "style with a blank": ("world: {styles: [Seed_Images, Van Gogh]}", "world.styles", "'Van Gogh'", "letters, digits"),
    "object that is a path": ("world: {objects: [/etc]}", "world.objects", "'/etc'", "letters, digits"),
    "hidden object": ("world: {objects: [.git]}", "world.objects", "'.git'", "letters, digits"),
    "anchor equal to its forget style": (
        "anchoring: {one_to_one: {Van_Gogh: Van_Gogh}}",
        "anchoring.one_to_one.Van_Gogh",
        "'Van_Gogh'",
        "other than the forget style itself",
    ),
    "base equal to the forget style": (
        "anchoring: {base: Van_Gogh}",
        "anchoring.base",
        "'Van_Gogh'",
        "a style that is not in tasks.Forget01.forget",
    ),
    "base that is no style": ("anchoring: {base: Manet}", "anchoring.base", "'Manet'", "a style of the world"),
    "anchor that is no style": (
        "anchoring: {one_to_one: {Van_Gogh: Manet}}",
        "anchoring.one_to_one.Van_Gogh",
        "'Manet'",
        "a style of the world",
    ),
    "anchor that is no text": ("anchoring: {one_to_one: {Van_Gogh: 3}}", "anchoring.one_to_one.Van_Gogh", "3", "text"),
    "style without an anchor": (
        "anchoring: {one_to_one: {Van_Gogh: Monet}}",
        "anchoring.one_to_one",
        "Van_Gogh",
        "an anchor for Abstractionism",
    ),
    "anchor of two styles": (
        "anchoring: {one_to_one: {Abstractionism: Monet, Byzantine: Rust, Cartoon: Joy, Cold_Warm: Rust,"
        " Ukiyoe: Winter, Van_Gogh: French}}\ntables: {table1: {tasks: [Forget06], rows: [core]}, table4: null}",
        "anchoring.one_to_one",
        "'Rust'",
        "distinct anchors",
    ),
    "images of the empty prompt": (
        "anchoring: {base: ''}",
        "anchoring.base",
        "''",
        "a style: the method trains on its images",
    ),
    "batch that has no half": (
        "training: {batch_counts: both}\nmethods: {core: {batch: 5}}",
        "methods.core.batch",
        "5",
        "an even number",
    ),
    "batch of one in halves": (
        "training: {batch_counts: both}\nmethods: {salun: {batch: 1}}",
        "methods.salun.batch",
        "1",
        "an even number",
    ),
    "table of an unknown task": (
        "tables: {table1: {tasks: [Forget02]}}",
        "tables.table1.tasks",
        "'Forget02'",
        "a task: Forget01, Forget06",
    ),
    "table of an unknown method": (
        "tables: {table1: {rows: [core, salum]}}",
        "tables.table1.rows",
        "'salum'",
        "a method: salun, original, core",
    ),
    "row of an unknown method": (
        "tables: {table1: {rows: [{name: a, method: salum}]}}",
        "tables.table1.rows",
        "'salum'",
        "a method: salun, original, core",
    ),
    "original with anchors": (
        "tables: {table1: {rows: [{name: a, method: original, anchors: one_to_one}]}}",
        "tables.table1.rows",
        "'one_to_one'",
        "no anchors for the original model",
    ),
    "two methods of one title in a table": (
        "methods: {far: {like: core, title: CORE (ours)}}\ntables: {table1: {rows: [original, core, far]}}",
        "methods.far.title",
        "'CORE (ours)'",
        "another title for the row far of tables.table1.rows: the row core has the same",
    ),
    "one method twice without titles": (
        "tables: {table1: {rows: [core, {name: far, method: core, anchors: one_to_all}]}}",
        "tables.table1.rows.1.title",
        "'CORE (ours)'",
        "another title for the row far of tables.table1.rows: the row core has the same",
    ),
    "titles that differ in space and case": (
        "tables: {table1: {rows: [core, {name: far, method: esd, title: ' core  (OURS)'}]}}",
        "tables.table1.rows.1.title",
        "' core (OURS)'",  # on one line, as in all errors
        "another title for the row far of tables.table1.rows: the row core has the same",
    ),
    "titles that only look alike": (
        "tables: {table1: {rows: [{name: a, method: core, title: Café}, {name: b, method: esd, title: Cafe\u0301}]}}",
        "tables.table1.rows.1.title",
        "Cafe",
        "another title for the row b of tables.table1.rows: the row a has the same",
    ),
    "title of the original model": (
        "methods: {far: {like: core, title: original}}\ntables: {table1: {rows: [far, original]}}",
        "methods.far.title",
        "'original'",
        "another title for the row far of tables.table1.rows: the row original has the same",
    ),
    "title without a character": (
        "tables: {table1: {rows: [{name: a, method: core, title: ' '}]}}",
        "tables.table1.rows.0.title",
        "' '",
        "a title for the row a of tables.table1.rows",
    ),
    "two columns of one title": (
        "figures: {figure2: {columns: [core, {name: far, method: core, anchors: one_to_all}]}}",
        "figures.figure2.columns.1.title",
        "'CORE (ours)'",
        "another title for the row far of figures.figure2.columns: the row core has the same",
    ),
    "column twice": (
        "figures: {figure2: {columns: [esd, esd]}}",
        "figures.figure2.columns",
        "'esd'",
        "each entry once",
    ),
    "row twice": ("tables: {table1: {rows: [core, core]}}", "tables.table1.rows", "'core'", "each entry once"),
    "task twice": (
        "tables: {table1: {tasks: [Forget01, Forget01]}}",
        "tables.table1.tasks",
        "'Forget01'",
        "each entry once",
    ),
    "table without rows": ("tables: {table1: {rows: []}}", "tables.table1.rows", "[]", "at least 1"),
    "row that is a path": (
        "tables: {table1: {rows: [{name: ../a, method: core}]}}",
        "tables.table1.rows",
        "'../a'",
        "letters, digits",
    ),
    "unpublished table": (
        "tables: {table1: {published: tabel1}}",
        "tables.table1.published",
        "'tabel1'",
        "table1, table2, table3, table4",
    ),
    "method without anchors": (
        "methods: {core: {anchors: {Forget01: null}}}",
        "methods.core.anchors",
        "Forget06",
        "an entry for Forget01, which tables.table1.rows needs, or for `default`",
    ),
    "length for an unknown task": (
        "methods: {core: {length: {Forget02: {steps: 1}}}}",
        "methods.core.length",
        "'Forget02'",
        "a task: Forget01",
    ),
    "anchors for an unknown task": (
        "methods: {core: {anchors: {Forget02: one_to_one}}}",
        "methods.core.anchors",
        "'Forget02'",
        "a task: Forget01",
    ),
    "figure of an unknown task": (
        "figures: {figure2: {task: Forget02}}",
        "figures.figure2.task",
        "'Forget02'",
        "a task: Forget01",
    ),
    "figure of an unknown method": (
        "figures: {figure2: {columns: [salum]}}",
        "figures.figure2.columns",
        "'salum'",
        "a method: salun, original",
    ),
    "figure of an unsampled seed": (
        "figures: {figure2: {seed: 1}}",
        "figures.figure2.seed",
        "1",
        "one of the seeds of Forget25: [188]",
    ),
    "figure of an unsampled style": (
        "figures: {figure2: {task: Forget01, prompts: [[Rust, Cats]]}}",
        "figures.figure2.prompts",
        "'Rust'",
        "a style that Forget01 evaluates",
    ),
    "figure of an unsampled object": (
        "figures: {figure2: {task: Forget01, prompts: [[Monet, Trees]]}}",
        "figures.figure2.prompts",
        "'Trees'",
        "an object that Forget01 evaluates",
    ),
    "prompt of one word": (
        "figures: {figure2: {prompts: [[Monet]]}}",
        "figures.figure2.prompts",
        "['Monet']",
        "pairs such as [Abstractionism, Architectures]",
    ),
    "removed table that is not there": ("tables: {tabel2: null}", "tables.tabel2", "null", "`table2`"),
    "removed method that is not there": ("methods: {saluun: null}", "methods.saluun", "null", "`salun`"),
    "removed length that is not there": (
        "methods: {core: {length: {Forget02: null}}}",
        "methods.core.length.Forget02",
        "null",
        "`Forget25`",
    ),
    "resolution that eights do not divide": (
        "sampling: {resolution: 500}",
        "sampling.resolution",
        "500",
        "a multiple of 8",
    ),
    "encoding that eights do not divide": (
        "encoding: {resolution: 100}",
        "encoding.resolution",
        "100",
        "a multiple of 8",
    ),
    "style that cannot be drawn": (
        "base: tiny\nworld: {styles: [Amber_Zigzags, Seed_Images]}",
        "world.styles",
        "'Amber_Zigzags'",
        "a style that can be drawn: Amber_",
    ),
    "object that cannot be drawn": (
        "base: tiny\nworld: {objects: [Unicorns]}",
        "world.objects",
        "'Unicorns'",
        "an object that can be drawn: Arrows",
    ),
    "miniature of two resolutions": (
        "base: tiny\nsampling: {resolution: 64}",
        "sampling.resolution",
        "64",
        "the miniature's world.resolution",
    ),
    "miniature that cannot be halved": (
        "base: tiny\nworld: {resolution: 30, autoencoder: {channels: [16, 24, 32]}}\n"
        "encoding: {resolution: 30}\nsampling: {resolution: 30}",
        "encoding.resolution",
        "30",
        "a multiple of 4",
    ),
    "miniature without levels": (
        "base: tiny\nworld: {denoiser: {channels: []}}",
        "world.denoiser.channels",
        "[]",
        "at least one level",
    ),
    "heads that do not fit": (
        "base: tiny\nworld: {text_encoder: {width: 64, heads: 5}}",
        "world.text_encoder.heads",
        "5",
        "a divisor of world.text_encoder.width (64)",
    ),
    "heads that do not fit the levels": (
        "base: tiny\nworld: {denoiser: {channels: [32, 64], attention_head_width: 24}}",
        "world.denoiser.attention_head_width",
        "24",
        "world.denoiser.channels ([32, 64])",
    ),
    "everything held out": (
        "base: tiny\nworld: {images_per_cell: 10, classifier: {held_out_per_cell: 10}}",
        "world.classifier.held_out_per_cell",
        "10",
        "fewer than world.images_per_cell (10)",
    ),
}


@pytest.mark.parametrize(
    ("overlay", "key", "value", "expectation"),
    [*REFUSED.values(), *INCONSISTENCIES.values()],
    ids=[*REFUSED, *INCONSISTENCIES],
)
def test_the_error_for_a_bad_leaf_names_file_key_value_and_expectation(error_for, overlay, key, value, expectation):
    found, _, expected = error_for(overlay).partition(", expected ")
    assert found.startswith((f": {key} is ", f": {key} has entries for "))
    assert value in found.removeprefix(f": {key} ")
    assert expectation in expected


NAMES = ["../x", "a/b", ".hidden", "a b", "", "..", "a.b", "c:\\d", "-x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("section", "like"), [("tasks", "Forget01"), ("methods", "core"), ("tables", "table1"), ("figures", "figure2")]
)
def test_a_name_that_becomes_part_of_a_path_has_no_separators(section, like, name):
    content = shipped()
    content[section][name] = content[section][like]
    with pytest.raises(ConfigurationError) as caught:
        load_as_paper(content)
    assert f": {section}.{name} is {name!r}, expected a name" in sentence(caught.value, CONFIGURATION / "config.yaml")


def test_the_error_for_a_method_without_a_length_for_a_task_of_its_table_names_both(error_for, folder):
    text = error_for("tables: {table3: {tasks: [Forget25]}}")
    assert text == (
        ": methods.core_live_target.length has entries for Forget06, expected an entry for Forget25, which "
        f"tables.table3.rows needs, or for `default` (set in {folder / 'config.yaml'})."
    )


def test_a_study_with_many_faults_is_read_once_to_load_it_and_once_to_explain_them(
    error_for: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    plainly = overlays.read_yaml
    monkeypatch.setattr(overlays, "read_yaml", lambda file: read.append(file) or plainly(file))
    error_for("methods: {core: {" + ", ".join(f"learning_rate{number}: 1" for number in range(20)) + "}}")
    assert max(read.count(file) for file in read) == 2


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("methods: {salun: null}", "tables.table1.rows is 'salun', expected a method: original, core,"),
        ("tasks: {Forget25: {evaluation: {objects: [Cats]}}}", "figures.figure2.prompts is 'Dogs', expected an object"),
        (
            "tasks: {Forget06: {retain: [Seed_Images]}}",
            "methods.ediff.anchors.Forget06 is 'one_to_all', expected a scheme that needs no retain style, such as "
            "all_to_one with anchoring.base: Seed_Images, since D_r of Forget06 contains only the photos",
        ),
        (
            "tasks: {Forget01: {retain: [Seed_Images]}}\nanchoring: {base: Seed_Images}",
            "methods.core.anchors.Forget01 is 'one_to_one', expected a scheme that needs no retain style, such as ",
        ),
        (
            "tasks: {Forget01: {retain: evaluated, photos_in_retain: true, evaluation: {retain: [Seed_Images]}}}",
            "anchoring.base is 'first_retain', expected a style such as Seed_Images, since D_r of Forget01 ",
        ),
        (
            "base: tiny\nworld: {pretrained: true}",
            "world.styles has 7 entries, expected the 51, with which the shipped world",
        ),
    ],
)
def test_the_error_for_a_key_that_another_file_sets_names_both_files(overlay, message, error_for, folder):
    text = error_for(overlay)
    assert text.startswith(f": {message}")
    assert re.search(rf"\(set in {re.escape(str(folder))}/(config|studies/tiny)\.yaml\)", text)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("methods: {croe: {batch: 2}}", "methods.croe LACKSor `core` instead of `croe`, or `like: core` REST"),
        ("methods: {mine: {batch: 2}}", "methods.mine LACKSor `like: METHOD` REST"),
        (
            "tasks: {Forget7: {forget: [Monet]}}",
            "tasks.Forget7.evaluation ISor `Forget25` instead of `Forget7`, or `like: Forget25` REST",
        ),
    ],
)
def test_an_overlay_of_an_unknown_entry_is_refused_with_a_suggestion(overlay, message, error_for):
    leaves = "title, objective, saliency, trained, learning_rate, length, anchors"
    message = (
        message.replace("IS", "is missing, expected a value, ")
        .replace("LACKS", f"lacks {leaves}, expected a value for each, ")
        .replace("REST", "to take the other leaves from there")
    )
    assert error_for(overlay) == f": {message}."


def test_the_error_for_an_entry_that_the_base_removed_names_the_file_of_the_base(error_for, folder):
    assert error_for("base: tiny\nmethods: {salun: {batch: 2}}") == (
        ": methods.salun lacks title, objective, saliency, trained, learning_rate, length, anchors, expected a value "
        f"for each; {folder / 'studies/tiny.yaml'} removes methods.salun, "
        "so that it must be specified in full."
    )


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("gate: false", "gate is false, expected 'stop' or 'warn' or null"),
        ("gate: [true, ~, {a: .inf}]", "gate is [true, null, {a: .inf}], expected 'stop' or 'warn' or null"),
        ("methods: {salun: {saliency: 3}}", "methods.salun.saliency is 3, expected a section of keys or null"),
        ("fid: {mode: benchmark}", "world.assets.inception_torchvision is null, expected the file of torchvision's"),
    ],
)
def test_values_are_shown_as_yaml_spells_them(overlay, message, load):
    with pytest.raises(ConfigurationError, match=re.escape(f".yaml: {message}")):
        load(overlay)


def test_no_method_may_have_the_name_of_the_original_model():
    content = shipped()
    content["methods"]["original"] = content["methods"]["core"]
    with pytest.raises(ConfigurationError) as caught:
        load_as_paper(content)
    assert ": methods is 'original', expected another name" in sentence(caught.value, CONFIGURATION / "config.yaml")


def test_the_error_names_the_file_that_set_the_key_last(load, error_for, folder):
    (folder / "studies" / "middle.yaml").write_text("sampling: {batch: 0}\n")
    text = error_for("base: middle")
    assert text.startswith(": sampling.batch is 0") and text.endswith(f" (set in {folder / 'studies/middle.yaml'}).")
    assert error_for("base: middle\nsampling: {batch: -1}").startswith(": sampling.batch is -1")
    assert load("base: middle\nsampling: {batch: 1}").sampling.batch == 1


def test_the_error_for_a_missing_leaf_names_the_file_that_began_its_section(error_for):
    assert error_for("tasks: {Forget07: {forget: [Monet]}}").startswith(
        ": tasks.Forget07.evaluation is missing, expected"
    )
    assert error_for("world: {kind: miniature}").startswith(": world lacks pretrained, styles, objects, ")
    switched_twice = "base: tiny\nworld: {kind: unlearn_canvas, styles: [], objects: [], images_per_cell: 1}"
    assert error_for(switched_twice).startswith(": world.assets is missing, expected")


# Refused: files


UNREADABLE = {
    "duplicate key": (
        "training: {seed: 1}\nfid: {batch: 1}\ntraining: {seed: 2}\n",
        ", line 3",
        "the key `training` is written twice, expected once",
    ),
    "duplicate key deep down": (
        "methods:\n  core:\n    batch: 1\n    batch: 2\n",
        ", line 4",
        "the key `batch` is written twice",
    ),
    "number for a key": ("tasks:\n  1: {}\n", ", line 2", "the key `1` is not text; put it in quotes"),
    "yes for a key": ("yes: 1\n", ", line 1", "YAML readers disagree about what `yes` means, expected `true` or"),
    "null for a key": ("~: 1\n", ", line 1", "the key `~` is not text; put it in quotes"),
    "list for a key": ("[a]: 1\n", ", line 1", "the key is not text; put it in quotes"),
    "tab": (
        "training:\n\tseed: 1\n",
        ", line 2",
        "not readable as YAML: while scanning for the next token, found character",
    ),
    "open bracket": ("training: [1\n", ", line 2", "not readable as YAML: while parsing a flow sequence"),
    "two documents": ("a: 1\n---\nb: 2\n", ", line 2", "expected a single document"),
    "YAML 1.1": ("%YAML 1.1\n---\na: 1\n", ", line 2", "the file declares YAML 1.1, expected YAML 1.2"),
    "unknown alias": ("training: *x\n", ", line 1", "the alias `*x` refers to no earlier anchor"),
    "anchor twice": ("a: &x 1\nb: &x 2\n", ", line 2", "the anchor `&x` is written twice, expected once"),
    "section within itself": ("training: &x {seed: *x}\n", ", line 1", "`*x` is within the value to which it refers"),
    "list within itself": ("training: &x [*x]\n", ", line 1", "`*x` is within the value to which it refers"),
    "unknown tag": ("training: !python/name:os.system {}\n", ", line 1", "the tag `!python/name:os.system`, expected"),
    "known tag": ("a:\n- !!binary aGk=\n", ", line 2", "the tag `!!binary`, expected the value without a tag"),
    "merged number": ("fid:\n  <<: 3\n", ", line 2", "the value of `<<` is not a section, expected one or a list"),
    "merged numbers": ("fid:\n  <<: [3]\n", ", line 2", "the value of `<<` is not a section, expected one or a"),
    "two merges": (
        "a: &a {batch: 1}\nb: &b {batch: 2}\nfid:\n  <<: *a\n  <<: *b\n",
        ", line 5",
        "the key `<<` is written twice, expected once; merge several sections by a list",
    ),
    "month thirteen": ("training: {seed: 2024-13-01}\n", ", line 1", "`2024-13-01` means, expected quotes around it"),
    "number of 5000 digits": (
        "fid: {batch: " + "9" * 5000 + "}\n",
        ", line 1",
        "a number of 5,000 characters, expected",
    ),
    "number without end": ("fid: {batch: 1e400}\n", ", line 1", "the number 1e400 is too large for floating point"),
    "number next to nothing": ("fid: {batch: 2e-400}\n", ", line 1", "the number 2e-400 is too small for floating"),
    "tagged as what it is not": ("training: {seed: !!bool maybe}\n", ", line 1", "the tag `!!bool`, expected"),
    "nesting without end": ("[" * 5000, ", line 1", "sections and lists are nested more than 100 deep"),
    "control character": ("a: 1\r\nb: \x00\n", ", line 2", "not readable as YAML: unacceptable character U+0000"),
    "line break of YAML 1.1": (
        "a: 1\nb: 2\u2028c: 3\n",
        ", line 2",
        "whether U+2028 ends a line, expected a line break",
    ),
    "no character": ('a: "\\U00110000"\n', "", "not readable as YAML: the parser failed"),
    "Latin-1": ("# caf\xe9\n".encode("latin-1"), "", "not readable as YAML: 'utf-8' codec"),
    "list at top level": ("- methods\n- tasks\n", "", "the whole file is ['methods', 'tasks'], expected sections"),
    "text at top level": ("hello\n", "", "the whole file is 'hello', expected sections"),
    "number at top level": ("3\n", "", "the whole file is 3, expected sections"),
}


@pytest.mark.parametrize(("overlay", "line", "problem"), UNREADABLE.values(), ids=UNREADABLE)
def test_the_error_for_an_unreadable_file_names_the_line(error_for, overlay, line, problem):
    text = error_for(overlay)
    assert text.startswith(f"{line}: ")
    assert problem in text


def test_a_file_of_a_study_with_the_ending_yml_is_named(folder):
    (folder / "studies" / "trial.yml").write_text("base: tiny\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study("trial", folder)
    assert str(caught.value) == (
        f"{folder / 'studies/trial.yml'}: the file of a study ends in .yaml, expected the name trial.yaml; rename it."
    )


def test_a_study_that_is_a_folder_is_not_readable(folder):
    (folder / "studies" / "trial.yaml").mkdir()
    with pytest.raises(ConfigurationError) as caught:
        load_study("trial", folder)
    assert "not readable" in sentence(caught.value, folder / "studies" / "trial.yaml")


@pytest.mark.parametrize("name", ["nope", "../config", "sub/tiny", "/etc/passwd", "", "no.yaml", "Titan"])
def test_the_error_for_an_unknown_study_lists_the_known_ones(name):
    with pytest.raises(ConfigurationError) as caught:
        load_study(name, CONFIGURATION)
    known = ", ".join(study_names(CONFIGURATION))
    assert f": there is no such study, expected one of {known}." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Tiny", "tiny"),
        ("MINI-SEEDS", "mini-seeds"),
        ("results/Mini/table1.csv", "mini"),
        ("tiny.yml", "tiny"),
        ("tiny.yaml", "tiny"),
        ("config/studies/mini-released.yaml", "mini-released"),
        ("results/mini/table1.csv", "mini"),
        ("results/mini/", "mini"),
        ("results/table1.csv", "paper"),
        ("config/config.yaml", "paper"),
    ],
)
def test_the_error_for_a_file_or_target_in_place_of_a_study_suggests_the_study(name, meant):
    with pytest.raises(ConfigurationError) as caught:
        load_study(name, CONFIGURATION)
    assert str(caught.value) == f"{CONFIGURATION}/studies: no study is called {name!r}, expected `{meant}`."


@pytest.mark.parametrize(("name", "meant"), [("mini-sedes", "mini-seeds"), ("Minni", "mini"), ("tinyy", "tiny")])
def test_the_error_for_a_misspelt_study_names_the_nearest_one_first(name, meant, error_for):
    with pytest.raises(ConfigurationError, match=f"there is no such study, expected `{meant}`, or else one of paper, "):
        load_study(name, CONFIGURATION)
    assert error_for(f"base: {name}").startswith(f": base is {name!r}, expected `{meant}`, or else one of paper, ")


def test_a_preset_in_place_of_a_study_is_named(folder):
    with pytest.raises(ConfigurationError, match="expected a study on it: own is a preset, which is no study but may"):
        load_study("own", folder)


@pytest.mark.parametrize("place", ["config", "config/studies/more", "here", "here/config", "here/studies"])
@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_the_file_of_a_study_in_another_folder_is_named(place, ending, folder, tmp_path, monkeypatch, error_for):
    (tmp_path / place).mkdir(exist_ok=True, parents=True)
    (tmp_path / "here").mkdir(exist_ok=True)
    (tmp_path / place / f"elsewhere.{ending}").write_text("base: mini\n")
    monkeypatch.chdir(tmp_path / "here")
    named = (tmp_path / place).relative_to(tmp_path / "here") if "here" in place else tmp_path / place
    moved = f"but {named / f'elsewhere.{ending}'} exists, expected it to be {folder / 'studies/elsewhere.yaml'}; move"
    for name in ("elsewhere", "config/elsewhere.yaml", "results/elsewhere/table1.csv"):
        with pytest.raises(ConfigurationError) as caught:
            load_study(name, folder)
        file = folder / "studies/elsewhere.yaml"
        assert str(caught.value) == f"{file}: there is no such study, {moved} it there."
    assert error_for("base: elsewhere") == f": base is 'elsewhere', {moved} it there."


def test_the_file_of_a_study_that_is_given_by_its_path_is_named(folder, tmp_path):
    file = tmp_path / "far/away/elsewhere.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("base: mini\n")
    with pytest.raises(ConfigurationError, match=re.escape(f"there is no such study, but {file} exists, expected it")):
        load_study(str(file), folder)
    with pytest.raises(ConfigurationError, match="there is no such study"):
        load_study("x" * 300, folder)


@pytest.mark.parametrize("name", ["assets", "claims"])
def test_a_file_of_the_configuration_that_is_no_study_is_not_to_be_moved(name):
    with pytest.raises(ConfigurationError, match="there is no such study, expected one of paper, "):
        load_study(name, CONFIGURATION)


@pytest.mark.parametrize("name", ["a.b", "my study"])
def test_a_study_with_an_invalid_name_is_refused_with_the_reason(name, folder):
    (folder / f"studies/{name}.yaml").write_text("base: tiny\n")
    with pytest.raises(ConfigurationError, match="there is no such study, expected a name of letters, digits, `_` and"):
        load_study(name, folder)


@pytest.mark.parametrize("name", ["nope", "../config", "../x", "tiny.yaml"])
def test_the_error_for_an_unknown_base_lists_the_known_studies(error_for, name):
    assert error_for(f"base: {name}").startswith(f": base is {name!r}, expected one of paper, ")


@pytest.mark.parametrize(("written", "shown"), [("3", "3"), ("null", "null"), ("[tiny]", "['tiny']"), ("{}", "{}")])
def test_a_base_must_be_a_name(error_for, written, shown):
    assert error_for(f"base: {written}") == f": base is {shown}, expected the name of a study."


def test_a_study_built_on_itself_is_refused(error_for):
    expected = ": base is 'trial', expected a study that is not built on this one."
    assert error_for("base: trial") == expected


def test_a_circle_of_bases_is_refused_in_the_file_that_closes_it(error_for, folder):
    (folder / "studies" / "first.yaml").write_text("base: second\n")
    (folder / "studies" / "second.yaml").write_text("base: trial\n")
    expected = ": base is 'trial', expected a study that is not built on this one."
    assert error_for("base: first", "studies/second.yaml") == expected


def test_the_paper_has_no_base(folder):
    (folder / "config.yaml").write_text("base: tiny\n" + (folder / "config.yaml").read_text())
    with pytest.raises(ConfigurationError) as caught:
        load_study("paper", folder)
    assert sentence(caught.value, folder / "config.yaml").startswith(": base is not a known key")


def test_an_empty_paper_lacks_all_sections(folder):
    (folder / "config.yaml").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        load_study("paper", folder)
    text = sentence(caught.value, folder / "config.yaml")
    assert text.startswith(": the study lacks world, prompts, tasks, ") and text.endswith(
        ", expected a value for each."
    )


def test_missing_published_numbers_are_refused(folder):
    (folder / "published.csv").unlink()
    with pytest.raises(ConfigurationError) as caught:
        load_study("paper", folder)
    assert ": not readable" in sentence(caught.value, folder / "published.csv")


@pytest.mark.parametrize("template", ["{object.name} {style}", "{object} {style[first]}"])
def test_a_template_with_attributes_or_items_of_its_fields_is_refused(error_for, template):
    assert error_for(f"prompts: {{template: '{template}'}}").startswith(f": prompts.template is '{template}', expected")


# Any leaf, any value


VALUES = [
    None, True, 0, -1, 3, 0.5, math.nan, math.inf, "", "x", [], [[None]], {}, {"x": 1},
    {"kind": "gaussian_noise"}, datetime.date(2024, 1, 1),
]  # fmt: skip
DELETED = object()


def shipped() -> dict[str, Any]:
    return overlays.read_study_file(CONFIGURATION / "config.yaml")


def load_as_paper(content: dict[str, Any]) -> Study:
    """The paper's study as if `config.yaml` held `content`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (overlays, loading):
            patch.setattr(module, "read_study_file", lambda file, text=None: content)
        return load_study("paper", CONFIGURATION)


def places(here: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every section and leaf, and the last entry of each list."""
    below = here.items() if isinstance(here, dict) else list(enumerate(here))[-1:] if isinstance(here, list) else ()
    for name, value in below:
        yield (*above, name)
        yield from places(value, (*above, name))


CONTENT = shipped()


@pytest.mark.parametrize("section", list(CONTENT))
def test_any_leaf_with_any_value_or_none_loads_or_is_refused_in_one_line(section):
    refusals = []
    for place in places({section: CONTENT[section]}):
        for value in [*VALUES, DELETED]:
            try:
                load_as_paper(with_leaf(place, value))
            except ConfigurationError as error:  # no other exception is allowed
                refusals.append(error)
    texts = [sentence(error, CONFIGURATION / "config.yaml") for error in refusals]
    assert len(texts) >= len(VALUES)
    assert all(text.startswith(": ") for text in texts)


def with_leaf(place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The paper's content with another value at a place, or without this place."""
    content = copy.deepcopy(CONTENT)
    here: Any = content
    for name in place[:-1]:
        here = here[name]
    if value is DELETED:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return content


WITH_DEFAULTS = {
    "tasks": {("retain",), ("photos_in_retain",), ("objects",), ("evaluation", "objects")},
    "tables": {("published",)},
    "figures": {("seed",), ("pixels",)},
}
"""The leaves of an entry that a study may omit."""


def test_the_paper_states_every_leaf_that_has_a_default():
    for section, leaves in WITH_DEFAULTS.items():
        for entry in CONTENT[section].values():
            for *path, leaf in leaves:
                assert leaf in (entry[path[0]] if path else entry), (section, leaf)


def is_optional(place: tuple[str | int, ...]) -> bool:
    """Whether the study may omit a place: an entry that the study names, or a leaf or entry that has a default."""
    if place[2:] in WITH_DEFAULTS.get(str(place[0]), ()):
        return True
    return (len(place) == 2 and place[0] in ("tasks", "methods", "baselines", "tables", "figures")) or (
        place[0] in ("methods", "baselines") and len(place) > 3 and place[2] in ("length", "anchors")
    )


@pytest.mark.parametrize("section", list(CONTENT))
def test_the_paper_relies_on_no_default(section):
    leaves = [place for place in places({section: CONTENT[section]}) if all(isinstance(name, str) for name in place)]
    for place in leaves:
        if not is_optional(place):
            with pytest.raises(ConfigurationError) as caught:
                load_as_paper(with_leaf(place, DELETED))
            text = sentence(caught.value, CONFIGURATION / "config.yaml")
            assert text.startswith(f": {'.'.join(map(str, place))} is missing, expected "), place

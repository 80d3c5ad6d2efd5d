"""Probes of a study: their runs and conditions, what they share with tables, and mistakes in their section."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY
from support.contract import OWN

from corelib.costs.workload import NETWORKS, workload_of
from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.settings.probe_report import ProbeStage
from corelib.settings.probes import InversionStage, PrefixStage, RelearningStage, ResampledStage
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.probes import misspelt
from corelib.study.row_names import models_of_row
from corelib.study.targets import files_of, targets_of

MINIATURE = NETWORKS["miniature"]

WORDING = "wordings: {shorter: {template: '{style} {object}.'}}"
PROBES = f"""
probes:
  probe_wording: {{kind: wording, tasks: [Forget01, Forget06], rows: [original, core], {WORDING}}}
  probe_partial:
    {{kind: partial_diffusion, tasks: [Forget06], rows: [original, core], levels: [0.25, 0.5], images: [1, 2]}}
  probe_relearning:
    kind: relearning
    tasks: [Forget06]
    rows: [original, {{method: core, seeds: [0, 1]}}]
    images: [1, 22]
    steps: [5, 50]
    trained: all
    learning_rate: 1.0e-3
    batch: 4
  probe_inversion:
    kind: inversion
    tasks: [Forget06]
    rows: [original, core]
    objects: [Frames, Circles, Arrows]
    seeds: [188]
    images: 3
    steps: [100]
    learning_rate: 1.0e-2
    batch: 2
    start: name
  probe_prefix:
    kind: prefix
    tasks: [Forget06]
    rows: [original, core]
    tokens: 2
    images: 3
    steps: [100]
    learning_rate: 0.1
    batch: 2
  probe_neighbours: {{kind: neighbours, tasks: [Forget01, Forget06], rows: [original, core]}}
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("pipeline", "*.pth")
    return Path(shutil.copytree(REPOSITORY / "config", tmp_path / "config", ignore=ignored))


def plan(configuration: Path, text: str = PROBES) -> Plan:
    (configuration / "studies/probed.yaml").write_text(f"base: mini-from-scratch\n{text}\n")
    return load_plan("probed", configuration)


def report(plan: Plan, name: str) -> ProbeStage:
    settings = plan.products()[name].settings
    assert isinstance(settings, ProbeStage)
    return settings


def images_behind(plan: Plan, probe: str, role: str) -> Run:
    return plan.products()[probe].inputs[role].inputs["samples"]


def test_a_study_without_probes_has_none_among_its_products(configuration: Path) -> None:
    assert not [name for name in plan(configuration, "").products() if name.startswith("probe")]


def test_probes_change_no_other_product_but_the_report(configuration: Path) -> None:
    without, others = plan(configuration, "").products(), plan(configuration).products()
    assert {name for name, run in others.items() if name not in without or run.name != without[name].name} == {
        *(name for name in others if name.startswith("probe")),
        "report",
    }


def test_every_probe_has_a_target_and_its_files(configuration: Path) -> None:
    targets = [
        target for target in targets_of("probed", plan(configuration).study) if Path(target).name.startswith("probe")
    ]
    assert len(targets) == 6
    assert [path.name for path in files_of(Path(targets[0]))] == [
        f"probe_wording.{kind}" for kind in ("csv", "md", "pdf", "png", "provenance.csv")
    ]


def test_the_usual_images_of_a_probe_are_those_of_tables(configuration: Path) -> None:
    found = plan(configuration)
    table = {run.name for run in found.table("table1").with_all_inputs().values()}
    for name in found.study.probes:
        for role, run in found.products()[name].inputs.items():
            if role.endswith(("/usual", "/forgotten")) and "/1/" not in role:  # the tables have no seed 1
                assert run.name in table, role


def test_other_wordings_change_the_prompts_of_forget_styles_alone(configuration: Path) -> None:
    found = plan(configuration)
    samples = images_behind(found, "probe_wording", "Forget06/core/0/shorter")
    assert isinstance(samples.settings, SamplesStage)
    styles = {style for style, _, _ in samples.settings.grid}
    assert styles == set(found.study.tasks["Forget06"].forget)
    assert samples.settings.wording.prompt("Sky_Waves", "Stars") == "Sky Waves Stars."
    prompts = samples.inputs["embeddings"].settings.model_dump()["prompts"]
    assert all(
        samples.settings.wording.prompt(style, object_) in prompts for style, object_, _ in samples.settings.grid
    )
    assert samples.inputs["delta"].name == found.unlearning("Forget06", "core", None, 0).name
    assert "delta" not in images_behind(found, "probe_wording", "Forget06/original/shorter").inputs


def test_words_and_misspellings_replace_the_names_of_styles(configuration: Path) -> None:
    other = "wordings: {other: {names: {Sky_Waves: waves of sky}, misspelt: true}}"
    found = plan(configuration, PROBES.replace(WORDING, other))
    wording = images_behind(found, "probe_wording", "Forget06/core/0/other").settings.model_dump()["wording"]
    assert wording["names"]["Sky_Waves"] == "wave of sky"
    assert wording["names"]["Amber_Checks"] == "Ambe Check"
    assert wording["template"] == found.study.prompts.template


@pytest.mark.parametrize(
    ("text", "expected"), [("Van Gogh", "Van Gog"), ("Amber Checks", "Ambe Check"), ("a red one", "a red one")]
)
def test_a_misspelt_word_lacks_its_last_letter(text: str, expected: str) -> None:
    assert misspelt(text) == expected


def test_images_are_restored_from_images_of_their_own_style_and_object(configuration: Path) -> None:
    settings = images_behind(plan(configuration), "probe_partial", "Forget06/core/0/from 25 % of the steps").settings
    assert isinstance(settings, ResampledStage) and settings.level == 0.25
    pairs = list(zip(settings.samples.grid, settings.sources, strict=True))
    assert all(image[:2] == source[:2] and source[2] in (1, 2) for image, source in pairs)


def test_relearning_starts_from_the_model_of_the_row_on_the_first_images_of_each_style(configuration: Path) -> None:
    found = plan(configuration)
    relearned = images_behind(found, "probe_relearning", "Forget06/core/1/22 images, 50 steps").inputs["delta"]
    assert isinstance(relearned.settings, RelearningStage)
    assert relearned.inputs["delta"].name == found.unlearning("Forget06", "core", None, 1).name
    assert relearned.settings.seed == 1 and relearned.settings.steps == 50
    images = [image for image in relearned.settings.images if image[0] == "Sky_Waves"]
    assert len(relearned.settings.images) == 6 * 22 and len({object_ for _, object_, _ in images}) == 20
    assert [index for _, _, index in images] == [1] * 20 + [2] * 2


def test_a_learned_word_takes_the_place_of_the_embeddings_and_reads_the_unlearned_model(configuration: Path) -> None:
    found = plan(configuration)
    samples = images_behind(found, "probe_inversion", "Forget06/core/0/100 steps")
    learned = samples.inputs["embeddings"]
    assert isinstance(learned.settings, InversionStage)
    assert learned.inputs["delta"].name == samples.inputs["delta"].name
    prefixed = images_behind(found, "probe_prefix", "Forget06/core/0/100 steps").inputs["embeddings"]
    assert isinstance(prefixed.settings, PrefixStage) and prefixed.settings.tokens == 2
    assert isinstance(samples.settings, SamplesStage)
    assert {image[:2] for image in samples.settings.grid} == set(learned.settings.concepts)


def test_objects_and_seeds_limit_the_images_that_are_counted(configuration: Path) -> None:
    found = report(plan(configuration), "probe_inversion")
    assert found.objects == {"Forget06": ["Arrows", "Circles", "Frames"]}
    assert found.seeds == {"Forget06": [188]}


def test_neighbours_are_grouped_by_the_words_that_they_share(configuration: Path) -> None:
    found = report(plan(configuration), "probe_neighbours")
    assert found.styles["Forget01"] == {
        "forgotten": ["Sky_Waves"],
        "shares 2 words": [],
        "shares 1 word": ["Cobalt_Waves", "Rose_Waves"],
        "shares 0 words": ["Crimson_Checks", "Olive_Stripes", "Teal_Stripes"],
    }
    assert found.styles["Forget06"]["shares 2 words"] == ["Cobalt_Waves"]


def test_styles_that_are_said_to_look_alike_have_a_group_of_their_own(configuration: Path) -> None:
    text = PROBES.replace("kind: neighbours,", "kind: neighbours, alike: {Sky_Waves: [Teal_Stripes, Rose_Waves]},")
    styles = report(plan(configuration, text), "probe_neighbours").styles["Forget01"]
    assert styles["alike"] == ["Rose_Waves", "Teal_Stripes"] and styles["shares 1 word"] == ["Cobalt_Waves"]


def test_a_row_of_a_probe_names_its_models(configuration: Path) -> None:
    plan(configuration)
    models = models_of_row(["results/probed/probe_relearning.csv", "Forget06", "core"], configuration)
    assert [model.label.rpartition(" ")[2] for model in models] == ["0", "1"]


def test_the_plan_prices_every_attempt(configuration: Path) -> None:
    found = plan(configuration)
    relearned = images_behind(found, "probe_relearning", "Forget06/core/0/1 image, 50 steps").inputs["delta"]
    assert workload_of(relearned, MINIATURE).train_passes == 200
    learned = images_behind(found, "probe_inversion", "Forget06/core/0/100 steps").inputs["embeddings"]
    assert workload_of(learned, MINIATURE).train_passes == 6 * 100 * 2
    half, quarter = (
        images_behind(found, "probe_partial", f"Forget06/core/0/from {level} % of the steps") for level in (50, 25)
    )
    work = workload_of(half, MINIATURE)
    assert work.forward_passes == 2 * workload_of(quarter, MINIATURE).forward_passes > 0
    judged = found.products()["probe_partial"].inputs["Forget06/core/0/from 50 % of the steps"]
    assert workload_of(judged, MINIATURE).classifications == 2 * work.images


def test_a_world_without_objects_starts_from_the_images_of_its_concepts(configuration: Path) -> None:
    probes = {
        "probe_partial": {
            "kind": "partial_diffusion",
            "tasks": ["NoCat"],
            "rows": ["original", "core"],
            "levels": [0.5],
            "images": [1],
        }
    }
    (configuration / "studies/pets.yaml").write_text(json.dumps(json.loads(OWN) | {"probes": probes}))
    found = load_plan("pets", configuration)
    settings = images_behind(found, "probe_partial", "NoCat/core/0/from 50 % of the steps").settings
    assert isinstance(settings, ResampledStage)
    assert settings.samples.grid == [("cat", "prompt1", 0)] and settings.sources == [("cat", "image", 1)]


def test_without_a_judge_there_is_nothing_to_probe(configuration: Path) -> None:
    own = json.loads(OWN) | {"probes": {"probe_n": {"kind": "neighbours", "tasks": ["NoCat"], "rows": ["core"]}}}
    own["world"]["assets"].pop("clip")
    (configuration / "studies/pets.yaml").write_text(json.dumps(own))
    with pytest.raises(ConfigurationError, match=r"probes\.probe_n is 'neighbours', expected none, since no judge"):
        load_plan("pets", configuration)


MISTAKES = [
    (PROBES.replace("probe_wording:", "wordings:"), "probes", "a name such as `probe_wording`"),
    (PROBES.replace("[Forget01, Forget06]", "[Forget1]", 1), "probes.probe_wording.tasks", "a task"),
    (PROBES.replace("rows: [original, core]", "rows: [cor]", 1), "probes.probe_wording.rows", "a method"),
    (
        PROBES.replace("[Frames,", "[Hearts,"),
        "probes.probe_inversion.objects",
        "one of the objects that Forget06 evaluates",
    ),
    (PROBES.replace("seeds: [188]", "seeds: [1]"), "probes.probe_inversion.seeds", "one of the seeds that Forget06"),
    (PROBES.replace("0.5]", "1.5]"), "probes.probe_partial.levels", "shares of the sampling steps"),
    (
        PROBES.replace("images: [1, 2]", "images: [1, 4]"),
        "probes.probe_partial.images",
        "indices among training.images",
    ),
    (PROBES.replace("[1, 22]", "[1, 61]"), "probes.probe_relearning.images", "at most 60"),
    (PROBES.replace("[5, 50]", "[5, 5]"), "probes.probe_relearning.steps", "each entry once"),
    (PROBES.replace("images: 3", "images: 61"), "probes.probe_inversion.images", "at most 60"),
    (
        PROBES.replace(WORDING, "wordings: {usual: {misspelt: true}}"),
        "probes.probe_wording.wordings",
        "other than `usual`",
    ),
    (PROBES.replace(WORDING, "wordings: {same: {}}"), "probes.probe_wording.wordings.same", "a template, names"),
    (PROBES.replace(WORDING, "wordings: {x: {template: '{x}'}}"), "wordings.x.template", "a text that may have"),
    (PROBES.replace(WORDING, "wordings: {x: {names: {Sky: x}}}"), "wordings.x.names", "a style"),
    (PROBES.replace("start: name", "start: object"), "probes.probe_inversion", "start"),
    (PROBES.replace("trained: all", "trained: some"), "probes.probe_relearning", "trained"),
    (PROBES.replace("1.0e-3", "15.0"), "probes.probe_relearning.learning_rate", "a number from 0 to"),
    (PROBES.replace("kind: neighbours,", "kind: neighbours, alike: {Sky_Waves: [Sea]},"), "alike.Sky_Waves", "a style"),
]


@pytest.mark.parametrize(("text", "key", "expected"), MISTAKES)
def test_a_mistake_in_a_probe_is_refused_with_one_sentence(
    text: str, key: str, expected: str, configuration: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(configuration, text)
    sentence = str(caught.value)
    assert key in sentence and expected in sentence and "\n" not in sentence, sentence

"""Studies of the user's own images: what they plan, and one message for all that is missing or contradictory."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan
from corelib.study.row_names import models_of_row
from corelib.study.targets import targets_of

PAGE = REPOSITORY / "docs/your-own.md"

Content = dict[str, Any]
Load = Callable[[Content], Plan]


def study_of_page() -> Content:
    """The study that docs/your-own.md begins with."""
    (text,) = re.findall(r"```yaml\n# config/studies/pets.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(text.splitlines()) <= 15
    content: Content = yaml.safe_load(text)
    return content


@pytest.fixture
def load(tmp_path: Path) -> Load:
    ignored = shutil.ignore_patterns("pipeline", "*.pth")
    folder = Path(shutil.copytree(REPOSITORY / "config", tmp_path / "config", ignore=ignored))

    def load(content: Content) -> Plan:
        (folder / "studies/pets.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_plan("pets", folder)

    return load


def with_leaf(key: str, value: object) -> Content:
    """The page's study with another value at a key."""
    content = study_of_page()
    *path, leaf = key.split(".")
    section = content
    for name in path:
        section = section.setdefault(name, {})
    section[leaf] = value
    return content


def runs_of(plan: Plan) -> dict[str, Run]:
    return {name: run for product in plan.products().values() for name, run in product.with_all_inputs().items()}


def stages_of(plan: Plan) -> set[str]:
    return {run.stage for run in runs_of(plan).values()}


def test_the_study_of_the_page_has_a_table_with_everything_behind_it(load: Load) -> None:
    plan = load(study_of_page())
    assert targets_of("pets", plan.study)[0] == "results/pets/table1.csv"
    assert not {"fid", "reference", "gate", "gates", "claims", "images", "pretrained"} & stages_of(plan)
    assert {"assets", "slices", "latents", "unlearning", "samples", "predictions", "cells", "tables"} <= stages_of(plan)
    grid = plan.grid_of("NoCat")
    assert len(grid) == 3 * 2 * 5 and grid[0] == ("cat", "prompt1", 0)
    wording = plan.study.prompts.in_evaluation
    assert wording.prompt("dog", "prompt2") == "a dog in the snow"
    assert wording.prompt("dog", "image") == "a photo of a dog"
    samples = plan.samples("NoCat", "core", None).settings
    assert isinstance(samples, SamplesStage) and samples.grid == grid
    assert plan.slice("NoCat").settings.model_dump()["images"] == list(range(1, 11))
    assert plan.candidates(plan.study.tasks["NoCat"], "one_to_one") == {"cat": ["dog"]}


def test_the_classes_of_the_preset_with_the_models_of_the_miniature_are_those_of_its_classifier(load: Load) -> None:
    (text,) = re.findall(r"```yaml\n# config/studies/styles.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    plan = load(yaml.safe_load(text))
    facts = json.loads((REPOSITORY / "config/pretrained/world.json").read_text())["facts"]["classifiers"]["style"]
    classifier = plan.world.classifier("style")
    assert classifier is not None
    settings = classifier.settings.model_dump()["classifiers"]["style"]
    assert {key: settings[key] for key in ("classes", "architecture", "resolution")} == {
        key: facts[key] for key in ("classes", "architecture", "resolution")
    }


def test_every_prompt_that_is_sampled_or_trained_on_is_embedded(load: Load) -> None:
    content = study_of_page()
    content["tables"]["table1"]["rows"].append("ca_released")  # generates images of its anchors
    plan = load(content)
    embedded = plan.embeddings("evaluation").settings.model_dump()["prompts"]
    for run in runs_of(plan).values():
        if isinstance(run.settings, SamplesStage):
            wording = run.settings.wording
            assert {wording.prompt(style, object_) for style, object_, _ in run.settings.grid} <= set(embedded)


def test_the_judge_and_sfid_follow_from_the_assets(load: Load) -> None:
    alone = study_of_page()
    del alone["world"]["assets"]["clip"]
    alone["world"]["assets"]["inception"] = "assets/inception-2015-12-05.pt"
    plan = load(alone)
    assert {"fid", "reference"} <= stages_of(plan)
    assert plan.predictions("NoCat", "core", None).inputs.keys() == {"samples"}
    parts = {f"pipeline/{part}" for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    assert set(plan.asset_world.assets()[0].sha256) == {"images", "inception", *parts}
    trained = with_leaf("world.assets.style_classifier", "mine.pth")
    del trained["world"]["assets"]["clip"]
    trained["world"]["classes"] = {"concept": ["horse", "cow", "cat", "dog"]}
    classifier = load(trained).world.classifier("style")
    assert classifier is not None
    assert classifier.settings.model_dump()["classifiers"]["style"]["classes"] == ["horse", "cow", "cat", "dog"]


def test_clip_judges_by_the_words_of_the_study(load: Load) -> None:
    content = with_leaf("prompts.names", {"cat": "tabby cat"})
    content["world"] |= {"classes": {"concept": ["cat", "dog", "horse", "grey_wolf"]}}
    content["world"] |= {"zero_shot": {"concept": "a {concept}"}}
    classifier = load(content).world.classifier("style")
    assert classifier is not None
    spec = classifier.settings.model_dump()["classifiers"]["style"]
    assert spec["prompts"] == ["a tabby cat", "a dog", "a horse", "a grey wolf"]


def test_concepts_with_objects_have_the_metrics_of_the_paper(load: Load) -> None:
    content = with_leaf("world.objects", ["house", "tree"])
    content["prompts"] = {"template": "a {object} in the style of {concept}"}
    plan = load(content)
    assert len(plan.grid_of("NoCat")) == 3 * 2 * 5
    assert plan.predictions("NoCat", "core", None).inputs.keys() == {"samples", "style_classifier", "object_classifier"}
    assert plan.study.prompts.in_training.prompt("cat", "tree") == "a tree in the style of cat"


def test_lists_of_prompts_may_differ_between_concepts(load: Load) -> None:
    lists = {"cat": ["a cat", "a kitten"], "dog": ["a dog", "a puppy"], "horse": ["a horse", "a foal"]}
    plan = load(with_leaf("prompts.evaluation", lists))
    assert plan.study.prompts.in_evaluation.prompt("horse", "prompt2") == "a foal"
    assert len(plan.grid_of("NoCat")) == 3 * 2 * 5


def test_addresses_depend_on_content_not_on_paths(load: Load) -> None:
    plans = [load(study_of_page()), load(with_leaf("world.assets.images", "elsewhere/photos"))]
    first, second = (plan.unlearning("NoCat", "core", None).digest for plan in plans)
    assert first == second  # neither is locked


NO_FIELD = "prompts.template is 'a photo of a {concept}', expected a text with the field {object}"

CONTRADICTIONS = [
    ("world.concepts", ["cat", "dog", "dog"], "world.concepts is 'dog', expected each entry once"),
    ("world.concepts", ["cat", "a b"], "world.concepts is 'a b', expected names of letters"),
    ("world.assets.images", "~/photos", "world.assets.images is '~/photos', expected the full path"),
    ("world.assets.style_classifier", "x.pth", "world.assets.style_classifier is 'x.pth', expected null, since"),
    ("world.classes", {"concept": ["cat", "dog"]}, "expected horse among them"),
    ("world.objects", ["house"], NO_FIELD),
    ("world.zero_shot", {"concept": "a photo"}, "expected texts with the field {concept} and no others"),
    ("prompts.template", "a {object}", "expected a text with the fields {object} and {style}"),
    ("prompts.evaluation", ["a cat"], "prompts.evaluation is 'a cat', expected a text with the field {concept}"),
    ("prompts.evaluation", {"cat": ["a"], "dog": ["b"]}, "expected a list of prompts for horse as well"),
    ("prompts.evaluation", {"cat": ["a"], "dog": ["b", "c"], "horse": ["d"]}, "expected as many prompts for each"),
    ("prompts.evaluation", ["{colour} {concept}"], "expected texts that may have the field {concept}"),
    ("tasks.NoCat.forget", ["cow"], "tasks.NoCat.forget is 'cow', expected a concept of the world: cat, dog, horse"),
    ("tasks.NoCat.evaluation.objects", ["cat"], "expected a prompt of prompts.evaluation: prompt1, prompt2"),
    ("training.images", [11], "training.images is 11, expected indices up to world.images_per_cell (10)"),
    ("tables.table1.published", "table1", "expected null, since the paper has no numbers for these images"),
    ("gate", "stop", "gate is 'stop', expected null"),
]


@pytest.mark.parametrize(("key", "value", "message"), CONTRADICTIONS)
def test_contradictions_are_errors_that_name_the_study(key: str, value: object, message: str, load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(with_leaf(key, value))
    text = str(caught.value)
    assert message in text, text
    assert "config/studies/pets.yaml: " in text and "config.yaml" not in text and "presets" not in text


def test_everything_that_is_missing_is_said_at_once(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"base": "own", "tasks": {"NoCat": {"forget": ["cat"]}}, "tables": {"table1": {"tasks": ["NoCat"]}}})
    for missing in (
        "world.concepts is missing",
        "world.assets lacks images, pipeline",
        "tasks.NoCat.evaluation is missing",
        "tables.table1.rows is missing",
    ):
        assert missing in str(caught.value), missing
    content = study_of_page()
    content["tasks"]["NoDog"] = {"forget": ["dgo"], "evaluation": {"retain": ["cat"], "seeds": [0]}}
    content["tasks"]["NoCat"]["forget"] = ["cta"]
    with pytest.raises(ConfigurationError) as caught:
        load(content)
    assert "'dgo'" in str(caught.value) and "'cta'" in str(caught.value)


def test_a_row_is_a_name_for_runs_also_without_sfid(load: Load, tmp_path: Path) -> None:
    load(study_of_page())
    (model,) = models_of_row(["results/pets/table1.csv", "NoCat", "core"], tmp_path / "config")
    assert model.runs.keys() == {"unlearning", "samples", "predictions", "cells"}


def test_a_table_without_numbers_is_refused_and_a_figure_is_not(load: Load) -> None:
    content = study_of_page()
    del content["world"]["assets"]["clip"]
    with pytest.raises(ConfigurationError, match=r"tables is .*, expected none: without a judge .* has no numbers"):
        load(content)
    del content["tables"]
    (text,) = re.findall(r"```yaml\n(figures:\n.*?)```", PAGE.read_text(), re.DOTALL)
    plan = load(content | yaml.safe_load(text))
    assert targets_of("pets", plan.study)[0] == "results/pets/figure1.png"
    assert not {"predictions", "cells", "fid"} & {
        run.stage for run in plan.figure("figure1").with_all_inputs().values()
    }


def test_the_same_keys_on_another_base_are_explained(load: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"world.concepts belongs to a study with `base: own`"):
        load(study_of_page() | {"base": "mini"})


def test_a_preset_is_a_base_but_no_study() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no such study, expected a study on it: own is a preset"):
        load_study("own", REPOSITORY / "config")

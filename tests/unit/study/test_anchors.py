"""Alternative concepts: properties of the schemes of Table 4, for all sizes of the forget and retain sets."""

from __future__ import annotations

import shutil
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.settings.prompts import EMPTY_CONCEPT
from corelib.study.anchors import anchor_candidates
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.study.shipped_world import load_shipped
from corelib.unlearning.noise_predictions import required_predictions

SCHEMES = ["one_to_one", "all_to_one", "five_to_one", "one_to_all", "one_to_five"]
CONFIGURATION = REPOSITORY / "config"

sizes = st.integers(min_value=1, max_value=60)
groups = st.integers(min_value=1, max_value=8)


def forget_styles(count: int) -> list[str]:
    return [f"forgotten{number}" for number in range(count)]


def retain_styles(count: int) -> list[str]:
    return [f"kept{number}" for number in range(count)]


def candidates_of(
    scheme: str, forget: int, retain: int, base: str = "first_retain", group: int = 5
) -> dict[str, list[str]]:
    return anchor_candidates(scheme, forget_styles(forget), retain_styles(retain), base, group, "in_order")


@settings(deadline=None)
@given(forget=sizes, retain=sizes)
def test_one_to_one_pairs_the_forget_styles_in_order_with_distinct_retain_styles_if_there_are_enough(forget, retain):
    found = candidates_of("one_to_one", min(forget, retain), max(forget, retain))
    anchors = [anchor for styles in found.values() for anchor in styles]
    assert list(found) == forget_styles(min(forget, retain))
    assert anchors == retain_styles(max(forget, retain))[: len(found)]
    assert len(set(anchors)) == len(found)


@settings(deadline=None)
@given(retain=sizes, more=sizes)
def test_one_to_one_is_a_derangement_of_the_forget_styles_if_there_are_too_few_retain_styles(retain, more):
    forget = retain + more
    found = candidates_of("one_to_one", forget, retain)
    assert all(len(styles) == 1 for styles in found.values())
    anchors = [styles[0] for styles in found.values()]
    assert sorted(anchors) == sorted(forget_styles(forget)) == sorted(found)
    assert all(anchor != style for style, anchor in zip(found, anchors, strict=True))


@settings(deadline=None)
@given(forget=sizes, retain=sizes, base=st.sampled_from(["first_retain", "Some_Style", EMPTY_CONCEPT]))
def test_all_to_one_gives_every_forget_style_the_same_single_base(forget, retain, base):
    expected = retain_styles(retain)[0] if base == "first_retain" else base
    assert candidates_of("all_to_one", forget, retain, base) == {style: [expected] for style in forget_styles(forget)}


@settings(deadline=None)
@given(forget=sizes, retain=sizes, group=groups)
def test_each_group_of_consecutive_forget_styles_shares_the_retain_style_with_the_number_of_the_group(
    forget, retain, group
):
    found = candidates_of("five_to_one", forget, retain, group=group)
    styles = forget_styles(forget)
    for number, start in enumerate(range(0, forget, group)):
        expected = [retain_styles(retain)[number % retain]]
        assert [found[style] for style in styles[start : start + group]] == [expected] * len(
            styles[start : start + group]
        )
    assert len({found[style][0] for style in styles}) == min(-(-forget // group), retain)


@settings(deadline=None)
@given(forget=sizes, retain=sizes)
def test_one_to_all_gives_every_forget_style_every_retain_style(forget, retain):
    assert candidates_of("one_to_all", forget, retain) == {
        style: retain_styles(retain) for style in forget_styles(forget)
    }


@settings(deadline=None)
@given(forget=sizes, retain=sizes, group=groups)
def test_one_to_five_gives_the_next_five_distinct_retain_styles_in_cyclic_order(forget, retain, group):
    found = candidates_of("one_to_five", forget, retain, group=group)
    names = retain_styles(retain)
    for number, style in enumerate(forget_styles(forget)):
        assert len(found[style]) == len(set(found[style])) == min(group, retain)
        places = [names.index(anchor) for anchor in found[style]]
        assert places[0] == number % retain
        assert all(after == (before + 1) % retain for before, after in pairwise(places))


@settings(deadline=None)
@given(scheme=st.sampled_from(SCHEMES), forget=sizes, retain=sizes, group=groups)
def test_every_scheme_gives_every_forget_style_an_anchor_other_than_itself(scheme, forget, retain, group):
    found = candidates_of(scheme, forget, retain, group=group)
    assert list(found) == forget_styles(forget)
    assert all(anchors and style not in anchors for style, anchors in found.items())


@settings(deadline=None)
@given(pairs=st.permutations(retain_styles(6)))
def test_an_explicit_mapping_is_used_unchanged(pairs):
    mapping = dict(zip(forget_styles(6), pairs, strict=True))
    found = anchor_candidates("one_to_one", forget_styles(6), retain_styles(2), "first_retain", 5, mapping)
    assert found == {style: [anchor] for style, anchor in mapping.items()}


@pytest.mark.parametrize(
    ("scheme", "forget", "retain", "base", "pairs"),
    [
        ("all_to_one", ["Monet"], ["Rust"], "Monet", "in_order"),
        ("one_to_one", ["Monet"], ["Rust"], "first_retain", {"Monet": "Monet"}),
        ("one_to_one", ["Monet"], [], "first_retain", "in_order"),
        ("one_to_all", ["Monet"], [], "first_retain", "in_order"),
        ("one_to_five", ["Monet"], ["Monet"], "first_retain", "in_order"),
        ("two_to_one", ["Monet"], ["Rust"], "first_retain", "in_order"),
    ],
)
def test_a_style_that_would_be_its_own_anchor_or_have_none_is_refused(scheme, forget, retain, base, pairs):
    with pytest.raises(ConfigurationError, match=r"^anchors: "):
        anchor_candidates(scheme, forget, retain, base, 5, pairs)


@pytest.mark.parametrize("photos_in_retain", [False, True])
@pytest.mark.parametrize("retain", ["rest", "evaluated"])
def test_the_photos_are_never_an_anchor_even_if_they_are_retained(retain, photos_in_retain):
    study = load_study("paper", CONFIGURATION)
    plan = Plan("paper", study, load_published(CONFIGURATION))
    for task in study.tasks.values():
        varied = task.model_copy(update={"retain": retain, "photos_in_retain": photos_in_retain})
        assert ("Seed_Images" in study.retain_set(varied)) == photos_in_retain
        for scheme in SCHEMES:
            found = plan.candidates(varied, scheme)
            assert list(found) == varied.forget
            assert "Seed_Images" not in {anchor for anchors in found.values() for anchor in anchors}


PHOTOS_ALONE = """
tasks: {Forget01: {retain: [Seed_Images]}, Forget06: {retain: [Seed_Images]}}
anchoring: {base: Seed_Images}
methods:
  core: {anchors: {Forget01: all_to_one}}
  salun: {anchors: {Forget06: all_to_one}}
tables:
  table1: {tasks: [Forget01, Forget06], rows: [original, salun, core]}
  table2: null
  table3: null
  table4: null
figures: {figure2: null, figure3: null}
"""


def test_the_photos_alone_may_be_retained_and_be_the_common_base(tmp_path):
    """As in the benchmark's SalUn and EDiff: retained and forgotten images get the photos' caption."""
    shutil.copytree(CONFIGURATION, tmp_path / "config", ignore=shutil.ignore_patterns("pretrained"))
    (tmp_path / "config/studies/photos.yaml").write_text(PHOTOS_ALONE)
    study = load_study("photos", tmp_path / "config")
    plan = Plan("photos", study, load_published(CONFIGURATION))
    for task in ("Forget01", "Forget06"):
        assert plan.slice(task).settings.retain == ["Seed_Images"]
        settings = plan.unlearning(task, "salun", None).settings
        assert settings.candidates == {style: ["Seed_Images"] for style in study.tasks[task].forget}
        assert settings.wording.prompt("Seed_Images", "Cats") == "A Cats image in Photo style."
    assert plan.candidates(study.tasks["Forget06"], "one_to_one")["Van_Gogh"] == ["Abstractionism"], "a cyclic shift"
    assert plan.slice("Forget25").settings.retain != ["Seed_Images"]


@pytest.mark.parametrize("name", ["random-alternatives", "mini-random-alternatives"])
def test_the_table_of_random_alternatives_in_appendix_c_has_every_baseline_with_both_schemes(name):
    study = load_study(name, CONFIGURATION)
    plan = Plan(name, study, load_published(CONFIGURATION), load_shipped(CONFIGURATION))
    rows = study.rows_of(study.tables["table_random"].rows)
    baselines = {row.method for row in study.rows_of(load_study("paper", CONFIGURATION).tables["table1"].rows)}
    schemes = {}
    for row in rows:
        schemes.setdefault(row.method, set()).add(row.anchors)
    assert schemes.keys() == baselines | {"ediff_released"}
    for method in baselines - {"original", "core", "ediff"} | {"ediff_released"}:
        assert schemes[method] == {None, "one_to_all"}
        pairs = plan.unlearning("Forget25", method, None).settings.candidates
        assert len({anchor for anchors in pairs.values() for anchor in anchors}) == len(pairs) == 25
        drawn = plan.unlearning("Forget25", method, "one_to_all").settings
        (candidates_of_all,) = {tuple(found) for found in drawn.candidates.values()}
        assert len(candidates_of_all) == 25 and drawn.draw == "pair"


def test_equation_10_has_no_alternative_concept():
    """Its row therefore appears once in the table of random alternatives."""
    objective = load_study("paper", CONFIGURATION).methods["ediff"].objective
    assert not objective.unlearn.shows_anchor
    assert all(prediction.prompt == "own" for prediction in required_predictions(objective))


def test_forget25_has_the_five_schemes_that_table_4_compares():
    study = load_study("paper", CONFIGURATION)
    plan, task = Plan("paper", study, load_published(CONFIGURATION)), study.tasks["Forget25"]
    distinct = {
        scheme: len({anchor for anchors in plan.candidates(task, scheme).values() for anchor in anchors})
        for scheme in SCHEMES
    }
    assert distinct == {"one_to_one": 25, "all_to_one": 1, "five_to_one": 5, "one_to_all": 25, "one_to_five": 25}
    assert plan.candidates(task, "one_to_five")["Liquid_Dreams"] == [
        "Winter", "Magic_Cube", "Meta_Physics", "Meteor_Shower", "Monet",
    ]  # fmt: skip

"""Products: the registry, the rules, the plan and the targets of a study agree about their names and files."""

from __future__ import annotations

import re

import pytest
from support.checkout import REPOSITORY

from corelib.runs.stage_registry import PRODUCTS, STAGES
from corelib.study.loading import load_plan
from corelib.study.study_files import study_names
from corelib.study.targets import files_of, product_names, targets_of

CONFIGURATION = REPOSITORY / "config"
RULES = "".join(path.read_text() for path in sorted((REPOSITORY / "rules").glob("*.smk")))


@pytest.mark.parametrize("stage", PRODUCTS)
def test_a_rule_writes_the_files_that_the_registry_declares(stage: str) -> None:
    product = PRODUCTS[stage]
    rule = RULES.split(f"\nrule {STAGES[stage].rule}:\n")[1].split("\n\n\nrule ")[0]
    written = re.findall(r'"\{place\}/\{product\}\.([\w.]+)"', rule.partition("    params:")[0])
    assert sorted(written) == sorted({*product.endings, "json"})
    assert f'product=r"{product.names}"' in rule or f'product="{product.names}"' in rule


@pytest.mark.parametrize("study", study_names(CONFIGURATION))
def test_the_targets_of_a_study_are_the_products_of_its_plan(study: str) -> None:
    plan = load_plan(study, CONFIGURATION)
    assert sorted(product_names(plan.study)) == sorted(plan.products())
    assert all(run.slug == f"{study}-{name}" for name, run in plan.products().items()), "`clean` names them by this"
    for target, (name, run) in zip(sorted(targets_of(study, plan.study)), sorted(plan.products().items()), strict=True):
        assert target.rpartition("/")[2] == f"{name}.{PRODUCTS[run.stage].endings[0]}"


def test_the_files_of_a_product_begin_with_its_target() -> None:
    path = REPOSITORY / "results/mini/charts2.losses.pdf"
    assert files_of(path)[0].name == "charts2.tradeoff.png"
    assert path in files_of(path)

"""docs/dag.svg shows the current graph of Snakemake's rules."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from support.checkout import REPOSITORY, Checkout

TARGETS = ["results/mini/table1.csv", "results/mini/figure2.png"]


def test_the_picture_of_the_workflow_shows_its_rules_and_their_dependencies(tmp_path: Path) -> None:
    done = Checkout.at(tmp_path / "clone").snakemake(*TARGETS, "--rulegraph")
    rules = dict(re.findall(r'(\d+)\[label = "(\w+)"', done.stdout))
    edges = {(rules[above], rules[below]) for above, below in re.findall(r"(\d+) -> (\d+)", done.stdout)}
    assert len(edges) > 20, done.stdout[-3000:]

    picture = unescape((REPOSITORY / "docs/dag.svg").read_text(encoding="utf-8"))
    drawn = dict(re.findall(r"<title>(\d+)</title>.*?<text[^>]*>(\w+)</text>", picture, re.DOTALL))
    assert set(drawn.values()) == set(rules.values())
    arrows = re.findall(r"<title>(\d+)->(\d+)</title>", picture)
    assert {(drawn[above], drawn[below]) for above, below in arrows} == edges

"""docs/stages.md: a stage that is added as the page describes is planned, built, and known to the commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout

PAGE = REPOSITORY / "docs/stages.md"
HEADING = re.compile(r"^`([\w/.]+)` \((new|append|replace)\):$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(page: str, clone: Checkout) -> None:
    """Write, append and replace code as the page describes."""
    file, action, replaced = "", "", None
    for match in HEADING.finditer(page):
        path, what, code = match.groups()
        if path:
            file, action, replaced = path, what, None
        elif action == "new":
            (clone.folder / file).write_text(code)
        elif action == "append":
            with (clone.folder / file).open("a") as stream:
                stream.write(code)
        elif replaced is None:
            replaced = code.rstrip("\n")
        else:
            clone.edit(file, replaced, code.rstrip("\n"))
            replaced = None


@pytest.mark.slow
def test_a_stage_added_as_the_page_describes_is_built_and_known_to_the_commands(workplace: Checkout) -> None:
    follow(PAGE.read_text(), workplace)
    assert workplace.planned("results/tiny/table1.csv") == {}
    planned = workplace.planned("results/tiny/figure2.png")
    assert planned.pop("draw") == 1 and set(planned) == {"measure_brightness"}
    done = workplace.snakemake("--cores", "2", "results/tiny/figure2.png")
    assert done.returncode == 0, done.stdout
    made = sorted((workplace.folder / "runs/brightness").glob("*/manifest.json"))
    assert len(made) == planned["measure_brightness"]
    assert all(0 < json.loads(path.read_text())["facts"]["mean"] < 255 for path in made)
    assert workplace.python("-m", "corelib", "verify").returncode == 0
    shutil.rmtree(made[0].parent)
    (workplace.folder / "results/tiny/figure2.png").unlink()
    output = workplace.python("-m", "corelib", "why", "results/tiny/figure2.png").stdout
    assert "brightness" in output and "figures" in output


def test_the_edits_of_the_page_fit_the_files(tmp_path: Path) -> None:
    clone = Checkout.at(tmp_path / "clone")
    follow(PAGE.read_text(), clone)
    code = (
        "from pathlib import Path\n"
        "from corelib.runs.stage_registry import STAGES\n"
        "from corelib.study.loading import load_plan\n"
        "figure = load_plan('tiny', Path('config')).products()['figure2']\n"
        "runs = figure.with_all_inputs().values()\n"
        "print(*{STAGES[run.stage].rule for run in runs if run.stage == 'brightness'})\n"
    )
    assert clone.python("-c", code).stdout == "measure_brightness\n"

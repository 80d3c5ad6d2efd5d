"""The terminal shows the end of the log of a failed job, also if another workflow uses this one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkout import Checkout
from test_as_module import other_workflow

from corelib.workflow.failed_logs import MAX_LINES

TABLE = "results/tiny/table1.csv"
FAILS = """\
    logging.getLogger("corelib").info("many lines\\n" * 60)
    raise ValueError("a bug")
"""


@pytest.mark.parametrize("used", ["by itself", "as a module"])
def test_the_end_of_a_failed_jobs_log_is_shown(used: str, tmp_path: Path) -> None:
    core = Checkout.at(tmp_path / "core")
    head = "def render_world(settings: RenderingStage, context: StageContext) -> StageResult:\n"
    core.edit("corelib/worlds/miniature/images.py", head, f"{head}    import logging\n{FAILS}")
    workflow = core if used == "by itself" else other_workflow(tmp_path / "outer", core, TABLE)
    targets = [TABLE] if used == "by itself" else []
    done = workflow.snakemake("--cores", "1", *targets, "--until", "render_images")
    assert done.returncode == 1
    shown = done.stdout.split(f"The last {MAX_LINES} of ")
    assert len(shown) == 2 and "    ValueError: a bug\n" in shown[1]
    assert 0 < shown[1].count("many lines") < MAX_LINES

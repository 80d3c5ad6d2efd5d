"""The provenance of the numbers of a table: a line for each job that contributed to one."""

from __future__ import annotations

from collections.abc import Sequence

from corelib.reports.jobs_behind import jobs_csv
from corelib.reports.table_lines import TableLine


def provenance_csv(lines: Sequence[TableLine]) -> str:
    """Every job that contributed to a number of a training seed as CSV: its run, commit, device, host and time."""
    return jobs_csv(
        ("task", "row", "metric", "seed"),
        (
            ((line.row.task, line.row.row, metric, "" if numbers.seed is None else numbers.seed), behind)
            for line in lines
            for metric in line.metrics
            for numbers in line.seeds
            for behind in [numbers.jobs_behind(metric)]
        ),
    )

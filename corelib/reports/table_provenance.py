"""The provenance of the numbers of a table: a line for each job that contributed to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from corelib.files.csv_files import as_csv
from corelib.reports.table_lines import TableLine

COLUMNS = ("task", "row", "metric", "stage", "run", "commit", "device", "host", "finished")


def provenance_csv(lines: Sequence[TableLine]) -> str:
    """Every job that contributed to a number as CSV: its run, commit, device, host and time."""
    return as_csv(
        [
            COLUMNS,
            *(
                [line.row.task, line.row.row, metric, *astuple(origin)]
                for line in lines
                for metric in line.metrics
                for origin in dict.fromkeys(job for numbers in line.seeds for job in numbers.jobs_behind(metric))
            ),
        ]
    )

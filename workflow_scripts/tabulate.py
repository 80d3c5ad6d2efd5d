from corelib.reports.tables import tabulate
from corelib.runs.job import run_job
from corelib.settings.reports import TableStage

run_job(snakemake, tabulate, TableStage)  # noqa: F821

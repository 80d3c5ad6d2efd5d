from corelib.jobs import run_job
from corelib.settings.reporting import TableStage
from corelib.tables import tabulate

run_job(snakemake, tabulate, TableStage)  # noqa: F821

from corelib.reports.charts import draw_charts
from corelib.runs.job import run_job
from corelib.settings.reports import ChartsStage

run_job(snakemake, draw_charts, ChartsStage)  # noqa: F821

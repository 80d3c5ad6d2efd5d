from corelib.reports.figures import draw_figure
from corelib.runs.job import run_job
from corelib.settings.reports import FigureStage

run_job(snakemake, draw_figure, FigureStage)  # noqa: F821

from corelib.figures import draw_figure
from corelib.jobs import run_job
from corelib.settings.reporting import FigureStage

run_job(snakemake, draw_figure, FigureStage)  # noqa: F821

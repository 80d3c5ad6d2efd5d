from corelib.evaluation.metrics import count_cells
from corelib.runs.job import run_job
from corelib.settings.evaluation import CellsStage

run_job(snakemake, count_cells, CellsStage)  # noqa: F821

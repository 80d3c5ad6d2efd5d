from corelib.jobs import run_job
from corelib.metrics import count_cells
from corelib.settings.evaluation import CellsStage

run_job(snakemake, count_cells, CellsStage)  # noqa: F821

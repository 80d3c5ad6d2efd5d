from corelib.evaluation.fid import measure_fid
from corelib.runs.job import run_job
from corelib.settings.evaluation import FIDStage

run_job(snakemake, measure_fid, FIDStage)  # noqa: F821

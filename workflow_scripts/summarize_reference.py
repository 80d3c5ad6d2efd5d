from corelib.evaluation.fid import summarize_reference
from corelib.runs.job import run_job
from corelib.settings.evaluation import ReferenceStage

run_job(snakemake, summarize_reference, ReferenceStage)  # noqa: F821

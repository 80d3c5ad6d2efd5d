from corelib.probes.relearning import relearn
from corelib.runs.job import run_job
from corelib.settings.probes import RelearningStage

run_job(snakemake, relearn, RelearningStage)  # noqa: F821

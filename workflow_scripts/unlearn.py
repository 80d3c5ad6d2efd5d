from corelib.runs.job import run_job
from corelib.settings.unlearning import UnlearningStage
from corelib.unlearning.trainer import unlearn

run_job(snakemake, unlearn, UnlearningStage)  # noqa: F821

from corelib.jobs import run_job
from corelib.settings.unlearning import UnlearningStage
from corelib.unlearning import unlearn

run_job(snakemake, unlearn, UnlearningStage)  # noqa: F821

from corelib.runs.job import run_job
from corelib.settings.unlearning import SaliencyStage
from corelib.unlearning.saliency import find_salient_weights

run_job(snakemake, find_salient_weights, SaliencyStage)  # noqa: F821

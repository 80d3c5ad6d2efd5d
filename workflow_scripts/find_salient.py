from corelib.jobs import run_job
from corelib.saliency import find_salient_weights
from corelib.settings.unlearning import SaliencyStage

run_job(snakemake, find_salient_weights, SaliencyStage)  # noqa: F821

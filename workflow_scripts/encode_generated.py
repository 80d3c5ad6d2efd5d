from corelib.runs.job import run_job
from corelib.settings.data import LatentsStage
from corelib.unlearning.generated_images import cache_generated_latents

run_job(snakemake, cache_generated_latents, LatentsStage)  # noqa: F821

from corelib.data.latents import encode_images
from corelib.runs.job import run_job
from corelib.settings.data import LatentsStage

run_job(snakemake, encode_images, LatentsStage)  # noqa: F821

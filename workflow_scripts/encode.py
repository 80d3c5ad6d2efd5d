from corelib.jobs import run_job
from corelib.latents import encode_images
from corelib.settings.slicing import LatentsStage

run_job(snakemake, encode_images, LatentsStage)  # noqa: F821

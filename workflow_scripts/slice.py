from corelib.data.slices import slice_images
from corelib.runs.job import run_job
from corelib.settings.data import SliceStage

run_job(snakemake, slice_images, SliceStage)  # noqa: F821

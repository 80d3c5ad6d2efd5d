from corelib.jobs import run_job
from corelib.settings.slicing import SliceStage
from corelib.slices import slice_images

run_job(snakemake, slice_images, SliceStage)  # noqa: F821

from corelib.probes.resampling import resample
from corelib.runs.job import run_job
from corelib.settings.probes import ResampledStage

run_job(snakemake, resample, ResampledStage)  # noqa: F821

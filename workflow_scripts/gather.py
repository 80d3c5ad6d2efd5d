from corelib.runs.job import run_job
from corelib.sampling.collection import gather_samples
from corelib.settings.sampling import SamplesStage

run_job(snakemake, gather_samples, SamplesStage)  # noqa: F821

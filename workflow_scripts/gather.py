from corelib.gathering import gather_samples
from corelib.jobs import run_job
from corelib.settings.sampling import SamplesStage

run_job(snakemake, gather_samples, SamplesStage)  # noqa: F821

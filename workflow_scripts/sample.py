from functools import partial

from corelib.runs.job import run_job
from corelib.sampling.sampler import sample_shard
from corelib.settings.sampling import SamplesStage

sample = partial(sample_shard, shard=int(snakemake.wildcards.shard), shards=int(snakemake.wildcards.shards))  # noqa: F821
run_job(snakemake, sample, SamplesStage)  # noqa: F821

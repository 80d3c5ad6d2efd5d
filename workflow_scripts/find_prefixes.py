from corelib.probes.inversion import find_prefixes
from corelib.runs.job import run_job
from corelib.settings.probes import PrefixStage

run_job(snakemake, find_prefixes, PrefixStage)  # noqa: F821

from corelib.probes.inversion import invert_concepts
from corelib.runs.job import run_job
from corelib.settings.probes import InversionStage

run_job(snakemake, invert_concepts, InversionStage)  # noqa: F821

from corelib.generating import encode_generated
from corelib.jobs import run_job
from corelib.settings.slicing import LatentsStage

run_job(snakemake, encode_generated, LatentsStage)  # noqa: F821

from corelib.runs.job import run_job
from corelib.settings.data import LatentsStage
from corelib.unlearning.generated_images import encode_generated

run_job(snakemake, encode_generated, LatentsStage)  # noqa: F821

from corelib.runs.job import run_job
from corelib.settings.assets import ConversionStage
from corelib.worlds.assets.compvis import convert_compvis

run_job(snakemake, convert_compvis, ConversionStage)  # noqa: F821

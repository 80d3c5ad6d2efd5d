from corelib.runs.job import run_job
from corelib.settings.unlearn_canvas import ConversionStage
from corelib.worlds.unlearn_canvas.compvis import convert_compvis

run_job(snakemake, convert_compvis, ConversionStage)  # noqa: F821

from corelib.runs.job import run_job
from corelib.settings.miniature import PipelineStage
from corelib.worlds.miniature.pipeline import train_pipeline

run_job(snakemake, train_pipeline, PipelineStage)  # noqa: F821

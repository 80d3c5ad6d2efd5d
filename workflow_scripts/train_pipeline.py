from corelib.jobs import run_job
from corelib.settings.miniature import PipelineStage
from corelib.worlds.pipeline import train_pipeline

run_job(snakemake, train_pipeline, PipelineStage)  # noqa: F821

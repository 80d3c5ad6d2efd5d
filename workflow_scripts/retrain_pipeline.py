from corelib.runs.job import run_job
from corelib.settings.retraining import RetrainingStage
from corelib.worlds.miniature.retraining import retrain_pipeline

run_job(snakemake, retrain_pipeline, RetrainingStage)  # noqa: F821

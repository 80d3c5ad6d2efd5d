from corelib.evaluation.classification import classify_images
from corelib.runs.job import run_job
from corelib.settings.evaluation import PredictionsStage

run_job(snakemake, classify_images, PredictionsStage)  # noqa: F821

from corelib.classification import classify_images
from corelib.jobs import run_job
from corelib.settings.evaluation import PredictionsStage

run_job(snakemake, classify_images, PredictionsStage)  # noqa: F821

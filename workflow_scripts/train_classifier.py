from corelib.runs.job import run_job
from corelib.settings.miniature import ClassifierStage
from corelib.worlds.miniature.classifier import train_classifier

run_job(snakemake, train_classifier, ClassifierStage)  # noqa: F821

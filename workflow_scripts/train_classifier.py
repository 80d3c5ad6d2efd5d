from corelib.jobs import run_job
from corelib.settings.miniature import ClassifierStage
from corelib.worlds.classifier import train_classifier

run_job(snakemake, train_classifier, ClassifierStage)  # noqa: F821

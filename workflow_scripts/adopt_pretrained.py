from corelib.runs.job import run_job
from corelib.settings.pretrained import PretrainedStage
from corelib.worlds.miniature.shipped_models import adopt_pretrained

run_job(snakemake, adopt_pretrained, PretrainedStage)  # noqa: F821

from corelib.jobs import run_job
from corelib.settings.pretrained import PretrainedStage
from corelib.worlds.pretrained import adopt_pretrained

run_job(snakemake, adopt_pretrained, PretrainedStage)  # noqa: F821

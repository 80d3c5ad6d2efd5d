from corelib.runs.job import run_job
from corelib.settings.assets import AdoptionStage
from corelib.worlds.assets.adoption import adopt_assets

run_job(snakemake, adopt_assets, AdoptionStage)  # noqa: F821

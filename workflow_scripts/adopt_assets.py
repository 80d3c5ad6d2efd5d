from corelib.jobs import run_job
from corelib.settings.unlearn_canvas import AdoptionStage
from corelib.worlds.unlearn_canvas import adopt_assets

run_job(snakemake, adopt_assets, AdoptionStage)  # noqa: F821

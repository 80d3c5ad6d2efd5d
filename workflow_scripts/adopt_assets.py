from corelib.runs.job import run_job
from corelib.settings.unlearn_canvas import AdoptionStage
from corelib.worlds.unlearn_canvas.adoption import adopt_assets

run_job(snakemake, adopt_assets, AdoptionStage)  # noqa: F821

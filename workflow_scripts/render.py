from corelib.runs.job import run_job
from corelib.settings.miniature import RenderingStage
from corelib.worlds.miniature.images import render_world

run_job(snakemake, render_world, RenderingStage)  # noqa: F821

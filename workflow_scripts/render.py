from corelib.runs.job import run_job
from corelib.settings.miniature import Rendering
from corelib.worlds.miniature.images import render_world

run_job(snakemake, render_world, Rendering)  # noqa: F821

from corelib.jobs import run_job
from corelib.settings.miniature import Rendering
from corelib.worlds.rendering import render_world

run_job(snakemake, render_world, Rendering)  # noqa: F821

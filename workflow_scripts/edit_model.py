from corelib.runs.job import run_job
from corelib.settings.edits import EditStage
from corelib.unlearning.closed_form import edit_model

run_job(snakemake, edit_model, EditStage)  # noqa: F821

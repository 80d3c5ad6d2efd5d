from corelib.evaluation.gate import check_gate
from corelib.runs.job import run_job
from corelib.settings.gate import GateStage

run_job(snakemake, check_gate, GateStage)  # noqa: F821

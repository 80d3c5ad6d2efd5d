from corelib.evaluation.gate import report_gate
from corelib.runs.job import run_job
from corelib.settings.gate import GateStage

run_job(snakemake, report_gate, GateStage)  # noqa: F821

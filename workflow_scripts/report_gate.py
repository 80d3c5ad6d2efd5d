from corelib.gate import report_gate
from corelib.jobs import run_job
from corelib.settings.gating import GateStage

run_job(snakemake, report_gate, GateStage)  # noqa: F821

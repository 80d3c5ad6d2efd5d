from corelib.gate import check_gate
from corelib.jobs import run_job
from corelib.settings.gating import GateStage

run_job(snakemake, check_gate, GateStage)  # noqa: F821

from corelib.reports.claims import evaluate_claims
from corelib.runs.job import run_job
from corelib.settings.claims import ClaimsStage

run_job(snakemake, evaluate_claims, ClaimsStage)  # noqa: F821

from corelib.reports.comparisons import compare
from corelib.runs.job import run_job
from corelib.settings.distances import ComparisonStage

run_job(snakemake, compare, ComparisonStage)  # noqa: F821

from corelib.reports.study_report import write_report
from corelib.runs.job import run_job
from corelib.settings.study_report import ReportStage

run_job(snakemake, write_report, ReportStage)  # noqa: F821

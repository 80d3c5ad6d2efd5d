from corelib.reports.probe_report import report_probe
from corelib.runs.job import run_job
from corelib.settings.probe_report import ProbeStage

run_job(snakemake, report_probe, ProbeStage)  # noqa: F821

from corelib.reports.sequence_report import report_sequence
from corelib.runs.job import run_job
from corelib.settings.sequence_report import SequenceStage

run_job(snakemake, report_sequence, SequenceStage)  # noqa: F821

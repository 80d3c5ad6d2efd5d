from corelib.evaluation.distances import measure_distances
from corelib.runs.job import run_job
from corelib.settings.distances import DistancesStage

run_job(snakemake, measure_distances, DistancesStage)  # noqa: F821

#!/bin/bash
#SBATCH --job-name=snakemake
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --output=logs/controller-%j.log
# Snakemake itself as a job, for sites that allow no long processes on a login node; in the clone:
#
#   mkdir -p logs && sbatch slurm/controller.sh results/table1.csv
#
# What follows the script's name goes to `snakemake --profile slurm`. Before the time limit it submits itself again, to go
# on where this job is ended; jobs that compute by then go on, and are not computed twice. sbatch's own options stand before
# the script's name; --partition, --account, --qos and --time are asked for again. Its time limit should be longer than jobs
# wait in the queue: each new Snakemake submits what waits anew.

cd "$SLURM_SUBMIT_DIR" || exit 1
options=(--partition="$SLURM_JOB_PARTITION")
[ -z "$SLURM_JOB_ACCOUNT" ] || options+=(--account="$SLURM_JOB_ACCOUNT")
[ -z "$SLURM_JOB_QOS" ] || options+=(--qos="$SLURM_JOB_QOS")
limit=$(squeue --noheader --job "$SLURM_JOB_ID" --format=%l)
[ -z "$limit" ] || options+=(--time="$limit")

succeed() {
    echo "The time limit is near: going on in another job."
    until sbatch "${options[@]}" --dependency="afterany:$SLURM_JOB_ID" slurm/controller.sh "$@"; do sleep 5; done
    kill -KILL "$snakemake"  # any other signal would cancel its jobs, or wait for their end
    exit 0
}

set -m  # or the process in the background would ignore the signal that Ctrl-C sends
.venv/bin/python -m snakemake --profile slurm "$@" &
snakemake=$!
trap 'succeed "$@"' USR1
# scancel: its jobs are cancelled as well, and what is about to be submitted is not
trap 'touch .snakemake/corelib/slurm/given_up; kill -INT -- "-$snakemake"' TERM
wait "$snakemake"
status=$?
while [ "$status" -gt 128 ] && kill -0 "$snakemake" 2> /dev/null; do  # a signal has interrupted the waiting
    wait "$snakemake"
    status=$?
done
exit "$status"

#!/bin/bash
#SBATCH --job-name=snakemake
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --output=logs/controller-%j.log
# Runs Snakemake itself as a job, for sites that allow no long processes on a login node; in the clone:
#
#   mkdir -p logs && sbatch slurm/controller.sh results/table1.csv
#
# Arguments after the script's name are passed to `snakemake --profile slurm`. Before its time limit, the job submits itself
# again, to continue where it ends. Jobs that are running then continue, and are not repeated. Options of sbatch go before
# the script's name; --partition, --account, --qos and --time are passed on to the next job. The time limit should be longer
# than jobs wait in the queue, since each new Snakemake cancels the waiting jobs and submits them again.

cd "$SLURM_SUBMIT_DIR" || exit 1
options=(--partition="$SLURM_JOB_PARTITION")
[ -z "$SLURM_JOB_ACCOUNT" ] || options+=(--account="$SLURM_JOB_ACCOUNT")
[ -z "$SLURM_JOB_QOS" ] || options+=(--qos="$SLURM_JOB_QOS")
limit=$(squeue --noheader --job "$SLURM_JOB_ID" --format=%l)
[ -z "$limit" ] || options+=(--time="$limit")

resubmit() {
    echo "The time limit is near: continuing in another job."
    until sbatch "${options[@]}" --dependency="afterany:$SLURM_JOB_ID" slurm/controller.sh "$@"; do sleep 5; done
    kill -KILL "$snakemake"  # after any other signal, Snakemake would cancel its jobs or wait for their end
    exit 0
}

set -m  # otherwise the process in the background would ignore the signal of Ctrl-C
.venv/bin/python -m snakemake --profile slurm "$@" &
snakemake=$!
trap 'resubmit "$@"' USR1
# after scancel, its jobs are cancelled as well, and jobs that are about to be submitted are not
trap 'touch .snakemake/corelib/slurm/given_up; kill -INT -- "-$snakemake"' TERM
wait "$snakemake"
status=$?
while [ "$status" -gt 128 ] && kill -0 "$snakemake" 2> /dev/null; do  # a signal has interrupted `wait`
    wait "$snakemake"
    status=$?
done
exit "$status"

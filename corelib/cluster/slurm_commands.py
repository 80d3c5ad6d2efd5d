"""Replacements for Slurm's commands as Snakemake's executor calls them, for a Slurm that fails now and then.

    python corelib/cluster/slurm_commands.py COMMAND ARGUMENTS...

The workflow puts `slurm/bin`, whose commands call this module, before Slurm's own commands on PATH. The executor
(2.8.0) forgets every job once a single cycle of status queries has failed, counts a refused submission as a failed
attempt of the job, sends a job back to the node on which it has just failed, and does not recognize the state of a job
that Slurm has cancelled (`CANCELLED by 1000`). Therefore:

- A status query waits for Slurm's answer, and lists every job that the executor has submitted, including jobs that the
  controller has forgotten.
- A submission that Slurm refuses for a temporary reason (an outage, a limit on the number of jobs) is repeated.
- At most `MAX_SUBMISSIONS_PER_SECOND` jobs are submitted per second.
- A job is named by its rule and run, and avoids the nodes on which it failed.

All other calls are passed to Slurm unchanged. Submitted jobs are recorded in the folder that the environment variable
`NOTES_VARIABLE` names; without that variable all calls are passed to Slurm unchanged. Only the standard library is
imported, since this module starts once per command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started without the folders of installed packages
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from corelib.cluster.slurm_calls import call_with_retries, find_slurm_command
from corelib.cluster.slurm_job_states import print_states
from corelib.cluster.slurm_notes import CONTROLLER, DATABASE, NOTES_VARIABLE, SlurmNotes
from corelib.cluster.slurm_submission import option_value, submit


def main(program: str, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    real = find_slurm_command(program)
    notes = SlurmNotes(Path(os.environ[NOTES_VARIABLE])) if NOTES_VARIABLE in os.environ else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if notes and program in ("squeue", "sacct") and "--name" in arguments:
            return print_states(option_value(arguments, "--name"), notes)
        if real is None:
            print(f"{program}: not found on PATH, apart from this workflow's own", file=sys.stderr)
            return 127
        if notes and program == "sbatch" and "--parsable" in arguments:
            return submit(real, list(arguments), notes)
        if notes and program in ("sacctmgr", "sshare", "sinfo"):
            return call_with_retries([real, *arguments], notes, CONTROLLER if program == "sinfo" else DATABASE)
    except KeyboardInterrupt:  # Snakemake is interrupted as well
        if notes:
            notes.give_up()
        return 130
    return os.execv(real, [real, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""Run the tests of the cluster profile on a real Slurm cluster that exists only for these tests.

    python tests/slurm [--long] [arguments of pytest]

Needs root and Debian's packages `slurm-wlm munge` (`--long`: also `slurmdbd mariadb-server`). Fails with their names if
some are missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster import CONFIGURATION, RUN, missing, remove_cgroups

HERE = Path(__file__).resolve().parent
INSIDE = "CORELIB_INSIDE_THE_CLUSTER"
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def main(arguments: list[str]) -> int:
    """Run pytest in separate namespaces, so that this machine stays unchanged and no process survives."""
    long = "--long" in arguments
    if os.environ.get(INSIDE):
        return _first_process(arguments)
    problems = [f"{name}: no such program" for name in missing(accounting=long)]
    if os.geteuid() != 0:
        problems.append("not root: namespaces, devices and Slurm's daemons need it")
    elif subprocess.run([*NAMESPACES, "true"], check=False, capture_output=True).returncode != 0:
        problems.append("unshare: this machine grants no mount and process namespaces")
    if problems:
        packages = "slurm-wlm munge" + (" slurmdbd mariadb-server" if long else "")
        print("Error: the cluster tests cannot run here:", *problems, sep="\n  ", file=sys.stderr)
        print(f"On Debian: apt-get install {packages}", file=sys.stderr)
        return 1
    command = [*NAMESPACES, sys.executable, str(HERE), *arguments]
    try:
        return subprocess.run(command, check=False, env={**os.environ, INSIDE: "1"}).returncode
    finally:
        remove_cgroups()


def _first_process(arguments: list[str]) -> int:
    """Mount the folders to which the cluster writes, start pytest, and reap orphaned processes."""
    for place in (CONFIGURATION, RUN):
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "throwaway", str(place)], check=True)
    chosen = [argument for argument in arguments if argument != "--long"]
    marks = [] if "--long" in arguments else ["-m", "not slow"]
    pytest = [sys.executable, "-m", "pytest", str(HERE / "on_a_cluster.py"), *marks, *chosen]
    child = subprocess.Popen(pytest, cwd=HERE.parent.parent)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

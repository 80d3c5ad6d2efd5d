"""A throw-away Slurm cluster on this machine: a real controller, real node daemons, virtual A100s.

It runs in separate namespaces (see `__main__.py`). Its configuration is mounted over the system's. When the first
process of the namespace ends, the kernel ends every daemon and job, so that nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr")

CONFIGURATION = Path("/etc/slurm")
RUN = Path("/run")
CONTROLLER_PORT, DATABASE_PORT = 16817, 16819

SLURM_CONF = """
ClusterName=throwaway
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
{memory_limits}
MinJobAge={min_job_age}
KillWait=10
SlurmdTimeout=6
InactiveLimit=0
ReturnToService=2
MpiDefault=none
{accounting}
{nodes}
{partitions}
"""

HAS_MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory").is_dir()
"""The kernel enforces memory limits. Elsewhere Slurm polls every second, kills the job, and reports a failure."""

CGROUP_CONF = """
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
"""

WITH_DATABASE = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu"""

SLURMDBD_CONF = """
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=throwaway
StorageLoc=slurm
"""


@dataclass(frozen=True)
class Node:
    """A node of the cluster: a `slurmd` with its own port, and GPUs, with a model if Slurm is configured with one."""

    name: str
    port: int
    gpus: int = 0
    gpu_model: str | None = "a100"
    cpus: int = 16
    memory_mib: int = 200_000

    @property
    def line(self) -> str:
        model = f":{self.gpu_model}" if self.gpu_model else ""
        gres = f" Gres=gpu{model}:{self.gpus}" if self.gpus else ""
        return (
            f"NodeName={self.name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={self.port} "
            f"CPUs={self.cpus} RealMemory={self.memory_mib}{gres} State=UNKNOWN"
        )


NODES = (Node("gpu1", 16821, gpus=2), Node("gpu2", 16822, gpus=2), Node("cpu1", 16823))
PARTITIONS = (
    "PartitionName=a100 Nodes=gpu1,gpu2 MaxTime=1-0",
    "PartitionName=main Nodes=cpu1 Default=YES MaxTime=1-0",
)


def missing(accounting: bool) -> list[str]:
    """The programs that a cluster needs but this machine lacks."""
    needed = [*DAEMONS, *CLIENTS, *(ACCOUNTING if accounting else ())]
    return [name for name in needed if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]


@dataclass
class Cluster:
    """The running cluster.

    Args:
        folder: folder of its state, its logs and its virtual devices.
        accounting: whether it has accounting, so that `sacct` works.
        nodes: the nodes.
        partitions: lines of the configuration.
        min_job_age: seconds for which the controller remembers a job that has ended.
    """

    folder: Path
    accounting: bool = False
    nodes: tuple[Node, ...] = NODES
    partitions: tuple[str, ...] = PARTITIONS
    min_job_age: int = 3600
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Start all daemons and wait until all nodes are idle."""
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_database()
        self._daemon("slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node.name)
        wait_for("idle nodes", lambda: set(self.states().values()) == {"idle"}, 60)

    def stop(self) -> None:
        """Stop all daemons in reverse order. A daemon that still waits for a job after 30 seconds is killed."""
        for name in reversed(self._processes):
            self._processes[name].terminate()
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # Daemons

    def end_daemon(self, name: str) -> None:
        """Stop the controller (`slurmctld`) or the database daemon (`slurmdbd`); `start_daemon` starts it again."""
        self._processes[name].terminate()
        self._processes[name].wait(60)

    def start_daemon(self, name: str) -> None:
        """Start a daemon that was stopped."""
        self._daemon(name, "-D")

    # Nodes

    def start_node(self, name: str, hidden: Path | None = None) -> None:
        """Start the daemon of a node; on a misconfigured node, a folder is hidden from the daemon and its jobs."""
        if hidden is None:
            self._daemon("slurmd", "-D", "-N", name, called=name)
            return
        script = f"mount -t tmpfs nothing '{hidden}' && exec slurmd -D -N {name}"
        self._daemon("unshare", "--mount", "sh", "-c", script, called=name)

    def break_node(self, name: str) -> None:
        """Simulate a power failure: kill the daemon and all processes of its jobs at once."""
        self._processes[name].kill()
        self._processes[name].wait()
        for pid in _processes_of_node(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def states(self) -> dict[str, str]:
        """The state of each node."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    # Jobs

    def jobs(self) -> dict[str, dict[str, str]]:
        """All jobs that the controller remembers, by number; `rule` is the name of Snakemake's rule."""
        listed = self.run("squeue", "--noheader", "--states=all", "--format=%i|%T|%N|%k|%R").splitlines()
        rows = (line.split("|", 4) for line in listed)
        return {
            number: {"state": state, "node": node, "rule": comment, "reason": reason}
            for number, state, node, comment, reason in rows
        }

    def running(self, text: str) -> dict[str, dict[str, str]]:
        """The running jobs whose comment contains `text`."""
        return {number: job for number, job in self.jobs().items() if job["state"] == "RUNNING" and text in job["rule"]}

    def job(self, number: str) -> dict[str, str]:
        """The controller's information about a job."""
        fields = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(entry.split("=", 1) for entry in fields if "=" in entry)

    def memory_mib(self, number: str) -> int:
        """The memory that a job requested, in MiB."""
        size = self.job(number)["MinMemoryNode"]
        return int(float(size[:-1]) * (1024 if size.endswith("G") else 1))

    def state_in_accounts(self, number: str) -> str:
        """The state of a job, or of a step of it that ended worse, in Slurm's accounts."""
        states = self.run("sacct", "-j", number, "--noheader", "--parsable2", "--format=State").split("\n")
        return next((state for state in states if state not in ("", "COMPLETED", "FAILED")), states[0])

    def run(self, *command: str) -> str:
        """The output of a Slurm command."""
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    # Start-up

    def _configure(self) -> None:
        for name in ("state", "spool", "devices"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = WITH_DATABASE.format(port=DATABASE_PORT)
        text = SLURM_CONF.format(
            folder=self.folder,
            controller_port=CONTROLLER_PORT,
            accounting=accounting,
            task_plugin="task/cgroup" if HAS_MEMORY_CGROUPS else "task/none",
            memory_limits="" if HAS_MEMORY_CGROUPS else "JobAcctGatherParams=OverMemoryKill",
            nodes="\n".join(node.line for node in self.nodes),
            partitions="\n".join(self.partitions),
            min_job_age=self.min_job_age,
        )
        (CONFIGURATION / "slurm.conf").write_text(text)
        if HAS_MEMORY_CGROUPS:
            (CONFIGURATION / "cgroup.conf").write_text(CGROUP_CONF)
        lines = []
        for node in self.nodes:
            for number in range(node.gpus):
                device = self.folder / "devices" / f"{node.name}-nvidia{number}"
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
                model = f" Type={node.gpu_model}" if node.gpu_model else ""
                lines.append(f"NodeName={node.name} Name=gpu{model} File={device}")
        (CONFIGURATION / "gres.conf").write_text("\n".join(lines) + "\n")

    def _start_munge(self) -> None:
        key, place = self.folder / "munge.key", RUN / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        place.mkdir(exist_ok=True)
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )
        wait_for("munge", lambda: (place / "munge.socket.2").exists(), 20)

    def _start_database(self) -> None:
        data, socket, port = self.folder / "mariadb", self.folder / "mariadb.socket", DATABASE_PORT + 1
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db")
        self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={socket}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
        )
        wait_for("the database", socket.exists, 60)
        statements = "CREATE DATABASE slurm; GRANT ALL ON slurm.* TO slurm@127.0.0.1 IDENTIFIED BY 'throwaway';"
        self.run("mariadb", "--no-defaults", f"--socket={socket}", "--user=root", "--execute", statements)
        (CONFIGURATION / "slurmdbd.conf").write_text(
            SLURMDBD_CONF.format(folder=self.folder, port=DATABASE_PORT, database_port=port)
        )
        (CONFIGURATION / "slurmdbd.conf").chmod(0o600)
        self._daemon("slurmdbd", "-D")
        wait_for("slurmdbd", lambda: _answers("sacctmgr", "--noheader", "show", "cluster"), 60)
        self.run("sacctmgr", "--immediate", "add", "cluster", "throwaway")
        self.run("sacctmgr", "--immediate", "add", "account", "unlearning", "cluster=throwaway")
        self.run("sacctmgr", "--immediate", "add", "user", "root", "account=unlearning")

    def _daemon(self, program: str, *arguments: str, called: str | None = None) -> None:
        log = (self.folder / f"{called or program}.out").open("ab")
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        self._processes[called or program] = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )


def remove_cgroups() -> None:
    """Remove the control groups of stopped nodes, which outlive the namespaces."""
    for top in Path("/sys/fs/cgroup").glob("*/slurm_*"):
        if top.name.removeprefix("slurm_") in {node.name for node in NODES}:
            for group in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
                with suppress(OSError):
                    group.rmdir()


def wait_for(what: str, holds: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds; fail with its description if this takes too long."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.2)


def _answers(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def processes_of_job(number: str, text: str) -> list[int]:
    """The processes of a job with `text` in their command lines."""
    mark = f"SLURM_JOB_ID={number}".encode()
    return [
        pid
        for pid in _all_processes()
        if mark in _read(pid, "environ").split(b"\0") and text.encode() in _read(pid, "cmdline")
    ]


def _processes_of_node(name: str) -> list[int]:
    """All processes of all jobs on a node. Their supervising daemons come first, so that these report nothing."""
    mark = f"SLURMD_NODENAME={name}".encode()
    tasks = [pid for pid in _all_processes() if mark in _read(pid, "environ").split(b"\0")]
    watchers = set()
    for pid in tasks:
        while pid > 1:
            if _read(pid, "comm").strip() == b"slurmstepd":
                watchers.add(pid)
            pid = _parent(pid)
    return [*watchers, *tasks]


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""

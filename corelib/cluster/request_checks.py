"""The limits of a Slurm cluster, and jobs that it could never start.

Slurm accepts a job that no partition or node can ever run, and leaves it in the queue for ever. The requests of jobs
are therefore compared with the output of `sinfo` and `sacctmgr` before the first job is submitted.
"""

from __future__ import annotations

import getpass
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.cluster.site import SITE_FILE
from corelib.cluster.slurm_calls import call
from corelib.cluster.slurm_submission import HYPHEN
from corelib.files.yaml_files import read_yaml

TIMEOUT_SECONDS = 30
"""Seconds to wait for an answer of Slurm's; without an answer nothing is compared."""

PARTITIONS_FILE = "slurm/partitions.yaml"


@dataclass(frozen=True)
class Request:
    """The resources that a job requests from Slurm; None leaves the choice to Slurm.

    Attributes:
        rule: rule of the job.
        gpu: whether the job needs a GPU.
        gpu_model: model of that GPU.
        memory_mb: memory in MB.
        minutes: run time in minutes.
    """

    rule: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gpu: bool
    gpu_model: str | None
    cpus: int
    memory_mb: int
    minutes: int

    @classmethod
    def of(cls, rule: str, resources: Mapping[str, Any], threads: int) -> Request:
        """The request of a job, from the resources of Snakemake's Slurm executor."""
        return cls(
            rule,
            _text(resources.get("slurm_partition")),
            _text(resources.get("slurm_account")),
            _text(resources.get("qos")),
            _text(resources.get("constraint")),
            bool(resources.get("gpu")),
            (_text(resources.get("gpu_model")) or "").replace(HYPHEN, "-") or None,
            resources.get("cpus_per_task", threads),
            resources["mem_mb"],
            resources["runtime"],
        )


@dataclass(frozen=True)
class Node:
    """A kind of node in a partition, whether its nodes are up or not."""

    cpus: int
    memory_mb: int
    gpu_models: frozenset[str]
    features: frozenset[str]


UNTYPED = ""
"""The model of a GPU without a type in Slurm."""

ALTERNATIVES = re.compile(r"[|\[\]*()!]")
"""Operators of a constraint that is more than a list of required features; such a constraint is left to Slurm."""


@dataclass(frozen=True)
class Partition:
    """A partition: its time limit in minutes, if it has one, and its kinds of nodes, at least one."""

    limit: int | None
    nodes: tuple[Node, ...]
    is_default: bool


@dataclass(frozen=True)
class Cluster:
    """A cluster's limits, as Slurm reports them.

    Attributes:
        partitions: the partitions, by name.
        accounts: the QoS of each account of this user; None if Slurm keeps no accounts.
        enforces_qos: whether Slurm refuses a job with a QoS that its account does not have.
        limits_of_qos: time limits in minutes, for each QoS that has one.
        qos_beyond_partitions: each QoS whose jobs may exceed the time limit of their partition.
    """

    partitions: dict[str, Partition]
    accounts: dict[str, set[str]] | None
    enforces_qos: bool
    limits_of_qos: dict[str, int]
    qos_beyond_partitions: frozenset[str]

    @classmethod
    def asked(cls) -> Cluster | None:
        """The limits that Slurm reports now; None if Slurm does not answer."""
        rows = _rows(["sinfo", "--noheader", "--all", "--exact", "--format=%P|%l|%c|%m|%G|%f"], cells=6)
        if not rows:
            return None
        nodes: dict[str, list[Node]] = defaultdict(list)
        limits: dict[str, int | None] = {}
        for name, limit, cpus, memory, gres, features in rows:
            limits[name] = _minutes(limit)
            nodes[name].append(
                Node(int(cpus), int(memory), _gpu_models(gres), frozenset(re.findall(r"[^,]+", features)))
            )
        partitions = {
            name.rstrip("*"): Partition(limits[name], tuple(nodes[name]), name.endswith("*")) for name in limits
        }
        show = ["sacctmgr", "--noheader", "--parsable2", "show"]
        accounts: dict[str, set[str]] = defaultdict(set)
        for account, qos in _rows([*show, "assoc", f"user={getpass.getuser()}", "format=account,qos"], cells=2) or []:
            accounts[account.lower()] |= set(filter(None, qos.split(",")))
        qos_rows = _rows([*show, "qos", "format=name,maxwall,flags"], cells=3) or []
        qos_limits = {name: _minutes(limit) for name, limit, _ in qos_rows}
        settings = _rows(["scontrol", "show", "config"], cells=1) or []
        return cls(
            partitions,
            dict(accounts) or None,
            any(line.startswith("AccountingStorageEnforce") and "qos" in line for (line,) in settings),
            {name: minutes for name, minutes in qos_limits.items() if minutes is not None},
            frozenset(name for name, _, flags in qos_rows if "PartitionTimeLimit" in flags),
        )

    def faults_of(self, request: Request) -> Iterator[str]:
        """The reasons why a job could never start, each in one sentence without a full stop."""
        prefix = f"jobs of rule {request.rule} could never start: "
        account = re.split(r"[,\s]+", request.account or "")[0].lower()  # the executor takes the first of several
        if account and self.accounts is not None and account not in self.accounts:
            yield (
                f"{prefix}account is {request.account!r}, expected one of yours: "
                f"{', '.join(sorted(self.accounts))} ({SITE_FILE} or --config)"
            )
        elif request.qos and self.accounts is not None and self.enforces_qos:
            granted = self.accounts.get(account, set().union(*self.accounts.values()))
            if granted and request.qos not in granted:
                yield (
                    f"{prefix}qos is {request.qos!r}, expected one of {', '.join(sorted(granted))} "
                    f"({SITE_FILE} or --config)"
                )
        if request.qos and request.minutes > self.limits_of_qos.get(request.qos, request.minutes):
            limit = self.limits_of_qos[request.qos]
            yield (
                f"{prefix}they request {request.minutes} minutes, expected at most {limit} with the qos "
                f"{request.qos}; set max_minutes: {limit} in {SITE_FILE}"
            )
        names = request.partition or next((name for name, part in self.partitions.items() if part.is_default), None)
        if names is None:
            return
        if unknown := [name for name in names.split(",") if name not in self.partitions]:
            yield (
                f"{prefix}partition is {', '.join(unknown)!r}, expected one of {', '.join(sorted(self.partitions))} "
                f"({SITE_FILE} or --config)"
            )
            return
        parts = [self.partitions[name] for name in names.split(",")]
        limits = [part.limit for part in parts]
        longest = None if None in limits else max(limit for limit in limits if limit is not None)
        if longest is not None and request.minutes > longest and request.qos not in self.qos_beyond_partitions:
            yield (
                f"{prefix}they request {request.minutes} minutes, expected at most {longest} in partition {names}; "
                f"set max_minutes: {longest} in {SITE_FILE} (training and sampling resume in the next attempt), or "
                "choose another partition"
            )
        nodes = [node for part in parts for node in part.nodes]
        if fault := _fault_of_nodes(request, names, nodes):
            yield f"{prefix}{fault}"


def _fault_of_nodes(request: Request, partition: str, nodes: list[Node]) -> str | None:
    """The first requirement that no node of a partition meets, in words."""
    if request.gpu:
        nodes = [node for node in nodes if node.gpu_models]
        models = {model for node in nodes for model in node.gpu_models} - {UNTYPED}
        if not nodes:
            return f"partition {partition} has no GPUs, expected one with GPUs ({SITE_FILE} or --config)"
        if request.gpu_model and request.gpu_model not in models:
            expected = f"one of {', '.join(sorted(models))}" if models else "an empty gpu_model"
            return (
                f"gpu_model is {request.gpu_model!r}, and no node of partition {partition} has such a GPU, expected "
                f"{expected} ({SITE_FILE} or --config)"
            )
        nodes = [node for node in nodes if not request.gpu_model or request.gpu_model in node.gpu_models]
    if request.constraint and not ALTERNATIVES.search(request.constraint):
        required = set(re.findall(r"[^&,\s]+", request.constraint))
        known = {feature for node in nodes for feature in node.features} - {"(null)"}
        nodes = [node for node in nodes if required <= node.features]
        if not nodes:
            return (
                f"constraint is {request.constraint!r}, and no node of partition {partition} has it, expected features "
                f"of {', '.join(sorted(known)) or 'none, since the nodes have no features'} ({SITE_FILE} or --config)"
            )
    for unit, number, maximum in (
        ("MB of memory", request.memory_mb, max(node.memory_mb for node in nodes)),
        ("CPUs", request.cpus, max(node.cpus for node in nodes)),
    ):
        if number > maximum:
            remedy = f"; set max_memory_mb: {maximum} in {SITE_FILE}" if number == request.memory_mb else ""
            return f"they request {number} {unit}, but the largest node of partition {partition} has {maximum}{remedy}"
    return None


def check_requests(requests: Iterable[Request], repository: Path) -> list[str] | None:
    """The faults of all requests, each once; None if Slurm does not answer.

    A request without a partition is not checked if `slurm/partitions.yaml` describes partitions: the executor then
    chooses one that fits.
    """
    cluster = Cluster.asked() if shutil.which("sinfo") else None
    if cluster is None:
        return None
    described = repository / PARTITIONS_FILE
    chooses = described.exists() and bool((read_yaml(described) or {}).get("partitions"))
    checked = [request for request in requests if request.partition or not chooses]
    return list(dict.fromkeys(fault for request in checked for fault in cluster.faults_of(request)))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _rows(command: list[str], cells: int) -> list[list[str]] | None:
    """The rows with this number of cells in a table that Slurm prints; None if Slurm does not answer."""
    try:
        reply = call(command, seconds=TIMEOUT_SECONDS)
    except OSError:  # there is no such command
        return None
    if reply.status != 0:
        return None
    return [row for row in (line.split("|") for line in reply.output.splitlines()) if len(row) == cells]


def _minutes(limit: str) -> int | None:
    """A time limit of the form `[[DAYS-]HOURS:]MINUTES:SECONDS` in whole minutes; None if there is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if match is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes


def _gpu_models(gres: str) -> frozenset[str]:
    """The GPU models in a list such as `gpu:a100:4(S:0-1),gpu:2`."""
    models = re.findall(r"(?:^|,)gpu(?::([^:,(]+))?", gres)
    return frozenset(UNTYPED if model.isdigit() else model for model in models)

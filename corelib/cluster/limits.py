"""What a Slurm cluster can grant, and which jobs it could never start.

Slurm takes a job that no partition or node can ever run, and leaves it in the queue for ever. So what jobs ask for is
compared with what `sinfo` and `sacctmgr` say before the first of them is submitted.
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

from corelib.cluster.site import FILE
from corelib.cluster.slurm_clients import HYPHEN, call
from corelib.files.yaml_files import read_yaml

PATIENCE = 30
"""Seconds until an answer of Slurm's is given up; then nothing is compared."""

PARTITIONS = "slurm/partitions.yaml"


@dataclass(frozen=True)
class Request:
    """What jobs ask of Slurm; None leaves the choice to Slurm.

    Attributes:
        rule: of the jobs.
        gpu: whether they need a GPU, of a model.
        memory_mb: of one job.
        minutes: run time of one job.
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
        """Of a job, by the resources that Snakemake's Slurm executor knows."""
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
    """A kind of node in a partition, whether it is up or not."""

    cpus: int
    memory_mb: int
    gpu_models: frozenset[str]
    features: frozenset[str]


UNTYPED = ""
"""The model of a GPU of which Slurm knows no type."""

ALTERNATIVES = re.compile(r"[|\[\]*()!]")
"""In a constraint: more than a list of features that a node must have; such a constraint is left to Slurm."""


@dataclass(frozen=True)
class Partition:
    """A partition: its limit in minutes, if it has one, and its kinds of nodes; there is at least one."""

    limit: int | None
    nodes: tuple[Node, ...]
    is_default: bool


@dataclass(frozen=True)
class Cluster:
    """What Slurm says of itself.

    Attributes:
        partitions: by name.
        accounts: of this user, and the QoS of each; None where Slurm keeps no accounts.
        enforces_qos: whether Slurm refuses a job with the QoS of others.
        limits_of_qos: in minutes, of the QoS that have one.
        qos_beyond_partitions: the QoS whose jobs may take longer than their partition allows.
    """

    partitions: dict[str, Partition]
    accounts: dict[str, set[str]] | None
    enforces_qos: bool
    limits_of_qos: dict[str, int]
    qos_beyond_partitions: frozenset[str]

    @classmethod
    def asked(cls) -> Cluster | None:
        """What Slurm says now; None without a Slurm that answers."""
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
        qualities = _rows([*show, "qos", "format=name,maxwall,flags"], cells=3) or []
        walls = {name: _minutes(wall) for name, wall, _ in qualities}
        enforced = _rows(["scontrol", "show", "config"], cells=1) or []
        return cls(
            partitions,
            dict(accounts) or None,
            any(line.startswith("AccountingStorageEnforce") and "qos" in line for (line,) in enforced),
            {name: wall for name, wall in walls.items() if wall is not None},
            frozenset(name for name, _, flags in qualities if "PartitionTimeLimit" in flags),
        )

    def faults_of(self, request: Request) -> Iterator[str]:
        """Why a job could never start, in words."""
        said = f"jobs of rule {request.rule} could never start: "
        account = re.split(r"[,\s]+", request.account or "")[0].lower()  # the executor takes the first of several
        if account and self.accounts is not None and account not in self.accounts:
            yield (
                f"{said}account is {request.account!r}, expected one of yours: "
                f"{', '.join(sorted(self.accounts))} ({FILE} or --config)"
            )
        elif request.qos and self.accounts is not None and self.enforces_qos:
            granted = self.accounts.get(account, set().union(*self.accounts.values()))
            if granted and request.qos not in granted:
                yield f"{said}qos is {request.qos!r}, expected one of {', '.join(sorted(granted))} ({FILE} or --config)"
        if request.qos and request.minutes > self.limits_of_qos.get(request.qos, request.minutes):
            limit = self.limits_of_qos[request.qos]
            yield (
                f"{said}they ask for {request.minutes} minutes, expected {limit} at most with the qos {request.qos}; "
                f"say max_minutes: {limit} in {FILE}"
            )
        chosen = request.partition or next((name for name, part in self.partitions.items() if part.is_default), None)
        if chosen is None:
            return
        if unknown := [name for name in chosen.split(",") if name not in self.partitions]:
            yield (
                f"{said}partition is {', '.join(unknown)!r}, expected one of {', '.join(sorted(self.partitions))} "
                f"({FILE} or --config)"
            )
            return
        parts = [self.partitions[name] for name in chosen.split(",")]
        limits = [part.limit for part in parts]
        longest = None if None in limits else max(limit for limit in limits if limit is not None)
        if longest is not None and request.minutes > longest and request.qos not in self.qos_beyond_partitions:
            yield (
                f"{said}they ask for {request.minutes} minutes, expected {longest} at most in partition {chosen}; "
                f"say max_minutes: {longest} in {FILE} (training and sampling go on in the next attempt), or choose "
                "another partition"
            )
        nodes = [node for part in parts for node in part.nodes]
        if fault := _fault_of_nodes(request, chosen, nodes):
            yield f"{said}{fault}"


def _fault_of_nodes(request: Request, partition: str, nodes: list[Node]) -> str | None:
    """The first requirement that leaves no node of a partition."""
    if request.gpu:
        nodes = [node for node in nodes if node.gpu_models]
        models = {model for node in nodes for model in node.gpu_models} - {UNTYPED}
        if not nodes:
            return f"partition {partition} has no GPUs, expected one that has ({FILE} or --config)"
        if request.gpu_model and request.gpu_model not in models:
            expected = f"one of {', '.join(sorted(models))}" if models else "an empty gpu_model"
            return (
                f"gpu_model is {request.gpu_model!r}, and no node of partition {partition} has such a GPU, expected "
                f"{expected} ({FILE} or --config)"
            )
        nodes = [node for node in nodes if not request.gpu_model or request.gpu_model in node.gpu_models]
    if request.constraint and not ALTERNATIVES.search(request.constraint):
        asked = set(re.findall(r"[^&,\s]+", request.constraint))
        there = {feature for node in nodes for feature in node.features} - {"(null)"}
        nodes = [node for node in nodes if asked <= node.features]
        if not nodes:
            return (
                f"constraint is {request.constraint!r}, and no node of partition {partition} has it, expected of "
                f"{', '.join(sorted(there)) or 'none, since they have no features'} ({FILE} or --config)"
            )
    for what, number, most in (
        ("MB of memory", request.memory_mb, max(node.memory_mb for node in nodes)),
        ("CPUs", request.cpus, max(node.cpus for node in nodes)),
    ):
        if number > most:
            remedy = f"; say max_memory_mb: {most} in {FILE}" if number == request.memory_mb else ""
            return f"they ask for {number} {what}, and the largest node of partition {partition} has {most}{remedy}"
    return None


def faults_on_cluster(requests: Iterable[Request], repository: Path) -> list[str] | None:
    """What could never start, each fault once; None where Slurm does not answer.

    Where partitions are described and none is named, the executor chooses one that fits.
    """
    cluster = Cluster.asked() if shutil.which("sinfo") else None
    if cluster is None:
        return None
    described = repository / PARTITIONS
    chooses = described.exists() and bool((read_yaml(described) or {}).get("partitions"))
    asked = [request for request in requests if request.partition or not chooses]
    return list(dict.fromkeys(fault for request in asked for fault in cluster.faults_of(request)))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _rows(command: list[str], cells: int) -> list[list[str]] | None:
    """The rows of so many cells in a table that Slurm prints, or None if it gives no answer."""
    try:
        reply = call(command, seconds=PATIENCE)
    except OSError:  # there is no such command
        return None
    if reply.status != 0:
        return None
    return [row for row in (line.split("|") for line in reply.output.splitlines()) if len(row) == cells]


def _minutes(limit: str) -> int | None:
    """A time as `[[DAYS-]HOURS:]MINUTES:SECONDS` in whole minutes; None if there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if found is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes


def _gpu_models(gres: str) -> frozenset[str]:
    """The models in a list such as `gpu:a100:4(S:0-1),gpu:2`."""
    found = re.findall(r"(?:^|,)gpu(?::([^:,(]+))?", gres)
    return frozenset(UNTYPED if model.isdigit() else model for model in found)

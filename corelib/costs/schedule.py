"""The wall time of jobs on several GPUs, by list scheduling: the ready job with the longest chain starts first.

Snakemake's greedy scheduler follows the same order, because the rules have the length of this chain as their priority.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from corelib.costs.device_time import CORE_SECONDS
from corelib.costs.forecast import Forecast
from corelib.costs.workload import FLOP_COSTS, NETWORKS, Costs, workload_of_job
from corelib.runs.run import Run
from corelib.runs.stage_registry import STAGES


@dataclass(frozen=True)
class Job:
    """A job of a schedule.

    Attributes:
        seconds: its duration in seconds.
        needs_gpu: whether it occupies a GPU; all other jobs start as soon as they are ready.
        after: the names of the jobs that must end before it starts; names that are no jobs count as done.
    """

    seconds: float
    needs_gpu: bool
    after: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """The course of some jobs.

    Attributes:
        seconds: wall time until the last job ends, in seconds.
        busy: share of this time during which the GPUs compute, from 0 to 1.
        chain: the names of the jobs of the longest chain, in order; no number of GPUs makes the wall time shorter.
        chain_seconds: duration of that chain in seconds.
    """

    seconds: float
    busy: float
    chain: list[str]
    chain_seconds: float


def jobs_of(found: Forecast, costs: Costs, start: float) -> dict[str, Job]:
    """The jobs of a forecast by name: a run's own name, or for a shard `NAME/NUMBER`.

    Args:
        found: the forecast.
        costs: seconds of a GPU for each unit of work.
        start: seconds that each submitted job takes besides its work; jobs beside Snakemake take no time.
    """
    jobs = {}
    for name, item in found.items.items():
        stage, run = STAGES[item.run.stage], item.run
        before = tuple(needed.name for needed in (*run.inputs.values(), *run.after.values()))
        if stage.shards is None:
            seconds = 0.0 if stage.runs_on == "snakemake" else start + sum(map(costs.of, item.parts))
            jobs[name] = Job(seconds, stage.runs_on == "gpu", before)
            continue
        shards = {f"{name}/{number}": work for number, work in enumerate(item.parts)}
        jobs |= {shard: Job(start + costs.of(work), True, before) for shard, work in shards.items()}
        jobs[name] = Job(0.0, False, (*shards, *before))
    return jobs


def chain_lengths_of_runs(runs: Mapping[str, Run], kind: str) -> dict[str, float]:
    """The length of the longest chain of runs that begins with each run, in core seconds or TFLOP.

    Args:
        runs: the runs by name.
        kind: the kind of their world; seconds of a CPU core are known for the miniature only.
    """
    costs, unit = (CORE_SECONDS, 1.0) if kind == "miniature" else (FLOP_COSTS, 1e12)
    lengths = {name: costs.of(workload_of_job(run, NETWORKS[kind])) / unit for name, run in runs.items()}
    after = {
        name: [needed.name for needed in (*run.inputs.values(), *run.after.values())] for name, run in runs.items()
    }
    return chain_lengths(lengths, after)


def chain_lengths(seconds: Mapping[str, float], after: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """The length of the longest chain that begins with each job, itself included.

    Args:
        seconds: the duration of each job, by name.
        after: the jobs for which each job waits; names that are not in `seconds` do not count.
    """
    order = [name for name in TopologicalSorter(after).static_order() if name in seconds]
    lengths: dict[str, float] = {}
    rest: dict[str, float] = defaultdict(float)
    for name in reversed(order):
        lengths[name] = seconds[name] + rest[name]
        for needed in after[name]:
            rest[needed] = max(rest[needed], lengths[name])
    return lengths


def simulate(jobs: Mapping[str, Job], gpus: int) -> Schedule:
    """Run the jobs on that many GPUs, and compute the wall time.

    Args:
        jobs: the jobs by name.
        gpus: number of GPUs, at least 1.
    """
    lengths = chain_lengths(
        {name: job.seconds for name, job in jobs.items()}, {name: job.after for name, job in jobs.items()}
    )
    waiting = {name: sum(needed in jobs for needed in dict.fromkeys(job.after)) for name, job in jobs.items()}
    dependents = defaultdict(list)
    for name, job in jobs.items():
        for needed in dict.fromkeys(job.after):
            dependents[needed].append(name)
    ready: list[tuple[float, str]] = []
    running: list[tuple[float, str]] = []
    free, now, busy = gpus, 0.0, 0.0

    def make_ready(name: str) -> None:
        if jobs[name].needs_gpu:
            heapq.heappush(ready, (-lengths[name], name))
        else:
            heapq.heappush(running, (now + jobs[name].seconds, name))

    for name, count in waiting.items():
        if count == 0:
            make_ready(name)
    while running or ready:
        while ready and free:
            _, name = heapq.heappop(ready)
            free -= 1
            busy += jobs[name].seconds
            heapq.heappush(running, (now + jobs[name].seconds, name))
        now, name = heapq.heappop(running)
        free += jobs[name].needs_gpu
        for dependent in dependents[name]:
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                make_ready(dependent)
    first = [name for name, job in jobs.items() if not any(needed in jobs for needed in job.after)]
    chain = _longest_chain(first, lengths, dependents)
    share = busy / (now * gpus) if now else 0.0
    return Schedule(now, share, chain, lengths[chain[0]] if chain else 0.0)


def _longest_chain(first: list[str], lengths: Mapping[str, float], dependents: Mapping[str, list[str]]) -> list[str]:
    """The jobs of the longest chain in order, which begins with one of the jobs in `first`."""
    chain: list[str] = []
    following = first
    while following:
        chain.append(max(following, key=lengths.__getitem__))
        following = dependents.get(chain[-1], [])
    return chain

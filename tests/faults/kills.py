"""SIGKILL at random moments of a job, and inside each of its writes."""

from __future__ import annotations

import random
from typing import Any

import torch
from attempts import Job, Moment, Place, attempt, in_a_process
from outcomes import LOST, SAME, UNCLEAR, Bench, Outcome

REPEAT_PROBABILITY = 0.35
"""Probability that a rerun is killed as well."""

MAX_DELAY = 3e-3
"""Maximum number of seconds between the beginning of an event and the kill."""


def kill_at_random(bench: Bench, job: Job, number: int, parts: int, seed: int) -> Outcome:
    """Kill a job in the `number`-th of `parts` equal parts of its time, and perhaps its reruns; then let it finish."""
    draws = random.Random(f"random {seed} {job.label} {number}")
    seconds = bench.undisturbed[job.manifest].seconds
    share = (number + draws.random()) / parts
    moments = [Moment(share * seconds)]
    while draws.random() < REPEAT_PROBABILITY:
        moments.append(Moment(draws.random() * seconds))
    return _kill(bench, job, moments, "at random")


def kill_in_a_write(bench: Bench, job: Job, event: int, seed: int) -> Outcome:
    """Kill a job before a disk operation, or shortly after its beginning; then let it finish."""
    draws = random.Random(f"write {seed} {job.label} {event}")
    first = Moment(0.0 if event % 2 else draws.random() * MAX_DELAY, event)
    moments = [first] if draws.random() < 0.7 else [first, Moment(draws.random() * MAX_DELAY, event // 2)]
    return _kill(bench, job, moments, "in a write")


def _kill(bench: Bench, job: Job, moments: list[Moment], kind: str) -> Outcome:
    kills = inside = 0
    with bench.place(job) as place:
        saved: dict[str, Any] = {}
        for moment in moments:
            for factor in (1.0, 0.8, 0.6, 0.4):  # if the job is faster this time, kill another attempt earlier
                if factor < 1 and not kills:
                    _start_afresh(bench, job, place)
                ended = attempt(job, place, Moment(moment.seconds * factor, moment.event))
                if ended.killed or kills or ended.status != 0:
                    break
            if not ended.killed:
                break
            kills += 1
            inside += place.is_inside_a_write()
            before, saved = saved, in_a_process(lambda: saved_in(place))
            if lost := _lost(before, saved):
                return Outcome(job.label, kind, LOST, kills, inside, lost)
        else:
            ended = attempt(job, place)
        if ended.status != 0:
            return Outcome(job.label, kind, UNCLEAR, kills, inside, place.log[-600:] or place.terminal[-600:])
        result, detail = bench.compare(job, place)
        if result == SAME and (lost := _repeated(saved, in_a_process(lambda: saved_in(place)), place)):
            result, detail = LOST, lost
        return Outcome(job.label, kind, result, kills, inside, detail)


def _start_afresh(bench: Bench, job: Job, place: Place) -> None:
    """Reset a job that ended before it was killed."""
    fresh = Place(bench.reference, job, place.folder.with_name("fresh"))
    place.folder.rename(place.folder.with_name(f"ended-{len(list(place.folder.parent.iterdir()))}"))
    fresh.folder.rename(place.folder)


def saved_in(place: Place) -> dict[str, Any]:
    """The work that a killed job has saved for the next one: training steps, whole batches, or the complete run."""
    run = place.folder / place.job.specification.parent
    found: dict[str, Any] = {"step": None, "batches": {}, "complete": False}
    if (path := run / "checkpoint.pt").exists():
        state = torch.load(path, weights_only=True)["state"]  # raises if the file is incomplete
        found["step"] = state.get("step", state.get("done"))
    for record in sorted((run / "batches").glob("*.json")) if place.job.shard else []:
        if not record.name.startswith("."):
            found["batches"][record.name] = [record.stat().st_ino, record.stat().st_mtime_ns]
    provenance = (place.folder / place.job.manifest).with_suffix(".provenance.json")
    keeps_its_files = len(place.job.outputs) == 1 and place.job.shard is None  # Snakemake deletes the files of a table
    found["complete"] = provenance.exists() and keeps_its_files
    return found


def _lost(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    """Describe saved work that a killed attempt has lost; empty if there is none."""
    if after is None:
        return "checkpoint.pt is not readable after a kill"
    if before.get("step") and (after["step"] or 0) < before["step"] and not after["complete"]:
        return f"saved at step {before['step']}, but after the next kill only at {after['step']}"
    for name, record in before.get("batches", {}).items():
        if after["batches"].get(name) != record:
            return f"batch {name} was complete, but was sampled again"
    return ""


def _repeated(saved: dict[str, Any], after: dict[str, Any], place: Place) -> str:
    """Describe saved work that the successful attempt has repeated; empty if there is none."""
    log = place.log
    if saved.get("complete"):
        return "" if "already complete (by" in log else "the run was complete, but was computed again"
    if saved.get("step") and f"resuming from step {saved['step']}" not in log:
        return f"saved at step {saved['step']}, but not resumed from there"
    return _lost({"batches": saved.get("batches", {})}, after)


def events_to_kill_at(events: list[str], max_count: int) -> list[int]:
    """Numbers of events, spread evenly over those of an undisturbed attempt."""
    if len(events) <= max_count:
        return list(range(len(events)))
    return sorted({round(number * (len(events) - 1) / (max_count - 1)) for number in range(max_count)})

"""SIGKILL at random moments of a job, and inside each of its writes."""

from __future__ import annotations

import random
from typing import Any

import torch
from attempts import At, Job, Place, attempt, in_a_process
from outcomes import LOST, SAME, UNCLEAR, Bench, Outcome

AGAIN = 0.35
"""Probability that a rerun is killed as well."""

INSIDE = 3e-3
"""Maximum number of seconds between the beginning of an event and the kill."""


def kill_at_random(bench: Bench, job: Job, number: int, of: int, seed: int) -> Outcome:
    """Kill a job in the `number`-th of some equal parts of its time, and perhaps its reruns; then let it end."""
    draws = random.Random(f"random {seed} {job.label} {number}")
    seconds = bench.undisturbed[job.manifest].seconds
    share = (number + draws.random()) / of
    moments = [At(share * seconds)]
    while draws.random() < AGAIN:
        moments.append(At(draws.random() * seconds))
    return _kill(bench, job, moments, "at random")


def kill_in_a_write(bench: Bench, job: Job, event: int, seed: int) -> Outcome:
    """Kill a job before an operation on the disk, or shortly after its beginning; then let it end."""
    draws = random.Random(f"write {seed} {job.label} {event}")
    first = At(0.0 if event % 2 else draws.random() * INSIDE, event)
    moments = [first] if draws.random() < 0.7 else [first, At(draws.random() * INSIDE, event // 2)]
    return _kill(bench, job, moments, "in a write")


def _kill(bench: Bench, job: Job, moments: list[At], kind: str) -> Outcome:
    kills = inside = 0
    with bench.place(job) as place:
        saved: dict[str, Any] = {}
        for moment in moments:
            for hurry in (1.0, 0.8, 0.6, 0.4):  # a job that is faster this time is killed in another attempt
                if hurry < 1 and not kills:
                    _start_afresh(bench, job, place)
                ended = attempt(job, place, At(moment.seconds * hurry, moment.event))
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
        said, detail = bench.compared(job, place)
        if said == SAME and (lost := _not_taken_up(saved, in_a_process(lambda: saved_in(place)), place)):
            said, detail = LOST, lost
        return Outcome(job.label, kind, said, kills, inside, detail)


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
        state = torch.load(path, weights_only=True)["state"]  # whole, or this raises and nothing is found
        found["step"] = state.get("step", state.get("done"))
    for record in sorted((run / "batches").glob("*.json")) if place.job.shard else []:
        if not record.name.startswith("."):
            found["batches"][record.name] = [record.stat().st_ino, record.stat().st_mtime_ns]
    provenance = (place.folder / place.job.manifest).with_suffix(".provenance.json")
    keeps_its_files = len(place.job.outputs) == 1 and place.job.shard is None  # Snakemake deletes a table's
    found["complete"] = provenance.exists() and keeps_its_files
    return found


def _lost(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    """The saved work of an earlier attempt that a killed attempt has lost."""
    if after is None:
        return "checkpoint.pt is not readable after a kill"
    if before.get("step") and (after["step"] or 0) < before["step"] and not after["complete"]:
        return f"saved at step {before['step']}, after the next kill at {after['step']}"
    for name, record in before.get("batches", {}).items():
        if after["batches"].get(name) != record:
            return f"batch {name} was whole, and was made again"
    return ""


def _not_taken_up(saved: dict[str, Any], after: dict[str, Any], place: Place) -> str:
    """The saved work that the successful attempt has repeated."""
    log = place.log
    if saved.get("complete"):
        return "" if "already complete (by" in log else "the run was complete, and was made again"
    if saved.get("step") and f"resuming from step {saved['step']}" not in log:
        return f"saved at step {saved['step']}, and not gone on from there"
    return _lost({"batches": saved.get("batches", {})}, after)


def events_to_kill_at(events: list[str], most: int) -> list[int]:
    """Numbers of events, spread evenly over an undisturbed attempt's."""
    if len(events) <= most:
        return list(range(len(events)))
    return sorted({round(number * (len(events) - 1) / (most - 1)) for number in range(most)})

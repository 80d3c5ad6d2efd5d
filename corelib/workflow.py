"""What the Snakefile asks: which files a job needs, and whether a published table is still what its study says.

A job's specification is looked up in the plans of the studies that were asked for, and otherwise in its own folder, so
a job that is already queued does not notice that the configuration has been edited. Nothing is read, planned or
checked before a target asks for it.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import snakemake.logging

from corelib.addresses import RUNS, SPECIFICATION, Run, read_specification
from corelib.artefacts import MANIFEST, NO_ROOM, read_json, write_json
from corelib.asking import refusal
from corelib.effort import STAGES, Specification, minutes_of, read
from corelib.errors import ArtefactError, ConfigurationError, UserError
from corelib.forecast import Forecast, forecast
from corelib.gathering import SHARDS, batches_of
from corelib.leases import Lease, Taken
from corelib.plan import Plan
from corelib.preflight import check_room, differing_versions, existing_part, making_assets
from corelib.running import BOOKKEEPING, CONTROLLER, running_jobs
from corelib.settings.sampling import SamplesStage
from corelib.settings.unlearn_canvas import AdoptionStage
from corelib.site import Site, check_site_file
from corelib.slurm import cancel_waiting_jobs
from corelib.studies import PAPER, load_study
from corelib.targets import RESULTS, is_current, plan_of, product_at, study_at, targets_of
from corelib.terminal import ends_of
from corelib.worlds.asset_lock import place_of
from corelib.worlds.presence import ADVICE, absences

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def _in_one_sentence(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Let Snakemake stop with a user error's sentence instead of a traceback through its own code.

    A place without room is the user's to mend as well.
    """

    @functools.wraps(function)
    def guarded(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _stop(str(error))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _stop(f"{error.filename}: {error.strerror}, expected a place with room to write.")

    return guarded


@functools.cache  # Snakemake may ask again while it is already stopping; one sentence is enough
def _say(sentence: str) -> None:
    print(f"\nError: {sentence}\n", file=sys.stderr, flush=True)


def _stop(sentence: str) -> NoReturn:
    _say(sentence)
    raise SystemExit(1)


def _prepare_scripts(repository: Path) -> None:
    """Scripts run in processes of their own, on this machine or on a node that parses the Snakefile again."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(repository), *(path for path in others if path)])
    # diffusers asks for GPUs as soon as it is imported. By its other way of counting, torch would start CUDA then, and
    # a job could no longer choose among the machine's GPUs.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"  # every file that a job needs is here; `make assets` fetches those that are not


def _correct_sacct(repository: Path) -> None:
    """Where there is a `sacct`, put the one that says `CANCELLED` of a cancelled job before it, on PATH."""
    if shutil.which("sacct") is not None:
        os.environ["PATH"] = os.pathsep.join([str(repository / "slurm/bin"), os.environ["PATH"]])


@_in_one_sentence
def _site(repository: Path, values: Mapping[str, Any]) -> Site:
    if values:
        check_site_file(repository)
    return Site.of(values)


class Catalogue:
    """Every run that the targets of this invocation may need.

    Args:
        repository: the folder of the Snakefile.
        ancient: Snakemake's flag for inputs whose age does not matter; all addressed inputs carry it.
        site: Snakemake's own configuration, where a cluster's profile says what the cluster calls its things.
    """

    def __init__(self, repository: Path, ancient: Callable[[str], str], site: Mapping[str, Any]) -> None:
        self.repository = repository
        self.configuration = repository / "config"
        self.ancient = ancient
        self.site = _site(repository, site)
        _prepare_scripts(repository)
        self._planned: dict[str, Run] = {}
        self._asked: dict[str, dict[str, Run]] = {}
        self._places: set[Path] = {RUNS}

    # For addressed runs

    def inputs_of(self, stage: str) -> Callable[[Any], list[str]]:
        """The input function of a stage's rule: the manifests that the run named by `{run}` builds on or waits for."""

        @_in_one_sentence
        def inputs(wildcards: Any) -> list[str]:
            specification = self.specification(stage, wildcards.run)
            names = {*specification["builds_on"].values(), *specification["after"].values()}
            return [self.ancient(str(RUNS / name / MANIFEST)) for name in sorted(names)]

        return inputs

    def threads_of(self, stage: str) -> Callable[[Any], int]:
        """The threads function of a stage's rule."""

        @_in_one_sentence
        def threads(wildcards: Any) -> int:
            return int(self.specification(stage, wildcards.run)["threads"])

        return threads

    def with_gpu(self, stage: str) -> dict[str, Any]:
        """The resources of a stage's rule besides its GPU: what the site calls things, and how long it may take."""
        return {**self.site.with_gpu, **self._run_time(stage)}

    def without_gpu(self, stage: str) -> dict[str, Any]:
        """The resources of the rule of a stage that needs no GPU."""
        return {**self.site.without_gpu, **self._run_time(stage)}

    def _run_time(self, stage: str) -> dict[str, Callable[[Any, int], int]]:
        seconds = self.site.seconds
        if seconds is None or stage not in STAGES:
            return {}

        @_in_one_sentence
        def runtime(wildcards: Any, attempt: int) -> int:
            specification = self.specification(stage, wildcards.run)

            def below(role: str) -> Specification:
                return self.specification(*specification["builds_on"][role].split("/"))

            return minutes_of(specification, below, seconds, attempt, self.site.longest)

        return {"runtime": runtime}

    @_in_one_sentence
    def shards_of(self, wildcards: Any) -> list[str]:
        """The manifests of the shards that together are a run's samples: whole batches each."""
        specification = self.specification("samples", wildcards.run)
        batches = batches_of(read(SamplesStage, specification))
        shards = math.ceil(len(batches) / specification["execution"]["batches_per_shard"])
        folder = RUNS / "samples" / wildcards.run / SHARDS
        return [self.ancient(str(folder / f"{shard:04d}-of-{shards:04d}.json")) for shard in range(shards)]

    def specification(self, stage: str, run: str) -> dict[str, Any]:
        """The specification of a run: as planned now, or as written when it was planned."""
        name = f"{stage}/{run}"
        if name in self._planned:
            return self._planned[name].specification
        path = RUNS / name / SPECIFICATION
        if not path.exists():
            raise ConfigurationError(
                f"{path}: there is no such run; runs come from tables and figures, so ask for one of those "
                "(for instance results/tiny/table1.csv)."
            )
        specification = read_specification(path)
        if not run.endswith(found := specification["digest"][:12]):
            raise ArtefactError(f"{path}: its content does not belong to its address (digest {found}); delete it.")
        return specification

    @_in_one_sentence
    def begin(self) -> None:
        """Before the first job starts: check that there is room for results, and write what the jobs will read.

        Every planned run gets its specification, unless it has it already. Of two invocations in one folder the later
        one is turned away: Snakemake would let both run the same job.
        """
        self._be_the_only_one()
        _correct_sacct(self.repository)
        snakemake.logging.show_logs = ends_of  # instead of whole logs, and Slurm's behind each of them
        cancel_waiting_jobs(Path.cwd())
        for orphan in running_jobs():
            if orphan.lives:
                print(
                    f"Still computing since an earlier invocation, and not computed twice:\n{orphan}", file=sys.stderr
                )
        for place in sorted(self._places):
            if not os.access(existing_part(place), os.W_OK):
                _stop(f"{place}: cannot be written to, expected a writable folder.")
        forecasts = [forecast(asked, kind) for kind, asked in self._asked.items()]
        self._check_assets(forecasts)
        self._check_room_and_versions(forecasts)
        for run in self._planned.values():
            _date_back(run.folder)
            path = run.folder / SPECIFICATION
            try:
                if _read_or_none(path) != run.specification:
                    write_json(path, run.specification)
                for name, target in run.places.items():
                    _link(run.folder / name, Path(target))
            except OSError as error:
                _stop(f"{error.filename or path}: cannot be written ({error.strerror}), expected a writable folder.")

    def _check_assets(self, forecasts: list[Forecast]) -> None:
        """All that is missing, in one sentence; what is there is read by the jobs that take it into use.

        What is made already needs no asset.
        """
        left = [item.run for found in forecasts for item in found.items.values() if not item.run.manifest.exists()]
        read = {needed.name: needed for run in left for needed in (run, *run.inputs.values())}
        faults = [fault for run in read.values() for fault in _absences(run)]
        if faults:
            said = "; ".join(fault.removesuffix(ADVICE) for fault in faults)
            others = sorted({study_at(Path(path).parent) for asked in self._asked.values() for path in asked} - {PAPER})
            making = making_assets(others[0] if others else PAPER)
            _stop(
                f"assets of the paper's world: {said}; {making} fetches what it can of what is missing, and locks "
                "what is there (see `world.assets` of the study)."
            )

    def _check_room_and_versions(self, forecasts: list[Forecast]) -> None:
        for said in differing_versions(self.repository):
            print(said, file=sys.stderr)
        try:
            check_room(*forecasts)
        except UserError as error:
            _stop(str(error))

    def _be_the_only_one(self) -> None:
        lease = Lease(Path.cwd() / CONTROLLER)
        try:
            lease.take(patience=0)
        except Taken as other:
            _stop(f"{Path.cwd()}: Snakemake already runs here, {other}; wait for it, or use a clone of your own.")
        atexit.register(lease.give_back)

    # For tables and figures at stable names

    @_in_one_sentence
    def inputs_of_product(self, wildcards: Any) -> list[str]:
        """What a table or figure is made from, and a request that is newer than it if it has to be made again."""
        run = self._product(wildcards.place, wildcards.product)
        manifests = sorted({str(below.manifest) for below in run.inputs.values()})
        request, is_new = _request(Path(wildcards.place), wildcards.product, run)
        return [self.ancient(path) for path in manifests] + [str(request) if is_new else self.ancient(str(request))]

    @_in_one_sentence
    def files_of_paper(self, _: Any) -> list[str]:
        """Every table and figure of the paper's own study."""
        return targets_of(PAPER, load_study(PAPER, self.configuration))

    @_in_one_sentence
    def refuse(self, wildcards: Any) -> NoReturn:
        """The input function of the rule for targets in `results/` that nothing makes."""
        raise refusal(f"{RESULTS}{wildcards.rest}", self.configuration)

    @_in_one_sentence
    def specification_of_product(self, wildcards: Any) -> str:
        """The path of the specification of a table or figure."""
        return str(self._product(wildcards.place, wildcards.product).folder / SPECIFICATION)

    def _product(self, place: str, product: str) -> Run:
        run = product_at(Path(place), product, lambda study: self._plan(study).products())
        for name, needed in run.with_all_inputs().items():
            self._planned.setdefault(name, needed)  # of two studies that cut equal work differently, the first decides
        self._places.add(Path(place))
        kind = self._plan(study_at(Path(place))).study.world.kind
        self._asked.setdefault(kind, {})[f"{place}/{product}"] = run
        return run

    @functools.cache  # noqa: B019 (one catalogue per process)
    def _plan(self, study: str) -> Plan:
        return plan_of(study, self.configuration)


def _request(place: Path, product: str, run: Run) -> tuple[Path, bool]:
    """The input that decides whether a product at a stable name is made again, and whether it has to be.

    Snakemake knows only ages, and forgets everything else with its metadata. A product's own manifest says which run
    it is and vouches for its bytes; when that is no longer true, the request becomes newer than the product.
    """
    # Snakemake remembers which folders it has looked into, parents included unless the path is absolute: a request has
    # a folder of its own, so that it is seen however late it is made.
    request, manifest = Path.cwd() / BOOKKEEPING / place / product / "request", place / f"{product}.json"
    if is_current(manifest, run):
        _touch(request, only_if_missing=True)
        return request, False
    now = time.time()
    for path in place.glob(f"{product}.*"):
        if path.stat().st_mtime >= now:  # made before the clock was set back; a request must not be of the future
            with suppress(OSError):
                os.utime(path, (now - 1, now - 1))
    newest = max((path.stat().st_mtime for path in place.glob(f"{product}.*")), default=0.0)
    _touch(request, at_least=newest + 0.01)
    return request, True


def _absences(run: Run) -> Iterator[str]:
    """What of the user's own files that a run takes into use is not there, or not locked."""
    if isinstance(run.settings, AdoptionStage):
        yield from absences(run.settings, {name: Path(place_of(name, run.places)) for name in run.settings.sha256})


def _read_or_none(path: Path) -> Any:
    try:
        return read_json(path)
    except ArtefactError:
        return None


def _link(link: Path, place: Path) -> None:
    """Make a link to a place of the user's, or lead it there from where it led before."""
    target = Path(os.path.relpath(place.absolute(), link.parent.absolute()))
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _date_back(folder: Path) -> None:
    """Let no manifest of a run be of the future, as it is once the clock was set back.

    Snakemake would take a result that is older than what it was made from for a sign of clocks that differ.
    """
    now = time.time()
    for path in (folder / MANIFEST, *folder.glob(f"{SHARDS}/*.json")):
        if path.exists() and path.stat().st_mtime > now:
            os.utime(path, (now, now))


def _touch(path: Path, only_if_missing: bool = False, at_least: float = 0.0) -> None:
    if only_if_missing and path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    moment = max(time.time(), at_least)
    os.utime(path, (moment, moment))

"""The catalogue of runs: tells the Snakefile which files a job needs, and whether a product must be built again.

The specification of a job comes from the plans of the requested studies, or else from the run's folder. A job that is
already queued is therefore not affected by edits of the configuration. Nothing is read, planned or checked before a
target requires it.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from snakemake.logging import logger
from snakemake_interface_common.exceptions import WorkflowError

from corelib.cluster.request_checks import Request, check_requests
from corelib.cluster.site import SITE_FILE, Site, check_site_file
from corelib.cluster.slurm_queue import cancel_waiting_jobs, queued_jobs, wrap_slurm_commands
from corelib.costs.disk_space import check_disk_space
from corelib.costs.forecast import Forecast, forecast
from corelib.costs.job_requests import requested_memory_mb, requested_minutes
from corelib.costs.schedule import chain_lengths_of_runs
from corelib.errors import ArtefactError, ConfigurationError, UserError
from corelib.files.paths import why_not_writable
from corelib.files.sealed_json import read_or_none, write_record
from corelib.files.shell_paths import cluster_path_fault, path_faults
from corelib.maintenance.missing_places import downloaded_places, missing_places
from corelib.runs.active_jobs import LOG_FOLDER, find_active_jobs
from corelib.runs.environment import prepare_environment, remove_user_packages
from corelib.runs.gpu import max_jobs_on_gpus
from corelib.runs.layout import MANIFEST, RESULTS, RUNS, SHARDS, SPECIFICATION
from corelib.runs.lease import Lease, LeaseTaken
from corelib.runs.pins import differing_versions
from corelib.runs.requests import (
    CONTROLLER_LEASE,
    create_request,
    is_folder_free,
    record_wanted,
    remove_old_requests,
    wait_for_writer,
)
from corelib.runs.run import Run
from corelib.runs.specification import Specification, read_specification
from corelib.runs.stage_registry import settings_in
from corelib.sampling.grid import shard_manifests
from corelib.settings.assets import AdoptionStage
from corelib.settings.given_models import GivenModelStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.study.loading import load_plan, load_study
from corelib.study.plan import Plan
from corelib.study.schema import Study
from corelib.study.staleness import Assessment, assess, product_fault
from corelib.study.study_files import OWN, PAPER, configuration_folder, is_study, study_file, workflow_folder
from corelib.study.targets import assets_command, is_summary, product_at, study_at, targets_of
from corelib.workflow import warm_server
from corelib.workflow.brief_progress import make_brief
from corelib.workflow.endings import explain_forcing, explain_interruption
from corelib.workflow.failed_logs import install_log_ends
from corelib.workflow.hyperparameters import check_no_hyperparameters
from corelib.workflow.messages import stop, stop_on_user_error
from corelib.workflow.unknown_target import overview, unknown_target_error
from corelib.worlds.assets.asset_lock import asset_path
from corelib.worlds.assets.presence import MAKE_ASSETS_ADVICE, missing_assets

ALL = "all"
"""The rule for all products of the paper's study; the default target."""


def _prepare_environment(repository: Path) -> None:
    """Prepare the environment of this process, which the processes of scripts inherit on this machine.

    On a node of a cluster, Snakemake parses the Snakefile again, which calls this there.
    """
    remove_user_packages(repository)
    prepare_environment(os.environ, repository)


@stop_on_user_error
def _site(
    repository: Path, configuration: Path, config: Mapping[str, Any], is_module: bool, files: Iterable[Path]
) -> Site:
    """The values of the cluster. As a module, the workflow may also be given the content of `config/config.yaml`.

    Raises `ConfigurationError` if it is given a study that is in another file, since studies are read from files.
    """
    values = dict(config)
    if is_module and is_study(config):
        if study_file(PAPER, configuration).parent != OWN:
            raise ConfigurationError(
                "config of the module: it contains a whole study; write that to the file "
                f"{OWN}/config.yaml of this folder."
            )
        values = {key: value for key, value in config.items() if key not in Study.model_fields}
    if values:
        check_site_file(repository)
        check_no_hyperparameters(values, [file for file in files if file.name != Path(SITE_FILE).name])
    return Site.of(values)


@stop_on_user_error
def _check_places(repository: Path) -> None:
    for fault in path_faults(Path(sys.executable), repository):
        raise ConfigurationError(f"{fault}.")
    if unwritable := why_not_writable(Path.cwd() / ".snakemake"):
        raise ConfigurationError(f"{unwritable}; Snakemake stores its own files in its working directory.")


class Catalogue:
    """Every run that the targets of this invocation may need.

    Args:
        repository: the folder of the Snakefile.
        ancient: Snakemake's flag for inputs whose modification time is ignored; all addressed inputs have it.
        workflow: Snakemake's workflow object, which has the targets of this invocation.
        site: Snakemake's own configuration, with the site values from the profile of a cluster.

    Attributes:
        is_module: whether another workflow uses this one.
    """

    def __init__(self, repository: Path, ancient: Callable[[str], str], workflow: Any, site: Mapping[str, Any]) -> None:
        self.repository = repository
        self.configuration = configuration_folder()
        self.is_module = not workflow.modifier.is_main_snakefile()
        self.ancient = ancient
        _check_places(repository)
        self.site = _site(repository, self.configuration, site, self.is_module, workflow.config_settings.configfiles)
        _prepare_environment(repository)
        self._workflow = workflow
        self._has_hooks = False
        self._check_prefix()
        self._planned: dict[str, Run] = {}
        self._requested: dict[str, dict[str, Run]] = {}  # products by path, by kind of world
        self._folders: set[Path] = {RUNS, LOG_FOLDER}
        self._judged: set[Path] = set()
        self._limit_jobs()

    def _limit_jobs(self) -> None:
        """Limit the number of concurrent jobs: on a cluster to the limit of the site, on a machine to its GPUs."""
        if not self._workflow.is_main_process or self._workflow.dryrun:
            return
        if self._workflow.non_local_exec:
            if self.site.jobs is not None:
                self._workflow.register_resource("_nodes", min(self.site.jobs, self._workflow.nodes))
        elif "gpu" not in self._workflow.global_resources and (gpus := max_jobs_on_gpus()):
            self._workflow.register_resource("gpu", gpus)

    # Use as a module of another workflow

    @stop_on_user_error
    def _check_prefix(self) -> None:
        """Raise `ConfigurationError` if the module has a prefix.

        Snakemake adds a prefix only to the paths in rules, not to those in specifications and scripts.
        """
        path = str(self._workflow.modifier.path_modifier.replace_prefix(f"{RUNS}/"))
        if path != f"{RUNS}/":
            raise ConfigurationError(
                f"{self.repository / 'Snakefile'}: the module's prefix changes {RUNS}/ into {path}, expected no prefix "
                "and no replace_prefix; for results elsewhere, run Snakemake there (--directory)."
            )

    def _add_hooks(self) -> None:
        """Add `begin` and `end` to the hooks of the main workflow: Snakemake calls only the main Snakefile's hooks."""
        if not self.is_module or self._has_hooks:
            return
        self._has_hooks = True
        main_onstart, main_onsuccess = self._workflow._onstart, self._workflow._onsuccess

        def start(log: Any) -> None:
            self.begin()
            main_onstart(log)

        def success(log: Any) -> None:
            self.end()
            main_onsuccess(log)

        self._workflow._onstart, self._workflow._onsuccess = start, success

    # Addressed runs

    def inputs_of(self, stage: str) -> Callable[[Any], list[str]]:
        """The input function of a stage's rule: the manifests of the runs that the run `{run}` builds on or waits for.

        Manifests are `ancient` unless they are rebuilt in this invocation: then the jobs that read them run as well. A
        stale run, which has a manifest but must be rebuilt, has a request as a further input.
        """

        @stop_on_user_error
        def inputs(wildcards: Any) -> list[str]:
            run = self._run(stage, wildcards.run)
            names = sorted({needed.name for needed in (*run.inputs.values(), *run.after.values())})
            return [*self._manifests(names), *self._request_for(RUNS / stage / wildcards.run, wildcards)]

        return inputs

    def _manifests(self, names: list[str]) -> list[str]:
        stale = self._assessment.stale
        return [self._input(f"{RUNS}/{name}/{MANIFEST}", name in stale) for name in names]

    def _request_for(self, folder: Path, wildcards: Any) -> list[str]:
        """A request, if the run in a folder, or the shard in the wildcards, must be rebuilt."""
        manifest = folder / MANIFEST
        is_stale = folder.relative_to(RUNS).as_posix() in self._assessment.stale
        if hasattr(wildcards, "shard"):
            manifest = folder / SHARDS / f"{wildcards.shard}-of-{wildcards.shards}.json"
            is_stale = manifest in self._assessment.shards
        return [str(create_request(manifest, [manifest]))] if is_stale else []

    @functools.cached_property
    def _assessment(self) -> Assessment:
        """The products, runs and shards that must be built for the targets of this invocation.

        Empty in a process that runs a single job for the main Snakemake process.
        """
        self._add_hooks()
        if not self._workflow.is_main_process:
            return Assessment()
        products, runs = dict[Path, Run](), list[SpecifiedRun]()
        targets = [*(self._workflow.dag_settings.targets or [ALL])]
        for target in sorted(targets, key=is_summary):
            with suppress(UserError):  # the rule of that target reports the error
                if target == ALL and self.is_module:  # a rule of the main workflow
                    continue
                if target == ALL:
                    names = sorted(self._plan(PAPER).products(), key=is_summary)
                    products |= dict(self._product(str(RESULTS), name) for name in names)
                    continue
                path = Path(os.path.relpath(target))
                if path.parts[0] == RESULTS.name:
                    products |= [self._product(str(path.parent), path.name.split(".")[0])]
                elif path.parts[0] == RUNS.name and len(path.parts) > 3:
                    runs.append(SpecifiedRun(self, *path.parts[1:3]))
        for manifest, run in products.items():
            self._prepare_to_judge(manifest, run)
        assessment = assess(products, runs)
        self._restore_specifications(products, assessment)
        return assessment

    def _prepare_to_judge(self, manifest: Path, run: Run) -> None:
        """Make sure that no other job writes a product while it is judged."""
        self._judged.add(manifest)
        if is_folder_free():
            record_wanted(manifest, run.digest)
            wait_for_writer(manifest)

    def _restore_specifications(self, products: Mapping[Path, Run], assessment: Assessment) -> None:
        """Write the missing specifications of products that are up to date.

        `begin` writes those of all others; Snakemake does not call it if there is nothing to be done.
        """
        if self._workflow.dryrun or not is_folder_free():
            return
        for manifest, run in products.items():
            if manifest not in assessment.products:
                with suppress(OSError):  # a folder that is not writable may still be read
                    _write_specification(run)

    def threads_of(self, stage: str) -> Callable[[Any], int]:
        """The threads function of a stage's rule."""

        @stop_on_user_error
        def threads(wildcards: Any) -> int:
            return self._run(stage, wildcards.run).threads

        return threads

    def priority_of(self, stage: str) -> Callable[[Any], int]:
        """The priority function of a stage's rule: the length of the longest chain of runs that begins with this run.

        Of the jobs that are ready, Snakemake starts those with the highest priority first. The unit is a second of a
        CPU core for the miniature, and a TFLOP otherwise; only the order matters. 0 for a run that no requested product
        needs.
        """

        @stop_on_user_error
        def priority(wildcards: Any) -> int:
            return self._priorities.get(f"{stage}/{wildcards.run}", 0)

        return priority

    @functools.cached_property
    def _priorities(self) -> dict[str, int]:
        """The priority of each run; Snakemake asks for priorities when it knows all jobs."""
        priorities: dict[str, int] = {}
        for kind, products in self._requested.items():
            runs = {name: run for product in products.values() for name, run in product.with_all_inputs().items()}
            for name, length in chain_lengths_of_runs(runs, kind).items():
                priorities[name] = max(round(length), priorities.get(name, 0))
        return priorities

    def resources_of(self, stage: str) -> dict[str, Any]:
        """The resources of a stage's rule.

        Rules contain all resources of their jobs, because `--default-resources` on a command line replaces those of a
        profile.
        """

        def memory(wildcards: Any, attempt: int) -> int:
            return requested_memory_mb(stage, attempt, self.site.max_memory_mb)

        @stop_on_user_error
        def run_time(wildcards: Any, attempt: int) -> int:
            return requested_minutes(self._run(stage, wildcards.run), self.site.seconds, attempt, self.site.max_minutes)

        return {**self.site.resources_of(stage), "mem_mb": memory, "runtime": run_time}

    @stop_on_user_error
    def shards_of(self, wildcards: Any) -> list[str]:
        """The input function of the rule that gathers samples: the manifests of all shards, each of whole batches."""
        run = self._run("samples", wildcards.run)
        assert isinstance(run.settings, SamplesStage)
        folder = RUNS / "samples" / wildcards.run
        manifests = [folder / name for name in shard_manifests(run.settings, run.execution.batches_per_shard)]
        rebuilt = self._assessment.shards
        inputs = [self._input(str(manifest), manifest in rebuilt) for manifest in manifests]
        return [*inputs, *self._request_for(folder, wildcards)]

    def _input(self, manifest: str, is_rebuilt: bool) -> str:
        """An input file, `ancient` unless it is rebuilt in this invocation."""
        return manifest if is_rebuilt else self.ancient(manifest)

    def _run(self, stage: str, run: str) -> Run | SpecifiedRun:
        """A run as planned now, or as its specification describes it."""
        return self._planned.get(f"{stage}/{run}") or SpecifiedRun(self, stage, run)

    def specification(self, stage: str, run: str) -> Specification:
        """The specification of a run: from the present plan, or else from the run's folder.

        Raises `ConfigurationError` if there is no such run, and `ArtefactError` if its specification is damaged or does
        not belong to its address.
        """
        name = f"{stage}/{run}"
        if name in self._planned:
            return self._planned[name].specification
        path = RUNS / name / SPECIFICATION
        if not path.exists():
            raise ConfigurationError(
                f"{path}: there is no such run; runs are planned for tables and figures, so ask for one of those "
                "(for instance results/tiny/table1.csv)."
            )
        specification = read_specification(path)
        if not run.endswith(digest := specification.digest[:12]):
            raise ArtefactError(f"{path}: its content does not belong to its address (digest {digest}); delete it.")
        return specification

    @stop_on_user_error
    def begin(self) -> None:
        """Check disk space, assets, cluster and versions, and write specifications, before the first job starts.

        Writes the specification of every planned run that does not have it. If another invocation already runs in this
        folder, this one stops, because Snakemake would let both run the same job.
        """
        fault = cluster_path_fault(Path(self._workflow.main_snakefile)) if self._workflow.non_local_exec else None
        if fault:
            raise ConfigurationError(f"{fault}.")
        _lock_folder(Path.cwd())
        handlers = [*logger.handlers, *self._workflow.logger_manager.get_log_handlers()]
        explain_interruption(tuple(handlers))
        for manifest, run in self._products():
            record_wanted(manifest, run.digest)
        remove_old_requests()
        install_log_ends(handlers)
        cancel_waiting_jobs(Path.cwd())
        for orphan in find_active_jobs({job.number for job in queued_jobs(Path.cwd()) if not job.waits}):
            if orphan.lives:
                print(
                    f"Jobs of an earlier invocation are still running, and are not started twice:\n{orphan}",
                    file=sys.stderr,
                )
        for folder in sorted(self._folders):
            if fault := why_not_writable(folder):
                stop(f"{fault}.")
        found = {kind: forecast(products, kind, self._assessment) for kind, products in self._requested.items()}
        forecasts = list(found.values())
        make_brief(dict.fromkeys(handlers), found, None if self._workflow.non_local_exec else self._workflow.cores)
        self._check_assets(forecasts)
        self._check_cluster()
        self._check_room_and_versions(forecasts)
        for run in self._planned.values():
            _date_back(run.folder)
            try:
                _write_specification(run)
                for name, target in run.places.items():
                    _link(run.folder / name, Path(target))
            except OSError as error:
                stop(f"{error.filename or run.folder}: {error.strerror}; free space or correct the permissions.")
        self._start_warm()

    def _start_warm(self) -> None:
        """Let the jobs of this machine start as forks, if it has no GPU and the workflow has no commands of others."""
        rules = self._workflow.rules
        has_only_scripts = not self.is_module and all(rule.script or rule.norun for rule in rules)
        if self._workflow.non_local_exec or max_jobs_on_gpus() is not None or not has_only_scripts:
            return
        jobs = [job for job in self._workflow.dag.needrun_jobs() if job.rule.script]
        folder = self.repository / "workflow_scripts"
        warm_server.start([job.threads for job in jobs], [folder / Path(job.rule.script).name for job in jobs])

    def _give_up(self, sentence: str) -> None:
        """Stop Snakemake without cancelling its jobs."""
        self._workflow.scheduler.executor_error_callback(WorkflowError(sentence))

    @stop_on_user_error
    def end(self) -> None:
        """Check once more, after the last job, that the products are those of the study.

        Raises `ArtefactError` if one is not.
        """
        explain_forcing(self._workflow.dag_settings)
        if self._workflow.dag_settings.until or self._workflow.dag_settings.omit_from:
            return
        faults = [fault for manifest, run in self._products() if (fault := product_fault(manifest, run))]
        if faults:
            raise ArtefactError(
                f"{faults[0]}, although it has just been built; ask for the target again to rebuild it."
            )

    def _products(self) -> Iterator[tuple[Path, Run]]:
        for products in self._requested.values():
            for path, run in products.items():
                yield Path(f"{path}.json"), run

    def _check_assets(self, forecasts: list[Forecast]) -> None:
        """Stop if a run that must be built needs assets that are missing or not locked.

        The jobs that adopt assets check those that are present.
        """
        missing = [item.run for cost in forecasts for item in cost.items.values() if not item.run.manifest.exists()]
        needed = {run.name: run for missing_run in missing for run in (missing_run, *missing_run.inputs.values())}
        absent = {name: list(_absences(run)) for name, run in needed.items()}
        if any(absent.values()):
            is_world = any(absent[name] and isinstance(run.settings, AdoptionStage) for name, run in needed.items())
            studies = {study_at(path.parent) for path, _ in self._products()}
            nowhere = self._paths_to_nothing(studies)
            misspelt = {
                name: [nowhere[place] for place in needed[name].places.values() if place in nowhere] for name in absent
            }
            faults = [
                fault.removesuffix(MAKE_ASSETS_ADVICE)
                for name in absent
                if not misspelt[name]
                for fault in absent[name]
            ]
            reasons = [*dict.fromkeys(clause for clauses in misspelt.values() for clause in clauses)]
            if reasons:
                reasons.append("correct the path in the study, or put the files there")
            if faults:
                others = sorted(studies - {PAPER})
                reasons += [
                    *faults,
                    f"{assets_command(others[0] if others else PAPER)} downloads missing assets that have a source, "
                    "and locks those that are present (see `world.assets` and `models` of the study)",
                ]
            stop(f"{'assets' if is_world else 'models'} of the study: {'; '.join(reasons)}.")

    def _paths_to_nothing(self, studies: Iterable[str]) -> dict[str, str]:
        """A clause about each path of some studies at which there is nothing, and to which nothing is downloaded."""
        places: dict[str, str] = {}
        for study in studies:
            places |= self._plan(study).asset_places() | self._plan(study).given_models()
        return dict(missing_places(places, downloaded_places(workflow_folder(self.configuration))))

    def _check_cluster(self) -> None:
        """Stop if Slurm would never start a job; otherwise make Slurm's commands survive outages from now on."""
        if not self._workflow.non_local_exec:
            return
        jobs = [job for job in self._workflow.dag.needrun_jobs() if not job.is_local]
        requests = {Request.of(job.rule.name, job.resources, job.threads) for job in jobs}
        if faults := check_requests(sorted(requests, key=str), self.repository):
            stop(f"{'; '.join(faults)}.")
        wrap_slurm_commands(self.repository, self.site.outage * 60, self._give_up)

    def _check_room_and_versions(self, forecasts: list[Forecast]) -> None:
        for sentence in differing_versions(self.repository):
            print(sentence, file=sys.stderr)
        try:
            check_disk_space(*forecasts)
        except UserError as error:
            stop(str(error))

    # Tables and figures at stable names

    @stop_on_user_error
    def inputs_of_product(self, wildcards: Any) -> list[str]:
        """The input function of the rules of products: the manifests of inputs, and a request if it must be built."""
        assessment = self._assessment  # first, since a summary depends on the other products of this invocation
        manifest, run = self._product(wildcards.place, wildcards.product)
        if manifest not in self._judged:  # an input of a rule of the main workflow
            self._prepare_to_judge(manifest, run)
            assessment.add(assess({manifest: run}))
            self._restore_specifications({manifest: run}, assessment)
        outputs = manifest.parent.glob(f"{wildcards.product}.*")
        requests = [str(create_request(manifest, outputs))] if manifest in assessment.products else []
        return [*self._manifests(sorted({needed.name for needed in run.inputs.values()})), *requests]

    @stop_on_user_error
    def files_of_paper(self, _: Any) -> list[str]:
        """The input function of the rule `all`: all products of the paper's study.

        It is also the default target. Without a target, it prints the studies instead: hardly anybody wants to build
        everything by accident.
        """
        if self._workflow.is_main_process and not self._workflow.dag_settings.targets:
            stop(overview(self.configuration))
        return targets_of(PAPER, load_study(PAPER, self.configuration))

    @stop_on_user_error
    def refuse(self, wildcards: Any) -> NoReturn:
        """The input function of the rule for unknown targets in `results/`, which always raises."""
        raise unknown_target_error(f"{RESULTS}{wildcards.rest}", self.configuration)

    @stop_on_user_error
    def refuse_outside(self, wildcards: Any) -> NoReturn:
        """The input function of the rule for targets outside the folders of results, which always raises."""
        raise unknown_target_error(wildcards.target, self.configuration)

    @stop_on_user_error
    def specification_of_product(self, wildcards: Any) -> str:
        """The path of the specification of a table or figure."""
        _, run = self._product(wildcards.place, wildcards.product)
        return str(run.folder / SPECIFICATION)

    def _product(self, place: str, product: str) -> tuple[Path, Run]:
        """The path of a product's manifest, and its run."""
        run = product_at(Path(place), product, lambda study: self._plan(study).products(self._is_built_then))
        for name, needed in run.with_all_inputs().items():
            self._planned.setdefault(name, needed)  # if two studies divide equal work differently, the first decides
        self._folders.add(Path(place))
        kind = self._plan(study_at(Path(place))).study.world.kind
        self._requested.setdefault(kind, {})[f"{place}/{product}"] = run
        return Path(place, f"{product}.json"), run

    def _is_built_then(self, run: Run) -> bool:
        """Whether a run is built already, or will be for another product of this invocation."""
        return run.name in self._planned or run.manifest.exists()

    @functools.cache  # noqa: B019 (one catalogue per process)
    def _plan(self, study: str) -> Plan:
        return load_plan(study, self.configuration)


def _write_specification(run: Run) -> None:
    """Write the specification of a run, unless it is there."""
    path, specification = run.folder / SPECIFICATION, run.specification
    existing = read_or_none(read_specification, path)
    if existing is None or existing.seal != specification.seal:
        write_record(path, specification)


@functools.cache  # a workflow that uses this one as two modules has two catalogues
def _lock_folder(folder: Path) -> None:
    """Hold the lease of the folder until this process ends; stop if another Snakemake process holds it."""
    lease = Lease(folder / CONTROLLER_LEASE)
    try:
        lease.take(patience=0)
    except LeaseTaken as other:
        stop(f"{folder}: Snakemake already runs here, {other}; wait for it to end, or use your own clone.")
    atexit.register(lease.give_back)


class SpecifiedRun:
    """A run that is a target itself, as its specification describes it."""

    def __init__(self, catalogue: Catalogue, stage: str, run: str) -> None:
        specification = catalogue.specification(stage, run)
        self.name, self.stage, self.digest = f"{stage}/{run}", stage, specification.digest
        self.execution, self.threads = specification.execution, specification.threads
        self._catalogue, self._specification = catalogue, specification

    @functools.cached_property
    def settings(self) -> Section:
        """The settings of its stage. Raises `ArtefactError` if they do not fit this version of the code."""
        return settings_in(self._specification)

    @property
    def inputs(self) -> dict[str, SpecifiedRun]:
        """The runs that it builds on, by role."""
        return self._runs(self._specification.builds_on)

    @property
    def after(self) -> dict[str, SpecifiedRun]:
        """The runs that it waits for, by role."""
        return self._runs(self._specification.after)

    def _runs(self, names: Mapping[str, str]) -> dict[str, SpecifiedRun]:
        return {role: SpecifiedRun(self._catalogue, *name.split("/")) for role, name in names.items()}


def _absences(run: Run) -> Iterator[str]:
    """A sentence for each of the user's files that a run adopts and that is missing or not locked."""
    if isinstance(run.settings, AdoptionStage | GivenModelStage):
        yield from missing_assets(
            run.settings, {name: Path(asset_path(name, run.places)) for name in run.settings.sha256}
        )


def _link(link: Path, place: Path) -> None:
    """Create or update a link to a place of the user's.

    The link is relative, so that a clone can be moved with its runs. The target is relative to the real folder of the
    link, because `runs` may itself be a link to another disk.
    """
    if ".." in place.parts:  # the parent of a link's target is not the parent of the link
        place = place.parent.resolve() / place.name
    target = Path(os.path.relpath(place.absolute(), link.parent.resolve()))
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _date_back(folder: Path) -> None:
    """Set modification times of manifests that are in the future, as after the clock was set back, to the present.

    Snakemake stops if a result is older than its inputs, because clocks then seem to differ.
    """
    now = time.time()
    for path in (folder / MANIFEST, *folder.glob(f"{SHARDS}/*.json")):
        if path.exists() and path.stat().st_mtime > now:
            os.utime(path, (now, now))

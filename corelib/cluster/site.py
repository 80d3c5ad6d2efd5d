"""The values of a cluster, from Snakemake's configuration: those of `slurm/site.yaml`, or of `--config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, ValidationError

from corelib.cluster.slurm_submission import HYPHEN
from corelib.costs.device_time import Seconds
from corelib.errors import ConfigurationError
from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.runs.stage_registry import STAGES
from corelib.settings.section import Section
from corelib.study.wording import expected_one_of

SITE_FILE = "slurm/site.yaml"


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


EXPECTED_VALUES = {
    "jobs": "a number of jobs",
    "outage": "a number of minutes",
    "gpu_model": 'letters, digits, _, . and -, as in the column GRES of `sinfo -o "%P %G"`',
    "max_memory_mb": "a number of MB",
    "max_minutes": "a number of minutes",
    "seconds": f"a section with {', '.join(Seconds.model_fields)}",
}

Name = Annotated[str | None, BeforeValidator(_none_if_empty)]

GPUModel = Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None, BeforeValidator(_none_if_empty)]

DEFAULT_OUTAGE_MINUTES = 30
"""The default of `outage`, in minutes."""

TEXT_KEYS = ("account", "partition", "cpu_partition", "gpu_model", "constraint", "qos")
"""The keys whose values are text."""


class Site(Section):
    """Values that differ from cluster to cluster; None leaves the choice to Slurm.

    Attributes:
        account: account to which the hours are charged.
        partition: partition of jobs with a GPU.
        cpu_partition: partition of jobs without a GPU.
        gpu_model: Slurm's name of the GPU model.
        constraint: features that the nodes of jobs with a GPU must have.
        qos: quality of service.
        max_minutes: maximum run time that a job may request, in minutes; None if the cluster has no limit.
        max_memory_mb: maximum memory that a job may request, in MB; None if the nodes have no limit.
        jobs: maximum number of jobs that wait or run at a time; None leaves that to `--jobs`.
        outage: minutes for which Slurm may not answer before Snakemake gives up.
        seconds: time per unit of work on the GPUs; None if run times are not derived from the work.
    """

    account: Name = None
    partition: Name = None
    cpu_partition: Name = None
    gpu_model: GPUModel = None
    constraint: Name = None
    qos: Name = None
    max_minutes: PositiveInt | None = None
    max_memory_mb: PositiveInt | None = None
    jobs: PositiveInt | None = None
    outage: Annotated[
        PositiveInt, BeforeValidator(lambda value: DEFAULT_OUTAGE_MINUTES if value in (None, "") else value)
    ] = DEFAULT_OUTAGE_MINUTES
    seconds: Seconds | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Site:
        """The site that Snakemake's configuration describes, which is empty without a cluster profile.

        Raises `ConfigurationError` for an unknown key or an invalid value.
        """
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            if fault["type"] == "extra_forbidden":
                raise ConfigurationError(
                    f"{SITE_FILE} or --config: unknown key {key}, {expected_one_of(key, list(cls.model_fields))}; "
                    "set hyperparameters in a study, in config/studies/."
                ) from None
            if key in TEXT_KEYS and isinstance(fault["input"], int | float) and not isinstance(fault["input"], bool):
                raise ConfigurationError(
                    f"{SITE_FILE} or --config: {key} is the number {fault['input']}, expected text, since a number "
                    f'loses its leading zeros and underscores; put it in quotes: {key}: "..." in the file, '
                    f"--config '{key}=\"...\"' on the command line."
                ) from None
            value = "missing" if fault["type"] == "missing" else repr(fault["input"])
            expected = EXPECTED_VALUES.get(key, "a positive number" if key.startswith("seconds.") else "a name")
            raise ConfigurationError(f"{SITE_FILE} or --config: {key} is {value}, expected {expected}.") from None

    def resources_of(self, stage: str) -> dict[str, str | int]:
        """Resources of a job of a stage, by their names in Snakemake's Slurm executor."""
        if STAGES[stage].runs_on != "gpu":
            return _without_none(slurm_account=self.account, slurm_partition=self.cpu_partition, qos=self.qos)
        return {
            "gpu": 1,
            **_without_none(
                slurm_account=self.account,
                slurm_partition=self.partition,
                gpu_model=self.gpu_model and self.gpu_model.replace("-", HYPHEN),
                constraint=self.constraint,
                qos=self.qos,
            ),
        }


def check_site_file(repository: Path) -> None:
    """Raise `ConfigurationError` for values of `slurm/site.yaml` that YAML readers disagree about.

    Snakemake reads the file as YAML 1.1, in which an account `010` is 8. A repository may have no such file.
    """
    file = repository / SITE_FILE
    try:
        if file.exists():
            read_yaml(file)
    except UnreadableYaml as error:
        raise ConfigurationError(f"{error.location_in(SITE_FILE)}: not readable as YAML: {error}.") from None


def _without_none(**values: str | None) -> dict[str, str | int]:
    return {name: value for name, value in values.items() if value is not None}

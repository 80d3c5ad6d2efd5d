"""What a cluster calls its things, as Snakemake hands it over: the values of `slurm/site.yaml`, or of `--config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, ValidationError

from corelib.cluster.slurm_clients import HYPHEN
from corelib.costs.run_time import Seconds
from corelib.errors import ConfigurationError
from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.runs.stages import STAGES
from corelib.settings.section import Section

FILE = "slurm/site.yaml"


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


EXPECTED = {
    "jobs": "a number of jobs",
    "outage": "a number of minutes",
    "gpu_model": 'letters, digits, _, . and -, as in the column GRES of `sinfo -o "%P %G"`',
    "max_memory_mb": "a number of MB",
    "max_minutes": "a number of minutes",
    "seconds": f"a section with {', '.join(Seconds.model_fields)}",
}

Name = Annotated[str | None, BeforeValidator(_none_if_empty)]

GPUModel = Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None, BeforeValidator(_none_if_empty)]

OUTAGE = 30
"""Minutes."""

NAMES = ("account", "partition", "cpu_partition", "gpu_model", "constraint", "qos")
"""The keys whose values are text."""


class Site(Section):
    """Names that differ from cluster to cluster; None leaves the choice to Slurm.

    Attributes:
        account: what the hours are charged to.
        partition: for jobs with a GPU.
        cpu_partition: for jobs without one.
        gpu_model: as Slurm calls it.
        constraint: what the nodes of jobs with a GPU must have.
        qos: quality of service.
        max_minutes: the most minutes that a job may ask for; None where the cluster sets no limit.
        max_memory_mb: the most memory that a job may ask for; None where the nodes set no limit.
        jobs: how many jobs may be in the queue or run at a time; None leaves that to `--jobs`.
        outage: for how many minutes Slurm may give no answer before Snakemake gives up.
        seconds: how fast the GPUs are; None where no run times are asked for.
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
    outage: Annotated[PositiveInt, BeforeValidator(lambda value: OUTAGE if value in (None, "") else value)] = OUTAGE
    seconds: Seconds | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Site:
        """The site that Snakemake's configuration describes; without a cluster profile that is empty.

        Raises `ConfigurationError` with one sentence.
        """
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            if fault["type"] == "extra_forbidden":
                raise ConfigurationError(
                    f"{FILE} or --config: unknown key {key}, expected one of {', '.join(cls.model_fields)}; "
                    "hyperparameters are said in a study, in config/studies/."
                ) from None
            if key in NAMES and isinstance(fault["input"], int | float) and not isinstance(fault["input"], bool):
                raise ConfigurationError(
                    f"{FILE} or --config: {key} is the number {fault['input']}, expected text, since a number loses "
                    f'its leading zeros and underscores; put it in quotes: {key}: "..." in the file, '
                    f"--config '{key}=\"...\"' on the command line."
                ) from None
            found = "missing" if fault["type"] == "missing" else repr(fault["input"])
            expected = EXPECTED.get(key, "a positive number" if key.startswith("seconds.") else "a name")
            raise ConfigurationError(f"{FILE} or --config: {key} is {found}, expected {expected}.") from None

    def resources_of(self, stage: str) -> dict[str, str | int]:
        """Resources of a job of a stage, by the names that Snakemake's Slurm executor knows."""
        if STAGES[stage].runs_on != "gpu":
            return _said(slurm_account=self.account, slurm_partition=self.cpu_partition, qos=self.qos)
        return {
            "gpu": 1,
            **_said(
                slurm_account=self.account,
                slurm_partition=self.partition,
                gpu_model=self.gpu_model and self.gpu_model.replace("-", HYPHEN),
                constraint=self.constraint,
                qos=self.qos,
            ),
        }


def check_site_file(repository: Path) -> None:
    """Refuse values of `slurm/site.yaml` that YAML readers disagree about; a repository may have no such file.

    Snakemake reads the file as YAML 1.1, in which an account `010` is 8. Raises `ConfigurationError`.
    """
    file = repository / FILE
    try:
        if file.exists():
            read_yaml(file)
    except UnreadableYaml as error:
        raise ConfigurationError(f"{error.place_in(FILE)}: not readable as YAML: {error}.") from None


def _said(**values: str | None) -> dict[str, str | int]:
    return {name: value for name, value in values.items() if value is not None}

"""Environment variables that decide what a job computes, or from where Python and its libraries take their code.

docs/variables.md lists them, says which library reads each, and what a job does about it. Libraries read most of them
when they are loaded, so they are set right in Snakemake's process, from which jobs inherit them, and a job only checks
them. On a node of a cluster, Snakemake parses the Snakefile again before it starts the job's script.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping, MutableMapping
from fnmatch import fnmatchcase
from pathlib import Path

from corelib.errors import ConfigurationError

PAGE = "docs/variables.md"

FIXED = {
    "HF_HUB_OFFLINE": "1",  # every file that a job needs is here; `make assets` fetches those that are not
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
    # diffusers asks for GPUs as soon as it is imported. By its other way of counting, torch would start CUDA then, and
    # a job could no longer choose among the machine's GPUs.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
}
"""Variables that every job has, with their values; PYTHONPATH, which is the repository, comes to these."""

RECORDED = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""Variables that the user may choose; the provenance of a run has their values."""

KEPT = (
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUNBUFFERED",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_CPP_LOG_LEVEL",
    "TORCH_LOGS",
    "TORCH_SHOW_CPP_STACKTRACES",
    "TRITON_CACHE_DIR",
)
"""Variables that one of the patterns of `CLEARED` matches, and that change no number."""

CLEARED = (
    "ACCELERATE_*",
    "ARROW_*",
    "BASH_ENV",
    "CUBLASLT_*",
    "CUBLAS_*",
    "CUDA_FORCE_PTX_JIT",
    "CUDNN_*",
    "CUTE_DSL_*",
    "DEEPSPEED_*",
    "DIFFUSERS_*",
    "DISABLE_ADDMM_CUDA_LT",
    "DNNL_*",
    "FBGEMM_*",
    "FORK_LAUNCHED",
    "FSDP_*",
    "GLIBC_TUNABLES",
    "GOMP_*",
    "GOTO_*",
    "HELION_*",
    "JSIMD_*",
    "KMP_*",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MEGATRON_LM_*",
    "MKL_*",
    "MPI_*",
    "MV2_*",
    "NODE_RANK",
    "NPY_*",
    "NUMPY_*",
    "NVIDIA_TF32_OVERRIDE",
    "OMPI_*",
    "OMP_*",
    "ONEDNN_*",
    "OPENBLAS_*",
    "PANDAS_*",
    "PARALLELISM_CONFIG_*",
    "PJRT_DEVICE",
    "PMI_*",
    "PT_HPU_*",
    "PYTHON*",
    "PYTORCH_*",
    "QUACK_*",
    "RANK",
    "SCIPY_*",
    "TIMM_*",
    "TORCH*",
    "TRANSFORMERS_*",
    "TRITON_*",
    "USE_HUB_KERNELS",
    "USE_SAFETENSORS",
    "USE_TF",
    "USE_TORCH",
    "USE_TORCH_XLA",
    "WORLD_SIZE",
    "XLA_*",
    "_CHECK_PEFT",
)
"""Patterns of the variables that no job has, unless they are named above."""


def prepare(variables: MutableMapping[str, str], repository: Path) -> None:
    """Clear and set the variables of an environment as jobs need them.

    Args:
        variables: the environment, which is changed.
        repository: the folder of the Snakefile, from which scripts import `corelib`.
    """
    for name in [name for name in variables if _is_cleared(name)]:
        del variables[name]
    variables.update(FIXED)
    variables["PYTHONPATH"] = str(repository)


def check_variables(variables: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` if a job's environment is not as `prepare` leaves it.

    A variable of `FIXED` may be missing: a script that was started by hand is checked for what it imported instead.
    """
    for name, value in sorted(variables.items()):
        if _is_cleared(name):
            wanted = "no such variable in a job"
        elif value != FIXED.get(name, value):
            wanted = FIXED[name]
        else:
            continue
        raise ConfigurationError(
            f"environment: {name} is {value!r}, expected {wanted}; start jobs through Snakemake, which sets it right, "
            f"and let no script set it again that runs when the job starts ({PAGE})."
        )


def recorded(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that the user has chosen."""
    return {name: variables[name] for name in RECORDED if name in variables}


def leave_out_the_users_packages(repository: Path) -> None:
    """Take the places that PYTHONPATH and the user's own site-packages name out of this process's path of imports.

    Jobs do not see them. Versions are to be planned with that are the jobs', and Snakemake adds its own path to the end
    of a script's.
    """
    named = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    if site.ENABLE_USER_SITE:
        named.add(os.path.abspath(site.getusersitepackages()))
    foreign = named - {os.path.abspath(repository)}
    sys.path[:] = [path for path in sys.path if not path or os.path.abspath(path) not in foreign]


def _is_cleared(name: str) -> bool:
    if name in FIXED or name in RECORDED or name in KEPT or name == "PYTHONPATH":
        return False
    return any(fnmatchcase(name, pattern) for pattern in CLEARED)

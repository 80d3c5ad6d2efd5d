"""Environment variables that change the results of a job, or where Python and its libraries load their code from.

docs/variables.md lists them, with the library that reads each and its treatment. Libraries read most of them when they
are loaded. They are therefore set in Snakemake's process, from which jobs inherit them, and a job only checks them. On
a node of a cluster, Snakemake parses the Snakefile again before it starts the job's script.
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
    "HF_HUB_OFFLINE": "1",  # all files that a job needs are local; `make assets` downloads those that are missing
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
    # diffusers looks for GPUs when it is imported. Without NVML, torch would initialise CUDA to count them, and a job
    # could no longer choose among the machine's GPUs.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
}
"""Variables that are set in every job, with their values. PYTHONPATH is set as well, to the repository."""

RECORDED = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""Variables that the user may set; the provenance record of a run contains their values."""

ALLOWED = (
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
"""Variables that match a pattern in `CLEARED_PATTERNS` but change no number, so they are kept."""

CLEARED_PATTERNS = (
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
    "FREETYPE_PROPERTIES",
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
    "MATPLOTLIBRC",
    "MEGATRON_LM_*",
    "MKL_*",
    "MPI_*",
    "MPLBACKEND",
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
"""Patterns of the variables that are cleared before a job starts, except those listed above."""


def prepare_environment(variables: MutableMapping[str, str], repository: Path) -> None:
    """Clear and set environment variables for jobs.

    Args:
        variables: the environment; changed in place.
        repository: the folder of the Snakefile, from which scripts import `corelib`.
    """
    for name in [name for name in variables if _is_cleared(name)]:
        del variables[name]
    variables.update(FIXED)
    variables["PYTHONPATH"] = str(repository)


def check_variables(variables: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` if a job's environment is not as `prepare_environment` leaves it.

    A variable in `FIXED` may be missing: for a script that is started by hand, its imports are checked instead.
    """
    for name, value in sorted(variables.items()):
        if _is_cleared(name):
            expected = "no such variable in a job"
        elif value != FIXED.get(name, value):
            expected = FIXED[name]
        else:
            continue
        raise ConfigurationError(
            f"environment: {name} is {value!r}, expected {expected}; start jobs through Snakemake, which corrects it, "
            f"and check that no start-up script of the job sets it again ({PAGE})."
        )


def recorded_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables in `RECORDED` that are set, with their values."""
    return {name: variables[name] for name in RECORDED if name in variables}


def remove_user_packages(repository: Path) -> None:
    """Remove the folders in PYTHONPATH and the user's site-packages from `sys.path` of this process.

    Jobs do not see these folders, and planning must see the same package versions as jobs. Besides, Snakemake appends
    its own `sys.path` to that of a script.
    """
    foreign = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    if site.ENABLE_USER_SITE:
        foreign.add(os.path.abspath(site.getusersitepackages()))
    foreign.discard(os.path.abspath(repository))
    sys.path[:] = [path for path in sys.path if not path or os.path.abspath(path) not in foreign]


def _is_cleared(name: str) -> bool:
    if name in FIXED or name in RECORDED or name in ALLOWED or name == "PYTHONPATH":
        return False
    return any(fnmatchcase(name, pattern) for pattern in CLEARED_PATTERNS)

"""The methods of `config/config.yaml`, from a clone of the repository or from the installed package."""

from __future__ import annotations

import functools
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.source_import import PACKAGE_FOLDER
from corelib.study.loading import load_study
from corelib.study.schema import Method, Study
from corelib.study.study_files import PAPER
from corelib.study.wording import expected_one_of

PACKAGED = PACKAGE_FOLDER / "configuration"
"""Folder of the configuration in an installed package; `setup.py` copies it. A clone has none."""


def configuration_folder() -> Path:
    """The folder of `config.yaml`: that of the installed package, else `config/` of the clone."""
    return PACKAGED if PACKAGED.is_dir() else PACKAGE_FOLDER.parent / "config"


@functools.cache
def paper_study() -> Study:
    """The paper's study, read once."""
    return load_study(PAPER, configuration_folder())


def methods() -> dict[str, Method]:
    """All methods of `config/config.yaml` by name: the paper's six, its variants, and the baselines as released.

    A method is immutable. `method.model_copy(update={"trained": "keys_and_values"})` is a changed copy, and `unlearn`
    accepts it in place of a name.
    """
    return dict(paper_study().methods)


def find_method(method: str | Method) -> Method:
    """The method with a name, or the method itself. Raises `ConfigurationError` for a name that no method has."""
    if isinstance(method, Method):
        return method
    known = methods()
    if method not in known:
        raise ConfigurationError(f"method is {method!r}, {expected_one_of(method, list(known))}.")
    return known[method]

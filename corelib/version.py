"""The version of this software."""

VERSION = "0.1.0"
"""The same as in `pyproject.toml`. CHANGELOG.md lists what has changed in each version."""

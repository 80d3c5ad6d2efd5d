"""The version of this software."""

VERSION = "0.1.0"
"""Also the version of the installed package (`pyproject.toml`). CHANGELOG.md lists what has changed in each version."""

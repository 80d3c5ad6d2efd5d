"""What taking the shipped world into use reads."""

from __future__ import annotations

from typing import Any

from corelib.settings.section import Section


class PretrainedStage(Section):
    """The trained models that the repository ships.

    Attributes:
        files: their sha256, by path below the shipped folder.
        facts: what the stages that trained them said of them.
    """

    files: dict[str, str]
    facts: dict[str, Any]

"""Settings of the stage that adopts the shipped world."""

from __future__ import annotations

from typing import Any

from corelib.settings.section import Section


class PretrainedStage(Section):
    """Settings of the stage `pretrained`: the trained models that the repository ships.

    Attributes:
        files: sha256 of each file, by its path in the shipped folder.
        facts: facts returned by the stages that trained them.
    """

    files: dict[str, str]
    facts: dict[str, Any]

"""Settings of the stage that trains the miniature's model without a task's forget styles."""

from __future__ import annotations

from corelib.settings.miniature import PipelineStage


class RetrainingStage(PipelineStage):
    """Settings of the stage `retrained`: those of the base model's training, and the styles that it leaves out.

    Attributes:
        forget: the styles whose images are left out. Their words stay in the vocabulary.
    """

    forget: list[str]

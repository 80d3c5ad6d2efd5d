"""Settings of the models of the user's own that tables show beside ours."""

from __future__ import annotations

from corelib.settings.section import Section

WEIGHTS = "weights"
"""The name of the weights among the files that a run adopts."""


class GivenModel(Section):
    """An unlearned model that was trained elsewhere.

    Attributes:
        title: its title in tables.
        weights: the path of its U-Net for each task: a diffusers folder, or a file of tensors.
    """

    title: str
    weights: dict[str, str]


class GivenModelStage(Section):
    """Settings of the stage `models`: the content of the weights, wherever they are stored.

    Attributes:
        sha256: hash of the file or folder, by the name `WEIGHTS`; None until it is locked.
    """

    sha256: dict[str, str | None]

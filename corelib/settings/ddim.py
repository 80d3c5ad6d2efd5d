"""Options of the DDIM scheduler."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from corelib.settings.section import Section


class DDIMConfig(Section):
    """All options of the DDIM scheduler; the noise schedule itself belongs to the base model.

    The base model's scheduler file is for another scheduler and sets only some of these options. diffusers would use
    its own defaults for the others.

    Attributes:
        steps_offset: number that is added to every timestep.
        set_alpha_to_one: whether alpha_bar is 1 after the last step; otherwise it is that of timestep 0.
        clip_sample: whether predicted images are clipped to [-1, 1] in each step.
        timestep_spacing: rule by which the timesteps are chosen.
    """

    steps_offset: int = Field(ge=0)
    set_alpha_to_one: bool
    clip_sample: bool
    timestep_spacing: Literal["leading", "trailing", "linspace"]

    @property
    def switches(self) -> dict[str, Any]:
        """The options by their keys in the scheduler's configuration."""
        return self.model_dump(include=set(DDIMConfig.model_fields))

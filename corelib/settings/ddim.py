"""How DDIM goes through a noise schedule."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from corelib.settings.section import Section


class Switches(Section):
    """The DDIM scheduler's switches, all of them; the noise schedule itself belongs to the base model.

    A base model's own file is of another scheduler and says some of them only, to which diffusers adds defaults.
    """

    steps_offset: int = Field(ge=0)
    set_alpha_to_one: bool
    clip_sample: bool
    timestep_spacing: Literal["leading", "trailing", "linspace"]

    @property
    def switches(self) -> dict[str, Any]:
        """The scheduler's configuration keys."""
        return self.model_dump(include=set(Switches.model_fields))

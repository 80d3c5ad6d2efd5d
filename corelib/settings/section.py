"""The base of every typed section of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """An immutable group of leaves. Unknown keys and values of another type are errors; no type is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

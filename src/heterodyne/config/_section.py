"""What the sections of a run file have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class RunSection(BaseModel):
    """Base of all sections: no unknown keys, no silent conversion.

    An empty section is one without entries, and 1e3 is an integer where one is needed.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name is not None:
            kind = cls.model_fields[info.field_name].annotation
            return {} if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        return value

"""What was noticed about data, in words a user can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One observation about a measurement.

    Attributes:
        code: Stable short name, such as ``few_frames``.
        severity: ``info``, ``warning`` or ``error``.
        text: What was seen, with its value.
        advice: One sentence on what to do about it.
    """

    code: str
    severity: Severity
    text: str
    advice: str

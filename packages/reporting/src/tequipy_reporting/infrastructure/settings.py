"""Settings of reporting."""

from dataclasses import fields
from datetime import timedelta
from math import isfinite
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from tequipy_reporting.domain.policy import ReportPolicy

_DURATIONS: Final = frozenset(each.name for each in fields(ReportPolicy) if each.type is timedelta)


def _read_seconds(value: object) -> object:
    """Return a policy's values with each duration that is a text such as `900` as a number, which pydantic reads.

    Any other text is left for pydantic, which accepts ISO 8601 (`PT15M`) and reports the rest by name.
    """
    if not isinstance(value, dict):
        return value
    return {name: _number(each) if name in _DURATIONS else each for name, each in value.items()}


def _number(value: object) -> object:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return value if number is None or not isfinite(number) else number


class ReportingSettings(BaseModel):
    """Settings of reporting: the limits of `policy`, whose times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    policy: Annotated[ReportPolicy, BeforeValidator(_read_seconds)] = ReportPolicy()
    """Limits of reports, such as `max_bytes`."""

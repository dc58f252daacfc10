"""Settings of reporting."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from tequipy_platform.settings import read_seconds
from tequipy_reporting.domain.policy import ReportPolicy

SCHEMA: Final = "reporting"
"""The default name of the schema; `DatabaseSettings.schemas` can rename it."""


class ReportingSettings(BaseModel):
    """Settings of reporting: the limits of `policy`, whose times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    policy: Annotated[ReportPolicy, BeforeValidator(read_seconds(ReportPolicy))] = ReportPolicy()
    """Limits of reports, such as `max_bytes`."""

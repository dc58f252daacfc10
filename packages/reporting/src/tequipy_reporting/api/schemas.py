"""Request and response bodies."""

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tequipy_platform.web import PageBody, StrictModel
from tequipy_reporting.domain.activity import DailyActivity
from tequipy_reporting.domain.reports import Period, Report, ReportFailure, ReportFormat, ReportKind, ReportStatus

_ID = "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"
_TIME = "2026-01-31T10:30:00Z"
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _check_day(value: object) -> object:
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        raise PydanticCustomError("date", "The text should be a date as 2026-01-31.")
    return value


Day = Annotated[date, BeforeValidator(_check_day)]
"""A full date of RFC 3339; pydantic alone would read numbers and times too."""


class ReportRequest(StrictModel):
    """What to report about."""

    kind: ReportKind = Field(examples=["user_activity"])
    first_day: Day = Field(alias="from", examples=["2026-01-01"], description="The first day, in UTC.")
    last_day: Day = Field(alias="to", examples=["2026-01-31"], description="The last day, in UTC; at most 366 days.")
    format: ReportFormat = Field(examples=["csv"])

    @property
    def period(self) -> Period:
        """The days of the report."""
        return Period(self.first_day, self.last_day)


class ReportItem(BaseModel):
    """A report, and how far it is."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: UUID = Field(examples=[_ID])
    kind: ReportKind = Field(examples=["user_activity"])
    format: ReportFormat = Field(examples=["csv"])
    first_day: date = Field(serialization_alias="from", examples=["2026-01-01"])
    last_day: date = Field(serialization_alias="to", examples=["2026-01-31"])
    status: ReportStatus = Field(examples=["done"])
    progress: float = Field(ge=0, le=1, examples=[1.0], description="The part that has been written.")
    error_code: ReportFailure | None = Field(examples=[None], description="Why it has failed.")
    created_at: datetime = Field(examples=[_TIME])
    finished_at: datetime | None = Field(examples=[_TIME])
    size_bytes: int | None = Field(examples=[48213])

    @classmethod
    def of(cls, report: Report) -> Self:
        """Return the body for a report."""
        return cls(
            id=report.id,
            kind=report.kind,
            format=report.format,
            first_day=report.period.first_day,
            last_day=report.period.last_day,
            status=report.status,
            progress=report.progress,
            error_code=report.error_code,
            created_at=report.created_at,
            finished_at=report.finished_at,
            size_bytes=report.size_bytes,
        )


class ReportPage(PageBody[ReportItem]):
    """A page of reports; send `next_cursor` as `cursor` for the next one."""


class ActivityItem(BaseModel):
    """The activity of all accounts on a day in UTC."""

    day: date = Field(examples=["2026-01-31"])
    registrations: int = Field(
        examples=[12],
        description="Accepted registrations (the action `registered` in the audit), before the address is verified.",
    )
    logins: int = Field(examples=[340], description="Successful logins, reauthentications included (`login_ok`).")
    failed_logins: int = Field(
        examples=[25],
        description="Wrong passwords (`login_failed`), not attempts that a lock refused unchecked (`login_locked`).",
    )
    active_users: int = Field(
        examples=[210],
        description="Distinct accounts that logged in or refreshed a token (`login_ok`, `token_refreshed`).",
    )


class ActivityList(BaseModel):
    """The activity of each day of a period, in order."""

    items: list[ActivityItem]

    @classmethod
    def of(cls, days: Sequence[DailyActivity]) -> Self:
        """Return the body for days."""
        return cls(items=[ActivityItem.model_validate(day, from_attributes=True) for day in days])

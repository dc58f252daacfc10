"""The activity of accounts on one day."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class DailyActivity:
    """What happened on one day in UTC."""

    day: date
    registrations: int
    logins: int
    failed_logins: int
    active_users: int
    """The number of distinct accounts that logged in or refreshed a token."""

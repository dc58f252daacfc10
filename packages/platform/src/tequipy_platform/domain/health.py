"""Health checks: what readiness asks of each thing the process stands on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class RefusesWrites(Exception):
    """What was checked answers, and refuses writes; its message says why, in its own words."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A named check; `check` returns when the thing is well and raises when it is not, `RefusesWrites` if it is that.

    A `required` check that fails makes the process not ready; another one only degraded. One that is `only_when_down`
    is in the report only while it is down: the report of a healthy process does not grow with it.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    required: bool = True
    only_when_down: bool = False

"""Health checks: what readiness asks of each thing the process stands on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A named check; `check` returns when the thing is well and raises when it is not.

    A `required` check that fails makes the process not ready; another one only degraded.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    required: bool = True

"""Health checks of the services that a process depends on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class RefusesWrites(Exception):
    """The checked service answers but refuses writes; the message is the reason that the service gives."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A named check: `check` returns when the service works, and raises when it does not.

    It raises `RefusesWrites` when the service can only be read. A failed `required` check makes the process not ready,
    any other failed check makes it degraded. A check with `only_when_down` appears in the report only when it fails,
    so that it does not lengthen the report of a healthy process.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    required: bool = True
    only_when_down: bool = False

"""The settings of reporting, and the objects that it is built from."""

from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError

from tequipy_auth.testing import build_fake_auth
from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.testing import MemoryStorage
from tequipy_reporting import ReportPolicy
from tequipy_reporting.wiring import ReportingSettings, build_reporting

MINUTE = timedelta(minutes=1)


def policy_of(*, time_limit: timedelta | None = None, redelivery: timedelta | None = None) -> ReportPolicy:
    """Return the policy of services that are built with these limits of a worker; nothing is opened."""
    return build_reporting(
        ReportingSettings(),
        public_url="https://app.example.com",
        database=build_database(DatabaseSettings(url=SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none"))),
        auth=build_fake_auth(),
        storage=MemoryStorage(SystemClock()),
        time_limit=time_limit,
        redelivery=redelivery,
    ).policy


@pytest.mark.parametrize(("time_limit", "max_duration"), [(MINUTE, timedelta(seconds=54)), (10 * MINUTE, 4 * MINUTE)])
def test_a_report_ends_before_the_time_limit_of_its_task(time_limit: timedelta, max_duration: timedelta) -> None:
    """An attempt may take nine tenths of the worker's limit at most, so that it ends with its own code."""
    assert policy_of(time_limit=time_limit).max_duration == max_duration
    assert policy_of().max_duration == ReportPolicy().max_duration


@pytest.mark.parametrize(("redelivery", "stuck_after"), [(MINUTE, 20 * MINUTE), (60 * MINUTE, 120 * MINUTE)])
def test_a_killed_report_is_delivered_again_before_it_is_stuck(redelivery: timedelta, stuck_after: timedelta) -> None:
    """A report is not interrupted while the broker may still deliver its message again."""
    assert policy_of(redelivery=redelivery).stuck_after == stuck_after


def test_durations_are_seconds_or_iso_8601() -> None:
    """The texts of variables are numbers of seconds, or periods of ISO 8601."""
    settings = ReportingSettings.model_validate({"policy": {"give_up_after": "90", "retention": "P7D"}})
    assert settings.policy == ReportPolicy(give_up_after=1.5 * MINUTE, retention=timedelta(days=7))


@pytest.mark.parametrize("wrong", [{"max_waiting": "0"}, {"max_bytes": "much"}, {"stuck_after": "-1"}, {"other": "1"}])
def test_a_wrong_limit_is_named_without_its_value(wrong: dict[str, str]) -> None:
    """A value out of bounds, and an unknown name, is an error at its place that does not show the value."""
    with pytest.raises(ValidationError) as error:
        ReportingSettings.model_validate({"policy": wrong})
    (fault,) = error.value.errors()
    assert fault["loc"][:2] == ("policy", next(iter(wrong)))
    assert "much" not in str(error.value)

"""The rules of periods, keys, names and tags of reports."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform import Invalid
from tequipy_platform.testing import EPOCH
from tequipy_reporting import Period, Report, ReportFailure, ReportFormat, ReportKind, ReportPolicy, ReportStatus
from tequipy_reporting.domain.policy import MAX_DAYS
from tequipy_reporting.domain.reports import key_of

TODAY = date(2026, 1, 31)
DAYS = st.integers(-800, 800).map(lambda days: TODAY + timedelta(days=days))
ID, ATTEMPT = UUID(int=1), UUID(int=2)
REPORT = Report(ID, ReportKind.USER_ACTIVITY, ReportFormat.CSV, Period(TODAY, TODAY), ID, EPOCH, EPOCH)


@given(first=DAYS, last=DAYS)
def test_a_period_is_in_order_short_and_not_in_the_future(first: date, last: date) -> None:
    """A period is accepted exactly if its days are in order, 366 at most, and not after today."""
    allowed = first <= last <= TODAY and (last - first).days < MAX_DAYS
    try:
        Period(first, last).check(TODAY)
    except Invalid as error:
        assert not allowed
        faults = error.members["errors"]
        assert isinstance(faults, list)
        assert {each["pointer"] for each in faults if isinstance(each, dict)} <= {"/from", "/to"}
        assert len(faults) in {1, 2}
    else:
        assert allowed


def test_a_period_contains_both_of_its_days() -> None:
    """It lasts from the beginning of the first day to the end of the last one in UTC."""
    period = Period(date(2024, 2, 29), date(2024, 3, 1))
    assert (period.since.isoformat(), period.until.isoformat()) == (
        "2024-02-29T00:00:00+00:00",
        "2024-03-02T00:00:00+00:00",
    )


def test_names_and_keys_are_of_the_report() -> None:
    """The key in the storage is that of one attempt; the name of the download shows kind and days."""
    assert key_of(REPORT, ATTEMPT) == f"reports/{ID}/{ATTEMPT}.csv"
    assert REPORT.filename == "user_activity_2026-01-31_2026-01-31.csv"
    assert [each.media_type for each in ReportFormat] == ["text/csv; charset=utf-8", "application/pdf"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": ReportStatus.RUNNING},
        {"progress": 0.5},
        {"error_code": ReportFailure.TIMED_OUT},
        {"finished_at": EPOCH},
        {"size_bytes": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_tag_changes_with_what_callers_see(change: dict[str, Any]) -> None:
    """Each field that callers see changes the tag; the heartbeat of an attempt does not."""
    assert replace(REPORT, **change).state_tag != REPORT.state_tag


@pytest.mark.parametrize("wrong", [{"max_waiting": 0}, {"max_bytes": 1}, {"retention": timedelta(0)}])
def test_a_policy_refuses_values_out_of_bounds(wrong: dict[str, object]) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReportPolicy(**wrong)  # type: ignore[arg-type]

"""Ids of rows: ordered in time, and equal for equal things where they are derived."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform.database.ids import derived_id, occurrence_id, uuid7

NAMES = st.text(st.characters(codec="utf-8"))
TIMES = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001 -- hypothesis adds the time zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-11, minutes=-30))]),
).filter(lambda at: at.timestamp() >= 0)
MILLISECONDS = st.integers(0, 2**48 - 1)


def time_ordered(version: int, milliseconds: int, rest: int) -> UUID:
    """Return a UUIDv7 or v8 with the given time."""
    return UUID(int=milliseconds << 80 | version << 76 | (rest >> 62 & 0xFFF) << 64 | 0b10 << 62 | rest & 2**62 - 1)


SOURCES = st.builds(time_ordered, st.sampled_from([7, 8]), MILLISECONDS, st.integers(0, 2**74 - 1))


@given(SOURCES, NAMES)
def test_a_derived_id_is_a_uuid8_with_the_time_of_its_source(source: UUID, name: str) -> None:
    """A derived id has version 8 of RFC 9562, the milliseconds of its source, and is always the same."""
    derived = derived_id(source, name)
    assert (derived.version, derived.variant) == (8, RFC_4122)
    assert derived.bytes[:6] == source.bytes[:6]
    assert derived == derived_id(UUID(str(source)), name) != source


@given(SOURCES, SOURCES, NAMES, NAMES)
def test_derived_ids_are_ordered_like_their_sources(one: UUID, other: UUID, name: str, second: str) -> None:
    """What is derived from the earlier source sorts first; other sources and other names give other ids."""
    mine, theirs = derived_id(one, name), derived_id(other, second)
    if one.bytes[:6] != other.bytes[:6]:
        assert (mine < theirs) == (one < other)
    assert (mine == theirs) == ((one, name) == (other, second))


@given(st.uuids(), NAMES)
def test_an_id_without_a_time_has_derived_ids_too(source: UUID, name: str) -> None:
    """A source of any version gives a UUIDv8: one row with such an id must not stop those who process all rows."""
    assert derived_id(source, name).version == 8
    assert derived_id(source, name) == derived_id(source, name)


def test_a_derived_id_stays_as_it_is() -> None:
    """Ids are the same in every release, because two releases may create the same message."""
    source = UUID("01a2066c-5219-712e-a8b5-b55ef1bcfe55")
    assert str(derived_id(source, "auth.send_mail")) == "01a2066c-5219-8450-b669-b12342aea8ad"
    at = datetime(2026, 11, 26, 3, tzinfo=UTC)
    assert str(occurrence_id("auth.purge", at)) == "01a215cb-af80-8578-9bca-d60f6c9ae33c"


def test_derived_ids_follow_their_source() -> None:
    """An id that is derived from a new UUIDv7 sorts after it, and before one that is derived a millisecond later."""
    source = uuid7()
    later = UUID(int=source.int + (1 << 80))
    assert source < derived_id(source, "test.do") < derived_id(later, "test.do")
    assert derived_id(uuid4(), "test.do").version == 8


@given(NAMES, TIMES)
def test_an_occurrence_id_is_a_uuid8_with_its_time(name: str, at: datetime) -> None:
    """An occurrence's id has its milliseconds since 1970, and does not depend on the time zone of the caller."""
    occurrence = occurrence_id(name, at)
    assert (occurrence.version, occurrence.variant) == (8, RFC_4122)
    assert occurrence.int >> 80 == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert occurrence == occurrence_id(name, at.astimezone(timezone(timedelta(hours=5))))


@given(NAMES, NAMES, TIMES, TIMES)
def test_occurrences_are_ordered_in_time(name: str, second: str, one: datetime, other: datetime) -> None:
    """Earlier occurrences sort first; other names and other times, even in the same millisecond, give other ids."""
    mine, theirs = occurrence_id(name, one), occurrence_id(second, other)
    if abs(one - other) >= timedelta(milliseconds=1):
        assert (mine < theirs) == (one < other)
    assert (mine == theirs) == ((name, one) == (second, other))
    assert occurrence_id(name, one) != occurrence_id(name, one + timedelta(microseconds=1))


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)])  # noqa: DTZ001 -- refused
def test_a_time_that_names_no_occurrence_is_refused(at: datetime) -> None:
    """A time without a time zone means another moment on another machine, and a UUID has no time before 1970."""
    with pytest.raises(ValueError, match="the time of an occurrence"):
        occurrence_id("test.do", at)


CLOCK = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
STEPS = """
import os, sys, time
from pathlib import Path
from tequipy_platform.database import uuid7
ids, clock, began = [], Path(os.environ["FAKETIME_TIMESTAMP_FILE"]), time.time()
for step in [0, -5, -3600, 3600, 0]:
    clock.write_text(f"{step:+d}")
    assert abs(time.time() - began - step) < 60
    ids += [uuid7() for _ in range(1000)]
assert ids == sorted(set(ids))
"""


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(CLOCK is None, reason="apt-get install libfaketime")
def test_new_ids_stay_ordered_when_the_clock_steps_back(tmp_path: Path) -> None:
    """A process's ids are ordered by their creation, whatever the clock does (RFC 9562, section 6.2)."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {"LD_PRELOAD": str(CLOCK), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    subprocess.run([sys.executable, "-c", STEPS], env=os.environ | environment, check=True, timeout=60)

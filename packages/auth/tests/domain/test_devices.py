"""Device marks of clients that have logged in before."""

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import EmailAddress, PasswordHash, User
from tequipy_auth.domain.devices import DEVICES_PER_ACCOUNT, MARK_TTL, DeviceMarks
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import CountingIds, FrozenClock

new_id = CountingIds()
MOMENT = timedelta(seconds=1)


def make_user(name: str) -> User:
    address = EmailAddress(f"{name}@example.com", f"{name}@example.com")
    return User(new_id(), address, True, None, PasswordHash("scheme", 12, 1, "digest"), ("user",), FrozenClock().now())


ADA, BOB = make_user("ada"), make_user("bob")


@pytest.fixture
def marks(clock: FrozenClock) -> DeviceMarks:
    return DeviceMarks(Pseudonyms(b"key"), clock, secrets.token_bytes)


async def test_a_mark_is_valid_for_its_account_only(marks: DeviceMarks, work: MemoryAuthUnitOfWork) -> None:
    """Each client has its own id; a mark is invalid for another account or key and contains no name."""
    mark = await marks.issue(work, ADA)
    assert await marks.recognise(work, ADA, mark)
    assert await marks.recognise(work, BOB, mark) is None
    assert await marks.recognise(work, ADA, await marks.issue(work, ADA)) != await marks.recognise(work, ADA, mark)
    other_key = DeviceMarks(Pseudonyms(b"another key"), FrozenClock(), secrets.token_bytes)
    assert await other_key.recognise(work, ADA, mark) is None
    assert str(ADA.id) not in mark


async def test_a_known_client_keeps_its_id(marks: DeviceMarks, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """A further login renews the mark of the same device; a mark of another account leads to a new id."""
    first = await marks.issue(work, ADA)
    clock.advance(MARK_TTL - MOMENT)
    second = await marks.issue(work, ADA, known=first)
    assert len(work.devices.rows) == 1
    clock.advance(MOMENT)
    assert await marks.recognise(work, ADA, first) is None
    assert await marks.recognise(work, ADA, second) in work.devices.rows
    foreign = await marks.issue(work, BOB, known=second)
    assert await marks.recognise(work, BOB, foreign) != await marks.recognise(work, ADA, second)


async def test_a_mark_expires_after_a_year(marks: DeviceMarks, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """The mark itself contains its expiry, independent of the row and of the cookie's age."""
    mark = await marks.issue(work, ADA)
    (device,) = work.devices.rows.values()
    work.devices.rows[device.id] = replace(device, expires_at=device.expires_at + timedelta(days=1))
    clock.advance(timedelta(days=365) - MOMENT)
    assert await marks.recognise(work, ADA, mark)
    clock.advance(MOMENT)
    assert await marks.recognise(work, ADA, mark) is None


async def test_a_mark_ends_with_the_password_epoch(marks: DeviceMarks, work: MemoryAuthUnitOfWork) -> None:
    """Marks of an earlier password epoch are invalid, and the next login creates a new device id."""
    mark = await marks.issue(work, ADA)
    changed = replace(ADA, password_epoch=1)
    assert await marks.recognise(work, changed, mark) is None
    renewed = await marks.issue(work, changed, known=mark)
    assert await marks.recognise(work, changed, renewed)
    assert await marks.recognise(work, ADA, renewed) is None
    assert len(work.devices.rows) == 2


async def test_an_account_has_ten_devices(marks: DeviceMarks, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """The eleventh device ends the mark of the account's least recently used device."""
    foreign = await marks.issue(work, BOB)
    issued = []
    for _ in range(DEVICES_PER_ACCOUNT):
        clock.advance(MOMENT)
        issued.append(await marks.issue(work, ADA))
    clock.advance(MOMENT)
    issued[0] = await marks.issue(work, ADA, known=issued[0])
    clock.advance(MOMENT)
    issued.append(await marks.issue(work, ADA))
    valid = [await marks.recognise(work, ADA, mark) is not None for mark in issued]
    assert DEVICES_PER_ACCOUNT == 10
    assert valid == [True, False, *[True] * 9]
    assert await marks.recognise(work, BOB, foreign)


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: "",
        lambda _: None,
        lambda _: "dv2",
        lambda _: "dv2.....",
        lambda mark: mark.replace("dv2", "dv1"),
        lambda mark: mark[:-1] + ("0" if mark[-1] != "0" else "1"),
        lambda mark: mark + ".more",
        lambda mark: mark.rpartition(".")[0],
        lambda mark: mark.rpartition(".")[0] + ".ä",
        lambda mark: mark.rpartition(".")[0] + ".",
        lambda mark: mark.replace(".0.", ".1."),
        lambda mark: mark.replace(".0.", ".-1."),
    ],
)
async def test_invalid_marks_are_refused(marks: DeviceMarks, work: MemoryAuthUnitOfWork, forge: object) -> None:
    """Malformed and forged marks return None and never raise an error."""
    assert callable(forge)
    assert await marks.recognise(work, ADA, forge(await marks.issue(work, ADA))) is None


def test_pseudonyms_are_distinct() -> None:
    """Pseudonyms differ for different parts, contexts and keys, and are equal for equal input."""
    pseudonyms = Pseudonyms(b"key")
    names = {
        pseudonyms.of("pair", "a", "bc"),
        pseudonyms.of("pair", "ab", "c"),
        pseudonyms.of("pair", "abc"),
        pseudonyms.of("paira", "bc"),
        Pseudonyms(b"yek").of("pair", "a", "bc"),
    }
    assert len(names) == 5
    assert pseudonyms.of("pair", "a", "bc") in names

"""Marks of browsers that have logged in before."""

import secrets

import pytest

from tequipy_auth.domain.devices import Devices
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_platform.testing import CountingIds

new_id = CountingIds()
ADA, BOB = new_id(), new_id()


@pytest.fixture
def devices() -> Devices:
    return Devices(Pseudonyms(b"key"), secrets.token_bytes)


def test_a_mark_is_recognised_for_its_account_alone(devices: Devices) -> None:
    """Each browser has an id of its own, and the mark says nothing to another account or under another key."""
    mark = devices.mark(ADA)
    assert devices.recognise(mark, ADA)
    assert devices.recognise(mark, BOB) is None
    assert devices.recognise(devices.mark(ADA), ADA) != devices.recognise(mark, ADA)
    assert Devices(Pseudonyms(b"another key"), secrets.token_bytes).recognise(mark, ADA) is None
    assert str(ADA) not in mark


def test_a_known_browser_keeps_its_id(devices: Devices) -> None:
    """A login renews the mark; one of another account is no reason to keep an id."""
    mark = devices.mark(ADA)
    assert devices.mark(ADA, known=mark) == mark
    assert devices.recognise(devices.mark(BOB, known=mark), BOB) != devices.recognise(mark, ADA)


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: "",
        lambda _: None,
        lambda _: "dv1",
        lambda _: "dv1...",
        lambda mark: mark.replace("dv1", "dv2"),
        lambda mark: mark[:-1] + ("0" if mark[-1] != "0" else "1"),
        lambda mark: mark + ".more",
        lambda mark: mark.rpartition(".")[0] + ".ä",
        lambda mark: mark.rpartition(".")[0] + ".",
    ],
)
def test_what_is_no_mark_is_nobodys(devices: Devices, forge: object) -> None:
    """Malformed and forged marks are None, never an error."""
    assert callable(forge)
    assert devices.recognise(forge(devices.mark(ADA)), ADA) is None


def test_pseudonyms_do_not_run_into_each_other() -> None:
    """Parts have edges, contexts are apart, the key counts; equal input gives an equal name."""
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

"""Breached passwords: the contract of fake and range API, what the API learns, and an API that answers wrongly."""

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from tequipy_auth import BreachedPasswords
from tequipy_auth.infrastructure.breached_passwords import MalformedRange, PwnedPasswords, contains_suffix
from tequipy_auth.testing import FakeBreachedPasswords
from tequipy_platform.http import HttpSettings, build_http_clients

from .range_api import (
    BREACHED,
    URL,
    Behaviour,
    drip,
    drip_early_hints,
    hang,
    hang_in_the_body,
    http,
    local_server,
    range_of,
    reset,
    send_without_end,
    sends,
    serve_ranges,
    sha1,
)

PREFIX, SUFFIX = sha1(BREACHED)[:5], sha1(BREACHED)[5:]
RANGE = range_of(PREFIX, [BREACHED])
OUTCOMES = ("breached", "not_breached", "failed")


def counts(registry: CollectorRegistry) -> tuple[float | None, ...]:
    """Return the numbers of checks that found the password, did not find it, and failed."""
    return tuple(
        registry.get_sample_value("auth_breached_password_checks_total", {"outcome": outcome}) for outcome in OUTCOMES
    )


@asynccontextmanager
async def pointed_at(behaviour: Behaviour) -> AsyncIterator[tuple[PwnedPasswords, CollectorRegistry]]:
    """Yield the check, with the HTTP clients of production, of a server on this machine, and its registry."""
    registry = CollectorRegistry()
    async with (
        local_server(behaviour) as url,
        build_http_clients(HttpSettings(), app_name="test", app_version="0", registry=registry) as clients,
    ):
        yield PwnedPasswords(clients, url=url, registry=registry), registry


@pytest.mark.parametrize("kind", ["fake", "range API"])
async def test_exactly_the_known_passwords_are_contained(kind: str) -> None:
    """A password is found as it was leaked, in any script; case matters; during an outage none is found."""
    known = (BREACHED, "пароль из слов", "🙂" * 12, "tab\tand more words")
    upstreams, fake = serve_ranges(*known), FakeBreachedPasswords(*known)
    passwords: BreachedPasswords = fake if kind == "fake" else PwnedPasswords(upstreams.clients, url=URL)
    assert [await passwords.contains(each) for each in known] == [True] * 4
    for unknown in (BREACHED.upper(), BREACHED + "!", "", "\ud800 a lone surrogate"):
        assert not await passwords.contains(unknown)
    fake.available = False
    upstreams.route("GET *", httpx.Response(500))
    assert not await passwords.contains(BREACHED)


async def test_the_api_learns_five_characters_of_the_hash() -> None:
    """The request has the prefix as its only part that depends on the password, no body, and asks for padding."""
    upstreams = serve_ranges(BREACHED)
    assert await PwnedPasswords(upstreams.clients, url=f"{URL}/").contains(BREACHED)
    (request,) = upstreams.requests
    assert str(request.url) == f"{URL}/range/{PREFIX}"
    assert request.headers["Add-Padding"] == "true"
    assert request.content == b""
    assert SUFFIX not in repr(request.headers.raw).upper()
    assert request.extensions["total"] == 1.0


async def test_padding_is_not_breached() -> None:
    """An entry with the count 0 is padding, even if it has the suffix of the password."""
    upstreams = serve_ranges()
    upstreams.route("GET *", httpx.Response(200, content=range_of(PREFIX, [BREACHED], count=0)))
    registry = CollectorRegistry()
    assert not await PwnedPasswords(upstreams.clients, url=URL, registry=registry).contains(BREACHED)
    assert counts(registry) == (0, 1, 0)


async def test_nothing_about_a_password_is_logged_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Log and metrics of checks that find it, do not find it and fail contain no part of password and hash."""
    registry = CollectorRegistry()
    # `configure_observability` limits httpx in the same way.
    with caplog.at_level(logging.WARNING, "httpx"), caplog.at_level(logging.DEBUG):
        for body, content in ((RANGE, "known"), (range_of(PREFIX, []), "unknown"), (b"<html>", "wrong")):
            async with pointed_at(sends(http("200 OK", body))) as (passwords, of_one):
                assert await passwords.contains(BREACHED) is (content == "known")
                registry = of_one
    assert not [record for record in caplog.records if "/range/" in f"{record.__dict__}"]
    # The addresses of objects, which libraries log, may happen to contain five characters.
    written = "\n".join(str(record.__dict__) for record in caplog.records if record.name.startswith("tequipy")).upper()
    assert "BREACHED_PASSWORD_CHECK_FAILED" in written
    for text in (written, generate_latest(registry).decode().upper()):
        assert "HTTP_CLIENT_REQUEST" in text
        assert not [each for each in (BREACHED.upper(), PREFIX, SUFFIX) if each in text]


WRONG = {
    "HTML": http("200 OK", b"<!doctype html>\n<title>Log in to the network</title>\n", "Content-Type: text/html"),
    "HTML beside a range": http("200 OK", RANGE + b"\r\n<html>"),
    "empty": http("200 OK"),
    "blank lines": http("200 OK", b"\r\n\r\n" + RANGE),
    "without counts": http("200 OK", SUFFIX.encode()),
    "lower case": http("200 OK", RANGE.lower()),
    "whole hashes": http("200 OK", f"{PREFIX}{SUFFIX}:1".encode()),
    "short suffixes": http("200 OK", f"{SUFFIX[:-1]}:1".encode()),
    "negative counts": http("200 OK", f"{SUFFIX}:-1".encode()),
    "long counts": http("200 OK", f"{SUFFIX}:{'9' * 5000}".encode()),
    "UTF-16": http("200 OK", RANGE.decode().encode("utf-16")),
    "JSON": http("200 OK", b'{"count": 1}', "Content-Type: application/json"),
    "damaged gzip": http("200 OK", gzip.compress(RANGE)[:-9], "Content-Encoding: gzip"),
    "gzip bomb": http("200 OK", gzip.compress(b"0" * 10_000_000), "Content-Encoding: gzip"),
    "unknown compression": http("200 OK", RANGE, "Content-Encoding: br"),
    "shorter than announced": http("200 OK", RANGE)[:-1],
    "created": http("201 Created", RANGE),
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "not found": http("404 Not Found", RANGE),
    "too many": http("429 Too Many Requests", RANGE, "Retry-After: 3600"),
    "unavailable": http("503 Service Unavailable", RANGE),
    "failed": http("500 Internal Server Error", RANGE),
    "redirect": http("302 Found", RANGE, "Location: /elsewhere"),
    "redirect to nowhere": http("301 Moved Permanently", RANGE, "Location: http://[::1"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("response", WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_accepts_the_password(response: bytes) -> None:
    """Whatever the API answers except a range, the password is accepted, and the check is counted as failed."""
    async with pointed_at(sends(response)) as (passwords, registry):
        assert not await passwords.contains(BREACHED)
        assert counts(registry) == (0, 0, 1)


async def test_a_redirect_is_not_followed() -> None:
    """A redirect would send the prefix to a service that the operator has not chosen."""
    reached = asyncio.Event()

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await sends(http("200 OK", RANGE))(reader, writer)

    async with local_server(elsewhere) as url, pointed_at(sends(http("307 .", b"", f"Location: {url}"))) as checked:
        assert not await checked[0].contains(BREACHED)
    assert not reached.is_set()


ENDLESS = [hang, hang_in_the_body, drip, drip_early_hints, send_without_end, reset]


async def test_a_check_ends_whatever_the_api_does() -> None:
    """An API that never finishes its answer ends the check long before the total time of the profile, 30 s."""

    async def check(behaviour: Behaviour) -> float:
        async with pointed_at(behaviour) as (passwords, registry):
            began = time.perf_counter()
            assert not await passwords.contains(BREACHED)
            assert counts(registry) == (0, 0, 1)
            return time.perf_counter() - began

    async with asyncio.timeout(15):
        seconds = await asyncio.gather(*map(check, ENDLESS))
    print(*(f"\n{each.__name__}: {took:.2f} s" for each, took in zip(ENDLESS, seconds, strict=True)))


async def test_an_api_that_is_down_is_left_alone() -> None:
    """After 20 failed checks the circuit breaker answers, so that people do not wait for a service that is down."""
    connections = 0

    async def refuse(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with pointed_at(refuse) as (passwords, registry):
        for _ in range(40):
            assert not await passwords.contains(BREACHED)
        assert connections < 40
        assert counts(registry) == (0, 0, 40)


HEX = "0123456789ABCDEF"
LINES = st.one_of(
    st.from_regex(r"[0-9A-F]{35}:[0-9]{1,10}", fullmatch=True),
    st.builds(f"{SUFFIX}:{{}}".format, st.integers(0, 10**10)),
    st.text(max_size=40),
)


@given(st.lists(LINES, max_size=5), st.sampled_from(["\r\n", "\n", "\r"]), st.booleans())
def test_a_range_is_read_as_its_lines(lines: list[str], end: str, ended: bool) -> None:
    """A suffix is found if every line is well-formed and one has the suffix with a count other than 0."""
    text = end.join(lines) + (end if ended else "")
    parts = [line.removesuffix("\r").split(":") for line in text.removesuffix("\n").split("\n")]
    good = all(
        len(part) == 2
        and len(part[0]) == 35
        and set(part[0]) <= set(HEX)
        and 1 <= len(part[1]) <= 10
        and set(part[1]) <= set("0123456789")
        for part in parts
    )
    if not good:
        with pytest.raises(MalformedRange):
            contains_suffix(text.encode("utf-8", "surrogatepass"), SUFFIX.encode())
    else:
        expected = any(suffix == SUFFIX and int(count) > 0 for suffix, count in parts)
        assert contains_suffix(text.encode(), SUFFIX.encode()) is expected

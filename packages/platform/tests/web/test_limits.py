"""Checks of path, query and body before anything parses them."""

import asyncio
import contextlib
import json
import time
from typing import Any
from unittest import mock

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope

from tequipy_platform.web import LimitBodies, Pipeline
from tequipy_platform.web.limits import check_json, is_json
from tequipy_platform.web.problems import MalformedBody


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return lists and objects of the given values."""
    return st.lists(inner, max_size=5) | st.dictionaries(st.text(":{}a", max_size=3), inner, max_size=6)


async def refusal(scope: Scope, receive: Receive) -> dict[str, Any] | None:
    """Return the problem document with which the middleware refuses a request, or None if it lets the request pass."""
    sent: list[Message] = []
    passed = False

    async def seen(*_: object) -> None:
        nonlocal passed
        passed = True

    async def send(message: Message) -> None:
        sent.append(message)

    await Pipeline(seen, [LimitBodies()])({"app": FastAPI(), **scope}, receive, send)
    if passed:
        assert not sent
        return None
    document: dict[str, Any] = json.loads(b"".join(message.get("body", b"") for message in sent))
    assert [message.get("status") for message in sent] == [document["status"], None]
    return document


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/json", False),
        ("application/jsonp", False),
        ("", False),
        ("a\r\nb", False),
    ],
)
def test_json_is_known_by_its_media_type(content_type: str, expected: bool) -> None:
    """`application/json` and `+json` are JSON, with any parameters and in any case."""
    assert is_json(content_type) is expected


async def see(path: str, query: bytes) -> dict[str, Any] | None:
    """Send a request without a body, and return the refusal."""
    scope: Scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    return await refusal(scope, never)


async def never() -> Message:
    raise AssertionError("the body was read")


@pytest.mark.parametrize("query", [b"a=%00", b"%00=1", b"a=1&b=x%00y"])
async def test_nul_in_a_query_is_refused(query: bytes) -> None:
    """A query with NUL is invalid before any route sees it; an escaped percent sign before `00` is not NUL."""
    problem = await see("/", query)
    assert problem is not None
    assert problem["status"] == 422
    assert problem["errors"] == [{"pointer": "", "code": "invalid_characters", "detail": "The query holds NUL."}]
    assert await see("/a%00", b"a=%2500") is None


@pytest.mark.parametrize("character", [chr(number) for number in (*range(0x20), *range(0x7F, 0xA0))], ids=ascii)
async def test_no_route_has_a_control_character(character: str) -> None:
    """A path with a control character is not found before any route sees it."""
    for path in (f"/{character}", f"/a{character}", f"{character}/a", f"/a{character}b"):
        problem = await see(path, b"")
        assert problem is not None
        assert problem["code"] == "not_found"
    for path in ("/ ", "/~", "/\xa0", "/\xad", "/ä"):
        assert await see(path, b"") is None


@given(st.recursive(st.none() | st.text(':{}[]"\\a'), nested, max_leaves=30))
def test_members_are_counted_by_object(value: object) -> None:
    """The check and Python's parser agree on whether an object has too many members."""

    def largest(value: object) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return max([len(value) if isinstance(value, dict) else 0, *map(largest, inner)])

    with mock.patch("tequipy_platform.web.limits.MAX_MEMBERS", 3):
        try:
            check_json(json.dumps(value).encode(), 64)
        except MalformedBody:
            assert largest(value) > 3
        else:
            assert largest(value) <= 3


def test_depth_is_counted_outside_of_strings() -> None:
    """The allowed depth passes, one level more does not, and brackets in strings do not count."""
    check_json(b"[" * 5 + b"]" * 5, 5)
    check_json(b'["\\"[[[[[["]', 1)
    with pytest.raises(MalformedBody):
        check_json(b"[" * 6 + b"]" * 6, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"[]" * 500_000,
        (b"[" * 64 + b"]" * 64) * 8_000,
        b'"' + b'\\"' * 500_000,
        b'"' * 1_000_001,
        b"{[" * 500_000,
        b'{"a":' * 200_000,
        b"[" + b"{:}," * 250_000 + b"]",
        (b'{"a":' * 60 + b"0" + b"}" * 60 + b",") * 2_800,
        b"{" + b":" * 1_000_000 + b"}",
        b":" * 1_000_000,
    ],
)
def test_the_check_takes_linear_time(body: bytes) -> None:
    """A megabyte of adversarial JSON is checked within seconds."""
    started = time.process_time()
    with contextlib.suppress(MalformedBody):
        check_json(body, 64)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("content_types", [[b"application/json"], [b"application/json", b"text/plain"]], ids=len)
async def test_the_first_content_type_counts(content_types: list[bytes]) -> None:
    """A second Content-Type does not bypass the check, because frameworks use the first."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"[" * 100, "more_body": False}

    headers = [(b"content-length", b"100"), *((b"content-type", content_type) for content_type in content_types)]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    problem = await refusal(scope, receive)
    assert problem is not None
    assert problem["code"] == "malformed_body"


async def test_a_body_over_http2_is_checked_without_a_length() -> None:
    """HTTP/2 and 3 need no header field to send a body (RFC 9113, section 8.1), which is still limited and checked."""

    def request(body: bytes, version: str) -> tuple[Scope, Receive]:
        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
        return scope | {"http_version": version}, receive

    codes = []
    for version in ("2", "3"):
        for body in (b"[" * 100, b" " * (1024 * 1024 + 1), b"[]"):
            problem = await refusal(*request(body, version))
            codes.append(problem and problem["code"])
    assert codes == ["malformed_body", "body_too_large", None] * 2


async def test_a_length_of_many_digits_is_too_large() -> None:
    """A Content-Length of many digits is refused without converting it to a number."""

    headers = [(b"content-length", b"9" * 5000)]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    problem = await refusal(scope, never)
    assert problem is not None
    assert problem["code"] == "body_too_large"


async def test_a_shutdown_while_the_body_is_read_is_unavailable() -> None:
    """A request whose body is still being read when the server cancels it gets 503, and the cancellation goes on."""
    sent: list[Message] = []
    headers = [(b"transfer-encoding", b"chunked")]
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}

    async def receive() -> Message:
        raise asyncio.CancelledError

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(asyncio.CancelledError):
        await Pipeline(PlainTextResponse(""), [LimitBodies()])({"app": FastAPI(), **scope}, receive, send)
    assert [message.get("status") for message in sent] == [503, None]

"""Checks of path, query and body before anything parses them."""

import contextlib
import json
import time
from typing import Any
from unittest import mock

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tequipy_observability.api import route_table
from tequipy_platform import Invalid, NotFound
from tequipy_platform.api.limits import BodyLimits, LimitBodies, check_json, is_json
from tequipy_platform.api.problems import BodyTooLarge, MalformedBody


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return lists and objects of the given values."""
    return st.lists(inner, max_size=5) | st.dictionaries(st.text(":{}a", max_size=3), inner, max_size=6)


def limited(app: ASGIApp) -> LimitBodies:
    """Return the middleware in front of an app without routes."""
    return LimitBodies(app, BodyLimits(), routes=route_table(FastAPI()), sizes={})


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


async def see(path: str, query: bytes) -> None:
    """Send a request without a body; raises `LookupError` when the middleware lets it pass."""

    async def seen(*_: object) -> Any:
        raise LookupError

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    await limited(seen)(scope, seen, seen)


@pytest.mark.parametrize("query", [b"a=%00", b"%00=1", b"a=1&b=x%00y"])
async def test_nul_in_a_query_is_refused(query: bytes) -> None:
    """A query with NUL is invalid before any route sees it; an escaped percent sign before `00` is not NUL."""
    with pytest.raises(Invalid) as error:
        await see("/", query)
    assert error.value.members["errors"] == [
        {"pointer": "", "code": "invalid_characters", "detail": "The query holds NUL."}
    ]
    with pytest.raises(LookupError):
        await see("/a%00", b"a=%2500")


@pytest.mark.parametrize("character", [chr(number) for number in (*range(0x20), *range(0x7F, 0xA0))], ids=ascii)
async def test_no_route_has_a_control_character(character: str) -> None:
    """A path with a control character is not found before any route sees it."""
    for path in (f"/{character}", f"/a{character}", f"{character}/a", f"/a{character}b"):
        with pytest.raises(NotFound):
            await see(path, b"")
    for path in ("/ ", "/~", "/\xa0", "/\xad", "/ä"):
        with pytest.raises(LookupError):
            await see(path, b"")


@given(st.recursive(st.none() | st.text(':{}[]"\\a'), nested, max_leaves=30))
def test_members_are_counted_by_object(value: object) -> None:
    """The check and Python's parser agree on whether an object has too many members."""

    def largest(value: object) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return max([len(value) if isinstance(value, dict) else 0, *map(largest, inner)])

    with mock.patch("tequipy_platform.api.limits.MAX_MEMBERS", 3):
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

    async def never(*_: object) -> None:
        raise AssertionError("the body was let through")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"[" * 100, "more_body": False}

    headers = [(b"content-length", b"100"), *((b"content-type", content_type) for content_type in content_types)]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    with pytest.raises(MalformedBody):
        await limited(never)(scope, receive, never)


async def test_a_length_of_many_digits_is_too_large() -> None:
    """A Content-Length of many digits is refused without converting it to a number."""

    async def never(*_: object) -> Any:
        raise AssertionError("the body was read")

    headers = [(b"content-length", b"9" * 5000)]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    with pytest.raises(BodyTooLarge):
        await limited(never)(scope, never, never)

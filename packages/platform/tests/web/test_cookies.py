"""Cookies are read by name from the raw header, in linear time and without Python's own parser."""

import http.cookies
import time
from typing import Annotated

import httpx
import pytest
from fastapi import Cookie, FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from tequipy_platform.web import LimitBodies, Pipeline, read_cookie
from tequipy_platform.web.cookies import hide_cookies


def request(*headers: bytes) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"host", b"a"), *((b"cookie", value) for value in headers)]})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([b"refresh=rt1.a.b"], "rt1.a.b"),
        ([b"a=1; refresh=x; b=2"], "x"),
        ([b"a=1;refresh = x ;b=2"], "x"),
        ([b"a=1", b"refresh=x"], "x"),  # HTTP/2 may send each cookie in its own header (RFC 9113, section 8.2.3)
        ([b"refresh=first; refresh=second"], "first"),
        ([b'refresh="quoted\\"value"'], '"quoted\\"value"'),
        ([b"refresh=a=b=="], "a=b=="),
        ([b"refresh=\xff"], "\xff"),
        ([b"refresh="], ""),
        ([b"xrefresh=1; refresh2=2; Refresh=3; a=refresh=4; refresh"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_a_cookie_is_found_by_its_name(headers: list[bytes], expected: str | None) -> None:
    """The first cookie with exactly this name is returned as it was sent."""
    assert read_cookie(request(*headers), "refresh") == expected


@given(
    st.lists(
        st.tuples(st.text("abc-_", min_size=1), st.text(st.characters(codec="latin-1", exclude_characters=";"))),
        max_size=8,
    )
)
def test_every_cookie_of_a_header_is_found(pairs: list[tuple[str, str]]) -> None:
    """For values without a semicolon, each name returns the first value that was sent under it."""
    asked = request("; ".join(f"{name}={value}" for name, value in pairs).encode("latin-1"))
    for name, _ in pairs:
        assert read_cookie(asked, name) == next(value for key, value in pairs if key == name).strip()


async def test_the_framework_parses_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a route nor FastAPI itself passes a cookie to `http.cookies`."""

    def refuse(_: str) -> str:
        raise AssertionError("the cookie was parsed")

    app = FastAPI(middleware=[Middleware(Pipeline, [LimitBodies()])])

    @app.get("/")
    async def show(request: Request, a: Annotated[str | None, Cookie()] = None) -> list[str | None]:
        return [read_cookie(request, "a"), request.cookies.get("a"), a]

    monkeypatch.setattr(http.cookies, "_unquote", refuse)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/", headers={"cookie": 'a="1"'})
    assert (answer.status_code, answer.json()) == (200, ['"1"', None, None])


@pytest.mark.parametrize("piece", [b'\\"', b";", b" ", b"refresh", b";refresh", b"; refresh ", b"=", b";\t"])
def test_a_long_header_costs_little(piece: bytes) -> None:
    """A header of sixteen times the length takes at most about sixteen times as long, whatever it contains."""

    def seconds(size: int) -> float:
        header = b'a="' + piece * (size // len(piece))
        started = time.process_time()
        for _ in range(max(1, 2**20 // size)):
            scope = request(header).scope
            hide_cookies(scope)
            read_cookie(HTTPConnection(scope), "refresh")
        return time.process_time() - started

    short, long = (min(seconds(size) for _ in range(3)) for size in (2**14, 2**18))
    assert long < 8 * short  # both parse the same total number of bytes

"""Header fields of requests: invalid ones are refused without showing them, and redirects take no secrets along."""

import traceback

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.proving.upstream import Exchange, Upstream, head
from tequipy_platform.http import HttpClients
from tequipy_platform.testing.http import MemoryUpstreams

from .conftest import Calling
from .http2_upstream import Http2Connection

SECRET = "s3cr3t"
INJECTED = f"{SECRET}\r\nX-Admin: 1"
INVALID = (INJECTED, f"{SECRET}\n", f" {SECRET}", f"{SECRET}\0", f"{SECRET}\x1b[2J")
URL = "https://api.example.com/prices"


@pytest.mark.parametrize("value", INVALID)
async def test_an_invalid_field_is_refused_without_its_value(http: HttpClients, upstream: Upstream, value: str) -> None:
    """An API key with a line break, as from a file, is sent to nobody and is in no text of the error."""
    with pytest.raises(httpx.LocalProtocolError, match=r"^The value of X-API-Key is not valid\.$") as refused:
        await http.default.get(upstream.url + "/ok", headers={"X-API-Key": value})
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert not upstream.requests


@pytest.mark.parametrize("value", INVALID)
async def test_no_field_is_injected_over_http2(calling: Calling, value: str) -> None:
    """With HTTP/2, whose frames can hold any bytes, invalid values are refused too, and the host is not blamed."""

    async def answer(connection: Http2Connection, stream: int, _path: str) -> None:
        connection.answer(stream)

    async with calling(answer) as (upstream, http):
        for _ in range(20):
            with pytest.raises(httpx.LocalProtocolError):
                await http.default.get(upstream.url, headers={"X-API-Key": value})
        assert (await http.default.get(upstream.url)).http_version == "HTTP/2"
        assert [len(connection.requests) for connection in upstream.connections] == [1]


@pytest.mark.parametrize(
    "response",
    [
        f"HTTP/1.1 200 OK\r\nSet-Cookie : session={SECRET}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nSet-Cookie: session={SECRET}\0\r\n\r\n",
        f"{SECRET}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
    ],
)
async def test_an_invalid_response_is_not_quoted(http: HttpClients, upstream: Upstream, response: str) -> None:
    """A response that breaks the rules of HTTP is an error that shows nothing of it, not even as its cause."""

    async def invalid(exchange: Exchange) -> bool:
        await exchange.write(response.encode())
        return False

    with pytest.raises(httpx.RemoteProtocolError) as failed:
        await http.default.post(upstream.route("/invalid", invalid))
    assert SECRET not in "".join(traceback.format_exception(failed.value))
    assert str(failed.value)


async def test_the_data_of_goaway_is_not_quoted(calling: Calling) -> None:
    """HTTP/2 servers can add a text when they end a connection, which may repeat what they got."""

    async def end(connection: Http2Connection, _stream: int, _path: str) -> None:
        frame = (0).to_bytes(4) + (1).to_bytes(4) + SECRET.encode()
        connection.writer.write(len(frame).to_bytes(3) + b"\x07\x00" + (0).to_bytes(4) + frame)

    async with calling(end) as (upstream, http):
        with pytest.raises(httpx.RemoteProtocolError) as failed:
            await http.default.post(upstream.url)
    assert SECRET.encode().hex() not in "".join(traceback.format_exception(failed.value))  # as h2 shows it


@pytest.mark.parametrize(
    ("method", "name"), [("GET /admin HTTP/1.1\r\nX: ", "X-Name"), ("GET", "X-Name: 1\r\nX-Admin")]
)
async def test_invalid_names_and_methods_are_refused(method: str, name: str) -> None:
    """A method or a name that would end the line is refused, by the upstreams in memory too."""
    upstreams = MemoryUpstreams()
    upstreams.route("*", httpx.Response(200))
    async with upstreams.clients as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.default.request(method, URL, headers={name: "1"})
    assert not upstreams.requests


@pytest.mark.parametrize("port", [0, 65536, 99999])
async def test_a_port_that_cannot_exist_is_an_error_of_httpx(http: HttpClients, upstream: Upstream, port: int) -> None:
    """A port beyond 65535, of a user or of a redirect, is no error of the event loop, and is not retried."""

    async def moved(exchange: Exchange) -> bool:
        await exchange.write(head(302, {"Location": f"http://127.0.0.1:{port}/", "Content-Length": "0"}))
        return True

    url = upstream.route("/moved", moved)
    for client, address in (
        (http.default, url),
        (http.default, f"http://127.0.0.1:{port}/"),
        (http.webhooks, f"http://8.8.8.8:{port}/"),
    ):
        with pytest.raises(httpx.LocalProtocolError, match="port"):
            await client.get(address)


@pytest.mark.parametrize("url", ["https://api.example.com/\udc80", "https://\udc80/"])
async def test_lone_surrogates_are_no_url(http: HttpClients, url: str) -> None:
    """JSON of users can contain lone surrogates, which no URL can."""
    with pytest.raises(httpx.InvalidURL):
        await http.webhooks.post(url)


@given(value=st.binary(max_size=20))
async def test_what_is_sent_is_what_was_given(value: bytes) -> None:
    """Any bytes either are refused, or arrive as they are and could not end the field."""
    upstreams = MemoryUpstreams()
    upstreams.route("*", httpx.Response(200))
    async with upstreams.clients as http:
        try:
            await http.default.get(URL, headers={b"X-Value": value})
        except httpx.LocalProtocolError:
            assert value != value.strip() or any(byte < 32 or byte == 127 for byte in value)
            return
    assert (b"X-Value", value) in upstreams.requests[0].headers.raw
    assert not any(byte in b"\r\n\0" for byte in value)


SECRETS = {
    "X-API-Key": SECRET,
    "Authorization": SECRET,
    "Proxy-Authorization": SECRET,
    "api-key": SECRET,
    "Cookie": "a=1",
}


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("https://api.example.com/other", True),
        ("https://api.example.com:443/other", True),
        ("https://other.example.com/", False),
        ("https://api.example.com:8443/", False),
        ("http://api.example.com/", False),
    ],
)
async def test_a_redirect_takes_no_secrets_to_another_server(location: str, *, kept: bool) -> None:
    """Another scheme, host or port gets no field that may be a secret, but what describes the wanted answer."""
    upstreams = MemoryUpstreams()
    upstreams.route("*", httpx.Response(200))
    upstreams.route(f"GET {URL}", httpx.Response(302, headers={"Location": location}))
    async with upstreams.clients as http:
        await http.default.get(URL, headers=SECRETS | {"Range": "bytes=0-9", "X-Correlation-ID": "abc"})
    sent = upstreams.requests[1].headers
    assert (sent["Range"], sent["X-Correlation-ID"], sent["User-Agent"]) == ("bytes=0-9", "abc", "test/0")
    assert ("X-API-Key" in sent, "api-key" in sent, "Authorization" in sent) == (kept, kept, kept)
    assert (SECRET in str(sent.raw)) is kept


async def test_secrets_do_not_come_back_with_a_second_redirect() -> None:
    """A server that redirects to a third one, or back, sends no field there that it has not got itself."""
    upstreams = MemoryUpstreams()
    upstreams.route("*", httpx.Response(200))
    upstreams.route(f"GET {URL}", httpx.Response(302, headers={"Location": "https://b.example.com/"}))
    upstreams.route("GET https://b.example.com/", httpx.Response(302, headers={"Location": "https://api.example.com/"}))
    async with upstreams.clients as http:
        await http.default.get(URL, headers=SECRETS)
    assert [SECRET in str(request.headers.raw) for request in upstreams.requests] == [True, False, False]


async def test_an_upgrade_to_https_keeps_the_fields() -> None:
    """The same host by HTTPS instead of HTTP, at their usual ports, gets all fields, as with httpx."""
    upstreams = MemoryUpstreams()
    upstreams.route("*", httpx.Response(200))
    upstreams.route(
        "GET http://api.example.com/", httpx.Response(301, headers={"Location": "https://api.example.com/"})
    )
    async with upstreams.clients as http:
        await http.default.get("http://api.example.com/", headers=SECRETS)
    assert upstreams.requests[1].headers["X-API-Key"] == SECRET

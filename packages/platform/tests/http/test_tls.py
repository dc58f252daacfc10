"""Which certificates are accepted, and what is said about the others."""

import logging
import socket
from pathlib import Path
from typing import Any

import httpcore2
import httpx
import pytest

from tequipy_devstack.proving.certificates import Authority
from tequipy_platform.http import HttpSettings, build_http_clients

from .http2_upstream import Http2Connection, Http2Upstream


async def answer(connection: Http2Connection, stream: int, _: str) -> None:
    connection.answer(stream)


@pytest.mark.parametrize("fault", ["none", "other authority", "other name", "expired"])
@pytest.mark.parametrize("profile", ["default", "llm", "health"])
async def test_a_certificate_of_a_trusted_authority_for_the_host_is_accepted(
    fault: str, profile: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`ca_file` replaces the public authorities; any other certificate is a `ConnectError`, and not in the log."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    issuer = theirs if fault == "other authority" else ours
    certificate = issuer.issue("127.0.0.2" if fault == "other name" else "127.0.0.1", expired=fault == "expired")
    settings = HttpSettings(ca_file=ours.certificate, attempts=1)
    async with (
        Http2Upstream(certificate, answer).running() as upstream,
        build_http_clients(settings, app_name="shop", app_version="1") as http,
    ):
        client: httpx.AsyncClient = getattr(http, profile)
        with caplog.at_level(logging.INFO):
            if fault == "none":
                assert (await client.get(upstream.url)).status_code == 200
            else:
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.get(upstream.url)
                print(f"{fault}: {caught.value}")
        assert len(upstream.requests) == (fault == "none")
    assert "certificate" not in caplog.text.lower()
    assert [record.__dict__["outcome"] for record in caplog.records if record.message == "http_client_request"] == [
        "200" if fault == "none" else "connect_error"
    ]


async def test_a_private_authority_is_not_trusted_without_ca_file(tmp_path: Path) -> None:
    """Without `ca_file` the public authorities are trusted, and no other."""
    certificate = Authority(tmp_path / "ours").issue("127.0.0.1")
    async with (
        Http2Upstream(certificate, answer).running() as upstream,
        build_http_clients(HttpSettings(attempts=1), app_name="shop", app_version="1") as http,
    ):
        with pytest.raises(httpx.ConnectError):
            await http.default.get(upstream.url)
        assert upstream.requests == []


@pytest.mark.parametrize("name", ["hook.example.com", "other.example.com"])
async def test_a_webhook_needs_a_certificate_for_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webhooks client connects to the checked address, and verifies the certificate for the name in the URL."""
    ours = Authority(tmp_path / "ours")
    connect = httpcore2.AnyIOBackend.connect_tcp

    def look_up(host: str, port: int, **_: object) -> object:
        assert host == "hook.example.com"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    async def connect_locally(backend: httpcore2.AnyIOBackend, host: str, *args: Any, **options: Any) -> object:
        assert host == "93.184.216.34"
        return await connect(backend, "127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_locally)
    settings = HttpSettings(ca_file=ours.certificate, attempts=1)
    async with (
        Http2Upstream(ours.issue(name), answer).running() as upstream,
        build_http_clients(settings, app_name="shop", app_version="1") as http,
    ):
        url = f"https://hook.example.com:{upstream.port}/"
        if name == "hook.example.com":
            assert (await http.webhooks.post(url)).status_code == 200
        else:
            with pytest.raises(httpx.ConnectError):
                await http.webhooks.post(url)
        assert len(upstream.requests) == (name == "hook.example.com")

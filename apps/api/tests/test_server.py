"""The shipped server as a real process: trusted proxies, limits and garbage collection."""

import gc
import json
import os
import socket

import httpx
import pytest

from tequipy_api.server import DrainingServer, serve
from tequipy_api.settings import ApiSettings
from tequipy_devstack.proving import fetch

from .instance import LOGIN, StartApi, begin_login, eventually, read_answer


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        ("[]", {"8.8.8.8": "127.0.0.1"}),
        ('["10.0.0.0/8"]', {"8.8.8.8": "127.0.0.1"}),
        (
            '["127.0.0.0/8", "10.0.0.0/8"]',
            {
                "8.8.8.8": "8.8.8.8",
                "6.6.6.6, 8.8.8.8": "8.8.8.8",
                "6.6.6.6, 8.8.8.8, 10.1.2.3": "8.8.8.8",
                "6.6.6.6, 2001:db8::1": "2001:db8::1",
            },
        ),
    ],
)
def test_only_trusted_proxies_determine_the_client_address(
    start_api: StartApi, trusted: str, expected: dict[str, str]
) -> None:
    """X-Forwarded-For of a trusted peer is read from right to left up to the first untrusted address."""
    instance = start_api(TEQUIPY_TRUSTED_PROXIES=trusted, WEB_CONCURRENCY="2", FORWARDED_ALLOW_IPS="*")
    instance.wait_until_ready()
    for forwarded in expected:
        answer = fetch(f"{instance.url}/api/v1/auth/me", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == 401
        assert "server" not in answer.headers

    def logged() -> list[str]:
        lines = [json.loads(line) for line in instance.log.read_text().splitlines()]
        return [line["ip"] for line in lines if line.get("route") == "/api/v1/auth/me"]

    eventually("every access is logged", lambda: len(logged()) == len(expected))
    assert logged() == list(expected.values())


def test_clients_that_disconnect_cause_no_error(start_api: StartApi) -> None:
    """A client that disconnects in the middle of a body causes no error."""
    instance = start_api()
    instance.wait_until_ready()
    for _ in range(20):
        begin_login(instance)[0].close()
        head = [f"POST {LOGIN} HTTP/1.1", "Host: test", "Content-Type: application/json", "Transfer-Encoding: chunked"]
        with socket.create_connection(("127.0.0.1", instance.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*head, "", "5", '{"ema']).encode())

    def accesses() -> list[str]:
        return [line for line in instance.log.read_text().splitlines() if '"route":"/api/v1/auth/login"' in line]

    eventually("every request is over", lambda: len(accesses()) == 40)
    assert not [line for line in instance.log.read_text().splitlines() if '"level":"ERROR"' in line]
    assert instance.status("/api/v1/health") == 200


def test_a_server_without_standard_output_works(start_api: StartApi) -> None:
    """Started with closed standard output (`>&-`), the server works without logs."""
    instance = start_api(before="exec >&-")
    instance.wait_until_ready()
    assert [instance.status(path) for path in ("/api/v1/health", "/nowhere", "/api/v1/auth/me")] == [200, 404, 401]
    assert instance.log.read_text() == ""


def test_connections_are_limited(start_api: StartApi) -> None:
    """A large head gives 431, a slow head or body 408, and `Upgrade` is ignored; each gets one response."""
    instance = start_api(
        TEQUIPY_SERVER__MAX_HEAD_SIZE="2000", TEQUIPY_SERVER__HEAD_TIMEOUT="1", TEQUIPY_SERVER__BODY_TIMEOUT="1"
    )
    instance.wait_until_ready()
    post = f"POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
    upgrade = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"

    def ask(*pieces: bytes) -> str:
        with socket.create_connection(("127.0.0.1", instance.port), timeout=30) as connection:
            for piece in pieces:
                connection.sendall(piece)
            answer = read_answer(connection)
        assert answer.count("http/1.1 ") == answer.count("x-correlation-id: ") == answer.count("cache-control: ") == 1
        assert "connection: close\r\n" in answer
        return answer.split()[1]

    assert ask(post + b"X-Huge: " + b"x" * 2000) == "431"
    assert ask(post + b"X-Slow: ") == "408"
    assert ask(post + b"Content-Length: 10\r\n\r\n{") == "408"
    assert ask(post + upgrade + b"Content-Length: 2\r\n\r\n{}") == "422"
    assert ask(post + upgrade + b"Content-Length: 2\r\n\r\n", b"{", b"}") == "422"
    assert ask(b"\x16\x03\x01") == "400"


def test_more_connections_than_files_are_a_wrong_setting(start_api: StartApi) -> None:
    """A connection limit over the file limit ends the process with status 78 and the possible maximum."""
    instance = start_api(before="ulimit -n 1024", TEQUIPY_SERVER__MAX_CONNECTIONS="1000")
    assert instance.process.wait(60) == os.EX_CONFIG
    (line,) = instance.log.read_text().splitlines()
    assert line.startswith("TEQUIPY_SERVER__MAX_CONNECTIONS: should be at most 881: ")


def test_a_body_without_a_length_has_the_limit_too(start_api: StartApi) -> None:
    """A chunked megabyte is refused with 413 after 64 KiB of it have arrived."""
    instance = start_api()
    instance.wait_until_ready()
    answer = httpx.post(f"{instance.url}{LOGIN}", content=(b"x" * 65_536 for _ in range(2)))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_start_up_objects_are_excluded_from_garbage_collection(
    settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first request all existing objects are excluded from garbage collection."""
    left: list[int] = []
    monkeypatch.setattr(DrainingServer, "run", lambda _: left.append(len(gc.get_objects())))
    gc.unfreeze()  # pytest's conftest.py has excluded its objects too
    built = len(gc.get_objects())
    serve(settings, host="127.0.0.1", port=0)
    assert left[0] < built / 10

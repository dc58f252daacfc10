"""The Webhooks profile connects to global addresses alone, whatever a URL or a name server says."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from ipaddress import ip_address

import httpcore2
import httpx
import pytest

from tequipy_platform.http import AddressRefused, HttpClients, HttpProfile, HttpSettings, build_http_clients

PUBLIC = "93.184.216.34"
OTHER_PUBLIC = "2606:2800:220:1:248:1893:25c8:1946"


class Network:
    """A server on all addresses of this machine, and a resolver of names; both count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, Callable[[], list[str]]] = {}
        self.lookups: list[str] = []
        self.connected = 0
        self.targets: list[str] = []
        self.unreachable: set[str] = set()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.port = 0
        resolve = socket.getaddrinfo
        connect = httpcore2.AnyIOBackend.connect_tcp

        def look_up(host: str, port: int, *args: object, **options: object) -> object:
            if host not in self.names:
                return resolve(host, port, *args, **options)  # type: ignore[arg-type]
            self.lookups.append(host)
            found = [ip_address(address) for address in self.names[host]()]
            families = {4: socket.AF_INET, 6: socket.AF_INET6}
            return [(families[one.version], socket.SOCK_STREAM, 6, "", (str(one), port)) for one in found]

        async def connect_tcp(backend: httpcore2.AnyIOBackend, host: str, *args: object, **options: object) -> object:
            """Connect to the server instead, if the address is public."""
            self.targets.append(host)
            if host in self.unreachable:
                raise httpcore2.ConnectError("unreachable")
            if host in {PUBLIC, OTHER_PUBLIC}:
                host = "127.0.0.1"
            return await connect(backend, host, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_tcp)

    def name(self, host: str, *answers: list[str]) -> str:
        """Let `host` have these answers, one after the other, the last one for ever; return its URL."""
        left = list(answers)
        self.names[host] = lambda: left.pop(0) if len(left) > 1 else left[0]
        return f"http://{host}:{self.port}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request of a connection."""
        self.connected += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
        writer.close()


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    network = Network(monkeypatch)
    dual = socket.has_dualstack_ipv6()
    listener = socket.create_server(("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual)
    network.port = listener.getsockname()[1]
    async with await asyncio.start_server(network.serve, sock=listener):
        yield network


@pytest.fixture
async def http() -> AsyncIterator[HttpClients]:
    async with build_http_clients(HttpSettings(), app_name="shop", app_version="1") as clients:
        yield clients


FORMS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "127.255.255.254",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::1%lo]",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    "[64:ff9b::7f00:1]",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "example.com@127.0.0.1",
    "127.0.0.1#@example.com",
    "127.0.0.1\\@example.com",
    "%31%32%37.0.0.1",
    "169.254.169.254",
    "10.0.0.1",
    "100.100.100.200",
    "[fd00:ec2::254]",
]


@pytest.mark.parametrize("host", FORMS)
async def test_no_form_of_a_private_address_is_connected_to(host: str, network: Network, http: HttpClients) -> None:
    """Whatever the spelling of an address in a URL, there is no connection."""
    before, _, after = host.partition("#")
    url = f"http://{before}:{network.port}/" + ("#" + after if after else "")
    with pytest.raises((AddressRefused, httpx.InvalidURL, httpx.ConnectError)) as caught:
        await http.webhooks.post(url)
    print(f"{url}: {type(caught.value).__name__}, connected ({network.connected}), targets {network.targets}")
    assert (network.connected, network.targets) == (0, [])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "0.0.0.0",
     "2002:7f00:1::1", "64:ff9b::a00:1", "fd00:ec2::254", "fe80::1", "192.168.1.1", "172.31.0.1", "224.0.0.1"],
)  # fmt: skip
async def test_no_name_of_a_private_address_is_connected_to(address: str, network: Network, http: HttpClients) -> None:
    """A name that has a private address, alone or beside a public one, gets no connection."""
    alone = network.name("alone.example.com", [address])
    beside = network.name("beside.example.com", [PUBLIC, address])
    for url in (alone, beside):
        with pytest.raises(AddressRefused):
            await http.webhooks.post(url)
        print(f"{url} -> {address}: connected ({network.connected})")
    assert (network.connected, network.targets) == (0, [])


async def test_the_checked_address_is_the_one_connected_to(network: Network, http: HttpClients) -> None:
    """A name whose answer changes is looked up once for each connection: the checked address gets the request."""
    url = network.name("rebind.example.com", [PUBLIC], ["127.0.0.1"])
    assert (await http.webhooks.post(url)).status_code == 200
    assert (network.lookups, network.targets, network.connected) == (["rebind.example.com"], [PUBLIC], 1)
    # The connection that is kept alive still leads to the checked address; a new one is checked again.
    assert (await http.webhooks.post(url)).status_code == 200
    assert (len(network.lookups), network.connected) == (1, 1)
    with pytest.raises(AddressRefused):
        await http.webhooks.post(url.replace(str(network.port), "9"))
    print(f"lookups {network.lookups}, connected to {network.targets}")
    assert (len(network.lookups), network.targets) == (2, [PUBLIC])


async def test_no_redirect_leads_to_a_private_address(network: Network, http: HttpClients) -> None:
    """A public server that redirects to a private address has its redirect returned, and is not followed."""
    url = network.name("redirect.example.com", [PUBLIC])
    location = f"http://127.0.0.1:{network.port}/"
    network.answer = f"HTTP/1.1 307 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    response = await http.webhooks.post(url)
    assert (response.status_code, network.targets) == (307, [PUBLIC])
    assert response.next_request is not None
    with pytest.raises(AddressRefused):
        await http.webhooks.send(response.next_request)
    assert (network.connected, network.targets) == (1, [PUBLIC])


async def test_an_address_that_refuses_leaves_the_others(network: Network, http: HttpClients) -> None:
    """The second address of a host is used when the first one does not accept."""
    url = network.name("two.example.com", [OTHER_PUBLIC, PUBLIC])
    network.unreachable = {OTHER_PUBLIC}
    assert (await http.webhooks.get(url)).status_code == 200
    assert network.targets == [OTHER_PUBLIC, PUBLIC]


async def test_a_refusal_is_final_and_says_nothing_about_the_host(
    network: Network, http: HttpClients, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not retried, opens no circuit breaker, and neither error nor log names the address."""
    url = network.name("private.example.com", ["10.1.2.3"])
    with caplog.at_level(logging.DEBUG):
        for _ in range(40):
            with pytest.raises(AddressRefused) as caught:
                await http.webhooks.get(url)
            assert "10.1.2.3" not in str(caught.value)
    assert len(network.lookups) == 40
    assert "10.1.2.3" not in caplog.text
    lines = [record for record in caplog.records if record.message == "http_client_request"]
    assert [(record.__dict__["outcome"], record.__dict__["attempts"]) for record in lines] == [
        ("address_refused", 1)
    ] * 40


async def test_the_other_profiles_may_use_the_own_network(network: Network, http: HttpClients) -> None:
    """The operator chooses the hosts of the other profiles, which may be private."""
    for client in (http.default, http.llm, http.health):
        assert (await client.get(f"http://127.0.0.1:{network.port}/")).status_code == 200


async def test_a_name_server_that_does_not_answer_delays_only_webhooks(network: Network) -> None:
    """Lookups that hang end with the time for a connection, and block no lookup of another profile."""
    released = threading.Event()
    asked = 0

    def hang() -> list[str]:
        nonlocal asked
        asked += 1
        released.wait(60)
        return [PUBLIC]

    profile = HttpProfile(connect=0.2, read=1, total=1)
    settings = HttpSettings(webhooks=profile, attempts=1)
    network.names["slow.example.com"] = hang
    try:
        async with build_http_clients(settings, app_name="shop", app_version="1") as http:
            calls = (http.webhooks.get(f"http://slow.example.com:{network.port}/") for _ in range(50))
            results = await asyncio.gather(*calls, return_exceptions=True)
            # Eight lookups hang, and the others do not begin in time.
            assert {type(result) for result in results} == {httpx.ConnectTimeout, httpx.PoolTimeout}
            # asyncio looks names up in the threads of the event loop, of which there are fewer than 50.
            assert (await http.default.get(f"http://localhost:{network.port}/")).status_code == 200
    finally:
        released.set()
    print(f"50 calls: {asked} threads waited")
    assert asked <= 8


async def test_a_name_that_cannot_be_looked_up_is_a_connect_error(network: Network, http: HttpClients) -> None:
    """A name that does not exist, or that no resolver accepts, is an error of httpx."""

    def fail() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    network.names["unknown.example.com"] = fail
    for host in ("unknown.example.com", "a" * 64 + ".example.com", "a..example.com"):
        for client in (http.webhooks, http.default):
            with pytest.raises((httpx.ConnectError, httpx.InvalidURL)) as caught:
                await client.post(f"http://{host}:{network.port}/")
            print(f"{host[:20]}: {caught.value!r}")

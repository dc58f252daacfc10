"""Clients are made once per process, when they are first used."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tequipy_devstack.proving.upstream import Exchange, Upstream, reply
from tequipy_platform.http import HttpClients, HttpSettings, build_http_clients

PROGRAM = Path(__file__).with_name("forking_program.py")
HUNG_LOOKUP_PROGRAM = Path(__file__).with_name("hung_lookup_program.py")


async def test_a_forked_child_has_connections_of_its_own(upstream: Upstream) -> None:
    """A child that is forked after a call opens its own connection, and its parent goes on with the first one."""
    ports: list[int] = []

    async def note_port(exchange: Exchange) -> bool:
        ports.append(exchange.writer.get_extra_info("peername")[1])
        return await reply()(exchange)

    url = upstream.route("/port", note_port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert output.split() == [b"200"] * 3, errors.decode()
    parent, child, again = ports
    assert parent == again != child


def test_nothing_is_built_before_it_is_used() -> None:
    """Building the clients, which an app does before it forks, builds no client, no pool and no TLS context."""
    http = build_http_clients(HttpSettings(), app_name="shop", app_version="1")
    assert http._built == {}
    assert "_tls" not in vars(http)


async def test_a_client_is_made_once(http: HttpClients) -> None:
    """Each profile has one client, and the clients share the TLS context."""
    assert http.default is http.default
    assert len({http.default, http.llm, http.health, http.webhooks}) == 4


async def test_the_context_can_be_entered_again(upstream: Upstream) -> None:
    """Clients whose context was left can be used in another one, as those of an app that is started twice."""
    http = build_http_clients(HttpSettings(), app_name="shop", app_version="1")
    for _ in range(2):
        async with http:
            assert (await http.default.get(upstream.url + "/ok")).status_code == 200
    assert len(upstream.requests) == 2


def test_a_lookup_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    """A process ends while the lookup of a host, which cannot be cancelled, goes on for a minute."""
    command = [sys.executable, str(HUNG_LOOKUP_PROGRAM)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=40)
    assert ended.stdout == "DeadlineExceeded\n"

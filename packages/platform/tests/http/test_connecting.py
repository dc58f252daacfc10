"""Connecting to a host with several addresses."""

import asyncio
import itertools
from collections.abc import Sequence

import httpcore2
import pytest

from tequipy_platform.http.connecting import connect_to_first


class FakeStream(httpcore2.AsyncNetworkStream):
    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


class FakeNetwork:
    """Connects to an address as its name says: it `accepts`, `refuses`, or `hangs` for ever."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.streams: list[FakeStream] = []
        self.running = 0

    async def connect(self, address: str) -> httpcore2.AsyncNetworkStream:
        self.tried.append(address)
        self.running += 1
        try:
            if address.startswith("hangs"):
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if address.startswith("refuses"):
                raise httpcore2.ConnectError(address)
            self.streams.append(FakeStream(address))
            return self.streams[-1]
        finally:
            self.running -= 1


@pytest.mark.parametrize(
    ("addresses", "tried"),
    [
        (["accepts", "accepts2"], ["accepts"]),
        (["refuses", "accepts", "accepts2"], ["refuses", "accepts"]),
        (["hangs", "accepts"], ["hangs", "accepts"]),
        (["hangs", "refuses", "accepts"], ["hangs", "refuses", "accepts"]),
    ],
    ids=str,
)
async def test_the_first_address_that_accepts_is_used(addresses: list[str], tried: list[str]) -> None:
    """One that refuses is followed by the next at once, one that does not answer after a moment; none stays open."""
    network = FakeNetwork()
    async with asyncio.timeout(30):
        stream = await connect_to_first(addresses, network.connect)
    assert isinstance(stream, FakeStream)
    assert (stream.address, network.tried, network.running) == ("accepts", tried, 0)
    assert [each for each in network.streams if not each.closed] == [stream]


@pytest.mark.parametrize("addresses", [[], ["refuses1", "refuses2"]], ids=str)
async def test_the_last_error_is_raised(addresses: Sequence[str]) -> None:
    """Without an address, or if all refuse, the call ends with an error of httpcore2."""
    network = FakeNetwork()
    with pytest.raises(httpcore2.ConnectError, match=addresses[-1] if addresses else "no address"):
        await connect_to_first(addresses, network.connect)
    assert network.tried == addresses


async def test_a_cancelled_call_leaves_no_connection() -> None:
    """Whenever a call is cancelled, it leaves no attempt and no open connection that it does not return."""
    ends = set()
    for steps in itertools.takewhile(lambda _: "returned" not in ends, itertools.count()):
        network = FakeNetwork()
        call = asyncio.ensure_future(connect_to_first(["refuses", "accepts", "hangs"], network.connect))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        ends.add("cancelled" if call.cancelled() else "returned")
        returned = [] if call.cancelled() else [call.result()]
        assert network.running == 0
        assert [each for each in network.streams if not each.closed] == returned
    assert ends == {"cancelled", "returned"}


async def test_a_second_cancellation_leaves_no_connection_open() -> None:
    """A call that is cancelled twice, as by its deadline and its caller, closes a connection that was just accepted."""
    for turns in range(8):
        network = FakeNetwork()
        call = asyncio.create_task(connect_to_first(["accepts"], network.connect))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        call.cancel()
        result = (await asyncio.gather(call, return_exceptions=True))[0]
        for _ in range(5):
            await asyncio.sleep(0)
        assert all(stream.closed for stream in network.streams if stream is not result), turns

"""A server at Redis's address may send any response: no call raises because of it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tequipy_caching import CachePolicy, RateDecision, RatePolicy
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.wiring import CacheSettings, build_cache, build_rate_limiter


def resp(value: Any) -> bytes:
    """Return a value in the Redis protocol."""
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(value), value)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(resp, value))
        case _:
            return f"-{value}\r\n".encode()


ERRORS = st.sampled_from(
    ["OOM x", "READONLY x", "MISCONF x", "NOPERM x", "NOAUTH x", "MOVED 1 h:1", "CLUSTERDOWN x", "BUSY x", "NOSCRIPT x"]
)
SCALARS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=80), ERRORS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=8), max_leaves=12)
ANSWERS = st.lists(st.one_of(VALUES.map(resp), st.binary(max_size=30), st.just(b"")), max_size=4)
"""One for each command that arrives; an empty one ends the connection, and so does the end of the list."""


def answered(answers: Sequence[bytes], call: Callable[[str], Awaitable[Any]]) -> Any:
    """Return the result of a call to a server with these responses."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while left and await reader.read(65536):
                answer = left.pop(0)
                if not answer:
                    break
                writer.write(answer)
        writer.close()

    async def run() -> Any:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await call(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    return asyncio.run(run())


@given(
    answers=ANSWERS,
    lease=st.sampled_from([0, 3]),
    on_error=st.sampled_from(["local", "allow", "deny"]),
    cost=st.integers(1, 5),
    key=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.tuples(st.text("ab"), st.uuids())
    ),
)
@settings(max_examples=150)
def test_a_hit_never_raises(answers: list[bytes], lease: int, on_error: Any, cost: int, key: Any) -> None:
    """Whatever a server responds, `hit`, `peek` and `reset` raise nothing."""
    policy = RatePolicy("login", 5, 60, lease=lease, on_store_error=on_error)

    async def call(url: str) -> list[RateDecision]:
        limiter = build_rate_limiter(CacheSettings(url=SecretStr(url), l2_timeout=0.05))
        decisions = [await limiter.hit(policy, key, cost), await limiter.peek(policy, key)]
        await limiter.reset(policy, key)
        decisions.append(await limiter.hit(policy, key))
        await limiter.__aexit__(None, None, None)
        return decisions

    assert all(isinstance(decision, RateDecision) for decision in answered(answers, call))


@given(answers=ANSWERS, lock=st.sampled_from(["process", "cluster"]))
@settings(max_examples=150)
def test_a_cached_read_never_raises(answers: list[bytes], lock: Any) -> None:
    """Whatever a server responds, a load returns its value, and changes and lookups raise nothing."""
    policies = {"words": CachePolicy(ttl=60, lock=lock)}

    async def word() -> str:
        return "loaded"

    async def call(url: str) -> Any:
        manager = build_cache(CacheSettings(url=SecretStr(url), l2_timeout=0.05, policies=policies))
        assert isinstance(manager, TieredCacheManager)
        words, members = manager.cache("words", str), manager.expiring_set("members")
        await words.get_many(["a", "b"])
        loaded = await words.get_or_set("ada", word, tags=["team"])
        await words.delete("ada")
        await members.add("ada", ttl=5)
        assert await members.contains("ada")
        assert not await members.contains("bob")
        await manager.__aexit__(None, None, None)
        return loaded

    assert answered(answers, call) == "loaded"


@pytest.mark.parametrize("answer", [b"*2\r\n:1\r\n:2\r\n", b"+OK\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_the_channel_retries_a_server_that_is_not_redis(
    answer: bytes, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not Redis does not end the listening task: it retries, and is not live."""
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 0.01)
    attempts = 0

    async def call(url: str) -> str:
        async with build_cache(CacheSettings(url=SecretStr(url), l2_timeout=0.05)) as manager:
            assert isinstance(manager, TieredCacheManager)
            connect = manager.link.connect

            def count(connections: int) -> Any:
                nonlocal attempts
                attempts += 1
                return connect(connections)

            monkeypatch.setattr(manager.link, "connect", count)
            await eventually(lambda: attempts > 3)
            return manager.health().backplane

    assert answered([answer] * 100, call) == "deaf"

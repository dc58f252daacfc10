"""L2: the values of one cache in Redis."""

import secrets
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tequipy_caching.cache.keys import Key, encode_key
from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.tiers import Change, Encoded, Lookup, SharedTier
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.codec import Codec
from tequipy_caching.redis.entries import PART, EntryReader, Names, SeenState
from tequipy_caching.redis.envelope import (
    EXPIRED,
    HEADER_BYTES,
    TOMBSTONE,
    VALUE,
    new_state,
    tag_ids_in,
)
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import change_to_json, topic_of
from tequipy_caching.redis.scripts import parsing
from tequipy_caching.redis.writes import as_reason

V = TypeVar("V")

_BATCH_SIZE: Final = 1000
"""How many keys one script handles, because Lua's stack is bounded."""
_CHANGED: Final = 0
"""The result of the script `store` for a key that has changed; 1 means stored, 2 that the mark has vanished."""


@dataclass(frozen=True, slots=True)
class EncodedValue:
    """A value in the form in which Redis stores it."""

    envelope: bytes
    milliseconds: int
    """How long Redis keeps the entry, including the time after the value's ttl."""
    tags: tuple[str, ...]
    fits: bool


class RedisTier(SharedTier[V], Generic[V]):
    """Stores values in Redis with tombstones and generations, so that an invalidated value is never served again."""

    def __init__(
        self,
        name: str,
        type_: Any,  # noqa: ANN401 -- types, unions and special forms
        policy: CachePolicy,
        *,
        link: RedisLink,
        backplane: Backplane,
        tombstone_ttl: float,
        metrics: CacheMetrics,
    ) -> None:
        self.stores = "l2" in policy.tiers
        self._codec: Codec[V] | None = Codec(type_, policy.max_value_bytes) if self.stores else None
        self._topic = topic_of(name)
        self._policy = policy
        self._link = link
        self._backplane = backplane
        self._tombstone_ms = round(tombstone_ttl * 1000)
        self._names = Names.of(link.prefix, name, self._codec.fingerprint if self._codec else b"")
        self._reader = EntryReader(
            policy,
            self._codec,
            self._names,
            link=link,
            backplane=backplane,
            tombstone_ms=self._tombstone_ms,
            unreadable=metrics.tally("cache_requests", name, "l2", "unreadable"),
        )

    @property
    def unreachable(self) -> bool:
        """Whether the circuit breaker is open."""
        return self._link.breaker.open

    def encode(self, key: Key, value: V, ttl: float, tags: Sequence[str]) -> Encoded:
        """Return an encoded value; raise `TypeError` for a value that is not of the cache's type."""
        milliseconds = max(1, round(ttl * 1000))
        # Redis keeps the entry while it may be served stale, and at least as long as a tombstone, because its state
        # keeps earlier loads from storing their values.
        tail = max(0, self._tombstone_ms - milliseconds, round(self._policy.fail_safe * 1000))
        if self._codec is None:
            return EncodedValue(b"", milliseconds, (), fits=True)
        envelope = self._codec.encode(encode_key(key), value, ttl=milliseconds, tail=tail)
        fits = len(envelope) - HEADER_BYTES <= self._policy.max_value_bytes
        return EncodedValue(envelope, milliseconds + tail, tuple(tags), fits)

    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> Mapping[Key, Lookup[V]]:
        """Look up keys, in one round trip for each thousand, and write marks where a value may be stored."""
        lookups: dict[Key, Lookup[V]] = {}
        for start in range(0, len(keys), _BATCH_SIZE):
            lookups |= await self._reader.read(keys[start : start + _BATCH_SIZE], tags, storing=storing)
        return lookups

    async def changed(self, seen: Mapping[Key, object]) -> AbstractSet[Key]:
        """Return the keys that were invalidated, or whose cache or tags were, since a lookup returned these states."""
        by_tags: dict[bytes, dict[Key, SeenState]] = {}
        for key, state in seen.items():
            if isinstance(state, SeenState):
                by_tags.setdefault(state.tags, {})[key] = state
        changed: set[Key] = set()
        for encoded_tags, states in by_tags.items():  # one lookup reads the generations of one group of tags
            tags = tag_ids_in(encoded_tags)
            for start in range(0, len(states), _BATCH_SIZE):
                keys = list(states)[start : start + _BATCH_SIZE]
                now = await self._reader.read(keys, tags, storing=False)
                changed |= {key for key in keys if now[key].seen != states[key]}
        if self._link.recovery.distrusts_all:
            return seen.keys()
        return changed

    async def store(self, loaded: Mapping[Key, tuple[Encoded, object]]) -> AbstractSet[Key]:
        """Store values, each unless its key, cache or tags have changed since the lookup; return the changed keys."""
        items = [
            (key, encoded, seen)
            for key, (encoded, seen) in loaded.items()
            if isinstance(encoded, EncodedValue) and isinstance(seen, SeenState)
        ]
        changed: set[Key] = set()
        for start in range(0, len(items), _BATCH_SIZE):
            part = items[start : start + _BATCH_SIZE]
            for in_side_key in (False, True):
                if some := [item for item in part if item[2].in_side_key is in_side_key]:
                    changed |= await self._store(some, in_side_key=in_side_key)
        return changed

    async def write(self, key: Key, encoded: Encoded) -> None:
        """Store a value unconditionally, and publish the change."""
        if not self.stores or not isinstance(encoded, EncodedValue):
            await self.remove([key])
            return
        names = [self._names.values + encode_key(key), *(self._names.tags + tag for tag in encoded.tags)]
        value = [new_state(VALUE), encoded.envelope, encoded.milliseconds]
        arguments = [
            self._names.generation,
            secrets.token_hex(8),
            *value,
            new_state(TOMBSTONE),
            self._tombstone_ms,
            *encoded.tags,
        ]
        async with self._large_turn(len(encoded.envelope)):
            refusal = await self._run_and_publish("write", names, arguments, Change("delete", [key]))
        if isinstance(refusal, bytes):
            self._link.writes.refuse(as_reason(refusal.decode(errors="replace")), blocked=False)

    async def remove(self, keys: Sequence[Key]) -> None:
        """Replace values with tombstones, and publish this."""
        tombstone = [new_state(TOMBSTONE), self._tombstone_ms]
        await self._run_and_publish("remove", self._full_names(keys), tombstone, Change("delete", keys))

    async def expire(self, keys: Sequence[Key]) -> None:
        """Mark values as expired, so that they may still be served stale, and publish this."""
        states = [new_state(EXPIRED), new_state(TOMBSTONE), self._tombstone_ms, VALUE]
        await self._run_and_publish("expire", self._full_names(keys), states, Change("expire", keys))

    async def remove_tags(self, tags: Sequence[str]) -> None:
        """Invalidate all values with one of these tags, and publish this."""
        await self._run_and_publish("tags", [self._names.tags + tag for tag in tags], [], Change("tags", tags=tags))

    async def clear(self) -> None:
        """Invalidate all values of this cache, and publish this."""
        await self._run_and_publish("clear", [], [self._names.generation, secrets.token_hex(8)], Change("clear"))

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease_ttl: float) -> Mapping[Key, float]:
        """Acquire load leases; return for each key the seconds for which another process holds its lease, or 0.

        A lease is free if nobody holds it, or if its holder's load started before an invalidation.
        """
        names = [self._names.leases + encode_key(key) for key in keys] + self._full_names(keys)
        left = await self._link.run(
            "lock",
            [self._link.state, *names, *(self._names.tags + tag for tag in tags)],
            [token, round(lease_ttl * 1000), len(keys), self._names.generation],
        )
        with parsing("lock"):
            return {key: milliseconds / 1000 for key, milliseconds in zip(keys, left, strict=True)}

    async def unlock(self, keys: Sequence[Key], token: str) -> None:
        """Release load leases, and publish this."""
        names = [self._names.leases + encode_key(key) for key in keys]
        await self._run_and_publish("unlock", names, [token], Change("released", keys))

    async def _store(self, items: Sequence[tuple[Key, EncodedValue, SeenState]], *, in_side_key: bool) -> set[Key]:
        """Store values by compare-and-set, in their main keys or in their side keys; return the changed keys."""
        _, first, seen = items[0]
        arguments: list[Any] = [self._names.generation, seen.generation, len(items), seen.tags]
        for _, encoded, before in items:
            # A value in a side key has the state of the main key.
            states = [before.state] if in_side_key else [before.state, new_state(VALUE)]
            arguments += [*states, encoded.envelope, encoded.milliseconds]
        names = [encode_key(key) for key, _, _ in items]
        starts = (self._names.values, self._names.side_values) if in_side_key else (self._names.values,)
        full = [start + name for start in starts for name in names]
        script = "store_side" if in_side_key else "store"
        async with self._large_turn(sum(len(encoded.envelope) for _, encoded, _ in items)):
            keys = [self._link.state, *full, *(self._names.tags + tag for tag in first.tags)]
            answer = await self._link.run(script, keys, arguments)
        with parsing(script):
            return {key for (key, _, _), outcome in zip(items, answer, strict=True) if outcome == _CHANGED}

    async def _run_and_publish(
        self, script: str, names: Sequence[str], arguments: Sequence[Any], change: Change
    ) -> Any:  # noqa: ANN401 -- as the script's
        message = self._backplane.message(self._topic, change_to_json(change))
        return await self._link.run_and_publish(script, names, arguments, message=message)

    def _large_turn(self, size: int) -> AbstractAsyncContextManager[None]:
        """Return a context that limits concurrent transfers if the size is large, else an empty one."""
        return self._link.large_turns if size > PART else nullcontext()

    def _full_names(self, keys: Sequence[Key]) -> list[str]:
        """Return the names of keys in Redis; none if nothing is stored there, so that a change is only published."""
        return [self._names.values + encode_key(key) for key in keys] if self.stores else []

"""L2: the values of one cache in Redis."""

import secrets
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

from tequipy_caching.domain.keys import Key, encode_key, key_to_json
from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.domain.policies import CachePolicy
from tequipy_caching.domain.ports import MISSING, Missing
from tequipy_caching.domain.tiered import topic_of
from tequipy_caching.domain.tiers import Encoded, Lookup, Operation, SharedTier
from tequipy_caching.infrastructure.backplane import Backplane
from tequipy_caching.infrastructure.codec import Codec
from tequipy_caching.infrastructure.envelope import (
    EXPIRED,
    GENERATION_BYTES,
    HEADER_BYTES,
    MARK,
    STATE_BYTES,
    TOMBSTONE,
    VALUE,
    Opened,
    OtherShape,
    new_state,
)
from tequipy_caching.infrastructure.redis import RedisLink, reading
from tequipy_caching.infrastructure.writes import as_reason

V = TypeVar("V")

_BATCH_SIZE: Final = 1000
"""How many keys one script handles, because Lua's stack is bounded."""
_PART: Final = 1_048_576
"""How many bytes of a value one script reads; larger values are read in parts."""
_CHANGED: Final = 0
"""The result of the script `store` for a key that has changed; 1 means stored, 2 that the mark has vanished."""
_MISS: Final[Lookup[Any]] = Lookup()
_OTHER_SHAPE: Final[Opened] = (b"", (), 0, 0, b"")
"""The parts of an entry whose value has the schema of another release."""
_TOMBSTONED: Final[Lookup[Any]] = Lookup(tombstoned=True)


class SeenState(NamedTuple):
    """The state of a key in Redis at a lookup, which a store compares with the current one."""

    state: bytes
    """The state of the entry, or the mark that the lookup wrote."""
    generation: bytes
    """The generation of the cache."""
    tags: bytes
    """The tags with which the value will be stored, and their generations."""
    in_side_key: bool = False
    """Whether the entry has the schema of another release, so that the value is stored in the side key."""


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
        self._field = f"generation:{name}"
        self._names = f"{link.prefix}:cache:{name}:"
        # No encoded key begins with ~, so side keys never collide with keys.
        self._side_names = f"{self._names}~{self._codec.fingerprint.hex()}:" if self._codec else ""
        self._tags = f"{link.prefix}:tag:{name}:"
        self._leases = f"{link.prefix}:lease:{name}:"
        self._most = _PART if policy.max_value_bytes > _PART else 0
        self._unreadable = metrics.tally("cache_requests", name, "l2", "unreadable")

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
            lookups |= await self._read(keys[start : start + _BATCH_SIZE], tags, storing=storing)
        return lookups

    async def changed(self, seen: Mapping[Key, object]) -> AbstractSet[Key]:
        """Return those keys whose entry, cache or tags have changed since the given states."""
        by_tags: dict[bytes, dict[Key, SeenState]] = {}
        for key, state in seen.items():
            if isinstance(state, SeenState):
                by_tags.setdefault(state.tags, {})[key] = state
        changed: set[Key] = set()
        for stamp, states in by_tags.items():
            tags = [stamp[at : at + GENERATION_BYTES].decode() for at in range(1, len(stamp), 2 * GENERATION_BYTES)]
            for start in range(0, len(states), _BATCH_SIZE):
                keys = list(states)[start : start + _BATCH_SIZE]
                now = await self._read(keys, tags, storing=False)
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
        names = [self._names + encode_key(key), *(self._tags + tag for tag in encoded.tags)]
        value = [new_state(VALUE), encoded.envelope, encoded.milliseconds]
        arguments = [self._field, secrets.token_hex(8), *value, new_state(TOMBSTONE), self._tombstone_ms, *encoded.tags]
        async with self._large_turn(len(encoded.envelope)):
            refusal = await self._run_and_publish("write", names, arguments, "delete", [key_to_json(key)])
        if isinstance(refusal, bytes):
            self._link.writes.refuse(as_reason(refusal.decode(errors="replace")), blocked=False)

    async def remove(self, keys: Sequence[Key]) -> None:
        """Replace values with tombstones, and publish this."""
        tombstone = [new_state(TOMBSTONE), self._tombstone_ms]
        await self._run_and_publish(
            "remove", self._full_names(keys), tombstone, "delete", [key_to_json(key) for key in keys]
        )

    async def expire(self, keys: Sequence[Key]) -> None:
        """Mark values as expired, so that they may still be served stale, and publish this."""
        states = [new_state(EXPIRED), new_state(TOMBSTONE), self._tombstone_ms, VALUE]
        await self._run_and_publish(
            "expire", self._full_names(keys), states, "expire", [key_to_json(key) for key in keys]
        )

    async def remove_tags(self, tags: Sequence[str]) -> None:
        """Invalidate all values with one of these tags, and publish this."""
        await self._run_and_publish("tags", [self._tags + tag for tag in tags], [], "tags", list(tags))

    async def clear(self) -> None:
        """Invalidate all values of this cache, and publish this."""
        await self._run_and_publish("clear", [], [self._field, secrets.token_hex(8)], "clear", [])

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease: float) -> Mapping[Key, float]:
        """Acquire load leases; return for each key the seconds for which another process holds its lease, or 0.

        A lease is free if nobody holds it, or if its holder's load started before an invalidation.
        """
        names = [self._leases + encode_key(key) for key in keys] + self._full_names(keys)
        left = await self._link.run(
            "lock",
            [self._link.state, *names, *(self._tags + tag for tag in tags)],
            [token, round(lease * 1000), len(keys), self._field],
        )
        with reading("lock"):
            return {key: milliseconds / 1000 for key, milliseconds in zip(keys, left, strict=True)}

    async def unlock(self, keys: Sequence[Key], token: str) -> None:
        """Release load leases, and publish this."""
        names = [self._leases + encode_key(key) for key in keys]
        await self._run_and_publish("unlock", names, [token], "released", [key_to_json(key) for key in keys])

    async def _read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> dict[Key, Lookup[V]]:
        names = [encode_key(key) for key in keys]
        full = [self._names + name for name in names]
        answer, waited = await self._run_read(full, tags, new_state(MARK) if storing else b"")
        with reading("read"):
            lookups, others = self._lookups(keys, names, tags, answer, waited)
        if others:
            lookups |= await self._lookup_side(lookups, others)
        return lookups

    async def _run_read(self, names: Sequence[str], tags: Sequence[str], mark: bytes) -> tuple[Sequence[Any], float]:
        """Return the entries of keys in Redis, and the seconds that the request took."""
        asked = monotonic()
        answer = await self._link.run(
            "read",
            [self._link.state, *names, *(self._tags + tag for tag in tags)],
            [
                self._field,
                len(names),
                self._tags,
                secrets.token_hex(8),
                self._tombstone_ms,
                mark,
                self._most,
                int(not self._backplane.live),
            ],
        )
        waited = monotonic() - asked
        with reading("read"):
            refusal, *answers = answer
            if refusal is not None:
                # A refusal is reported only to a disconnected process. It has not received the refused changes.
                self._link.distrust(refusal)
            for number, data in enumerate(answers[1 : 2 * len(names) : 2] if self._most else ()):
                if data and len(data) == self._most:
                    answers[1 + 2 * number] = await self._read_rest(names[number], data)
        return answers, waited

    async def _lookup_side(self, lookups: Mapping[Key, Lookup[V]], others: Mapping[Key, bytes]) -> dict[Key, Lookup[V]]:
        """Look up the side keys of values with another schema. A side value is valid only with the main key's state."""
        names = [encode_key(key) for key in others]
        answer, waited = await self._run_read([self._side_names + name for name in names], (), b"")
        found: dict[Key, Lookup[V]] = {}
        with reading("read"):
            for (key, state), name, data, left in zip(others.items(), names, answer[1::2], answer[2::2], strict=True):
                if not data or data[:STATE_BYTES] != state:
                    self._unreadable.count += 1
                elif (parts := self._open(name, data)) is not None:
                    found[key] = self._interpret(parts, left / 1000 - waited)._replace(seen=lookups[key].seen)
        return found

    async def _read_rest(self, name: str, data: bytes) -> bytes:
        """Return a large entry whose first part is given, or only its state if it has changed meanwhile."""
        parts = [data]
        async with self._link.large_turns:
            while len(parts[-1]) == _PART:
                start = len(parts) * _PART
                state, part = await self._link.run("part", [name], [start, start + _PART - 1])
                if state != data[:STATE_BYTES]:
                    return data[:STATE_BYTES]
                parts.append(part)
        return b"".join(parts)

    def _lookups(
        self,
        keys: Sequence[Key],
        names: Sequence[str],
        tags: Sequence[str],
        answer: Sequence[Any],
        waited: float,
    ) -> tuple[dict[Key, Lookup[V]], dict[Key, bytes]]:
        """Return the lookups of keys, and the states of those whose values have another schema."""
        generation, *answers = answer
        tokens = answers[2 * len(keys) :]
        stamp = bytes([len(tags)]) + b"".join(
            tag.encode() + (token or b"") for tag, token in zip(tags, tokens, strict=True)
        )
        known = None not in tokens  # without the generations of all tags, nothing can be stored
        # First all entries are opened, then all values decoded. Alternating would be slower, because the code of each
        # step would evict that of the other from the processor's cache.
        opened = [self._open(name, data) for name, data in zip(names, answers[::2], strict=False)]  # the rest: tokens
        lookups: dict[Key, Lookup[V]] = {}
        others: dict[Key, bytes] = {}
        for key, parts, data, left in zip(keys, opened, answers[::2], answers[1::2], strict=False):
            other = parts is _OTHER_SHAPE
            if other:
                others[key] = data[:STATE_BYTES]
            lookup = _MISS if parts is None or other else self._interpret(parts, left / 1000 - waited)
            may_store = lookup.value is MISSING or self._policy.refresh_ahead
            if known and data and may_store:
                lookup = lookup._replace(seen=SeenState(data[:STATE_BYTES], generation, stamp, other))
            lookups[key] = lookup
        return lookups, others

    def _open(self, name: str, data: bytes | None) -> Opened | None:
        """Return the parts of an entry; None if it is absent or unreadable."""
        if data is None or self._codec is None:
            return None
        try:
            return self._codec.open(name, data)
        except OtherShape:
            return _OTHER_SHAPE
        except ValueError:
            self._unreadable.count += 1
            return None

    def _interpret(self, opened: Opened, left: float) -> Lookup[V]:
        """Return the lookup for the parts of an entry that Redis keeps for `left` more seconds."""
        kind, tags, ttl, tail, body = opened
        if kind == TOMBSTONE:
            return _TOMBSTONED
        if kind == MARK:
            return _MISS
        left -= tail / 1000
        if left > 0 and kind == VALUE:
            value = self._decode(body)
            return _MISS if value is MISSING else Lookup(value, left, ttl / 1000, tags)
        stale_left = self._policy.fail_safe + min(left, 0)
        if stale_left <= 0:
            return _MISS
        return Lookup(tags=tags, stale_value=partial(self._decode, body), stale_left=stale_left)

    def _decode(self, body: bytes) -> V | Missing:
        try:
            return MISSING if self._codec is None else self._codec.decode(body)
        except ValueError:
            self._unreadable.count += 1
            return MISSING

    async def _store(self, items: Sequence[tuple[Key, EncodedValue, SeenState]], *, in_side_key: bool) -> set[Key]:
        """Store values by compare-and-set, in their main keys or in their side keys; return the changed keys."""
        _, first, seen = items[0]
        arguments: list[Any] = [self._field, seen.generation, len(items), seen.tags]
        for _, encoded, before in items:
            # A value in a side key has the state of the main key.
            states = [before.state] if in_side_key else [before.state, new_state(VALUE)]
            arguments += [*states, encoded.envelope, encoded.milliseconds]
        names = [encode_key(key) for key, _, _ in items]
        starts = (self._names, self._side_names) if in_side_key else (self._names,)
        full = [start + name for start in starts for name in names]
        script = "store_side" if in_side_key else "store"
        async with self._large_turn(sum(len(encoded.envelope) for _, encoded, _ in items)):
            keys = [self._link.state, *full, *(self._tags + tag for tag in first.tags)]
            answer = await self._link.run(script, keys, arguments)
        with reading(script):
            return {key for (key, _, _), outcome in zip(items, answer, strict=True) if outcome == _CHANGED}

    async def _run_and_publish(
        self, script: str, names: Sequence[str], arguments: Sequence[Any], operation: Operation, subjects: Sequence[Any]
    ) -> Any:  # noqa: ANN401 -- as the script's
        message = self._backplane.message(self._topic, [operation, subjects])
        return await self._link.run_and_publish(script, names, arguments, message=message)

    def _large_turn(self, size: int) -> AbstractAsyncContextManager[None]:
        """Return a context that limits concurrent transfers if the size is large, else an empty one."""
        return self._link.large_turns if size > _PART else nullcontext()

    def _full_names(self, keys: Sequence[Key]) -> list[str]:
        return [self._names + encode_key(key) for key in keys] if self.stores else []

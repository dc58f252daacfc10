"""Reads entries of one cache from Redis, and decides which of their values may be used.

A request takes time, and it is unknown at which moment of it Redis measured the remaining ttls. They are therefore
reduced by the duration of the request (`waited`).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

from tequipy_caching.cache.keys import Key, encode_key
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import MISSING, Missing
from tequipy_caching.cache.tiers import Lookup
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.codec import Codec
from tequipy_caching.redis.envelope import (
    MARK,
    STATE_BYTES,
    TOMBSTONE,
    VALUE,
    EntryParts,
    OtherSchema,
    encode_tags,
    new_state,
)
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.scripts import parsing

V = TypeVar("V")

PART: Final = 1_048_576
"""How many bytes of a value one script reads; larger values are read in parts."""
_MISS: Final[Lookup[Any]] = Lookup()
_OTHER_SCHEMA: Final[EntryParts] = (b"", (), 0, 0, b"")
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
class Names:
    """The prefixes of a cache's keys in Redis."""

    values: str
    side_values: str
    """For values whose main key holds a value with the schema of another release."""
    tags: str
    leases: str
    generation: str
    """The field of the cache's generation in `RedisLink.state`."""

    @classmethod
    def of(cls, prefix: str, name: str, fingerprint: bytes) -> "Names":
        """Return the names of a cache whose schema has this fingerprint."""
        values = f"{prefix}:cache:{name}:"
        # No encoded key begins with ~, so side keys never collide with keys.
        side_values = f"{values}~{fingerprint.hex()}:"
        return cls(values, side_values, f"{prefix}:tag:{name}:", f"{prefix}:lease:{name}:", f"generation:{name}")


class EntryReader(Generic[V]):
    """Looks keys up in Redis. Raises `CacheUnavailable` when Redis cannot be reached or refuses."""

    def __init__(
        self,
        policy: CachePolicy,
        codec: Codec[V] | None,
        names: Names,
        *,
        link: RedisLink,
        backplane: Backplane,
        tombstone_ms: int,
        unreadable: Tally,
    ) -> None:
        self._policy = policy
        self._codec = codec
        self._names = names
        self._link = link
        self._backplane = backplane
        self._tombstone_ms = tombstone_ms
        self._unreadable = unreadable
        self._max_part = PART if policy.max_value_bytes > PART else 0
        """The most bytes of a value that the script `read` returns; 0 means all, because no value is larger."""

    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> dict[Key, Lookup[V]]:
        """Look up keys in one round trip, and write marks where a value may be stored (`storing`)."""
        names = [encode_key(key) for key in keys]
        full = [self._names.values + name for name in names]
        answer, waited = await self._run_read(full, tags, new_state(MARK) if storing else b"")
        with parsing("read"):
            lookups, others = self._lookups(keys, names, tags, answer, waited)
        if others:
            lookups |= await self._lookup_side(lookups, others)
        return lookups

    async def _run_read(self, names: Sequence[str], tags: Sequence[str], mark: bytes) -> tuple[Sequence[Any], float]:
        """Return the entries of keys in Redis, and the seconds that the request took."""
        asked = monotonic()
        answer = await self._link.run(
            "read",
            [self._link.state, *names, *(self._names.tags + tag for tag in tags)],
            [
                self._names.generation,
                len(names),
                self._names.tags,
                secrets.token_hex(8),
                self._tombstone_ms,
                mark,
                self._max_part,
                int(not self._backplane.live),
            ],
        )
        waited = monotonic() - asked
        with parsing("read"):
            refusal, *answers = answer
            if refusal is not None:
                # A refusal is reported only to a disconnected process. It has not received the refused changes.
                self._link.distrust(refusal)
            for number, data in enumerate(answers[1 : 2 * len(names) : 2] if self._max_part else ()):
                if data and len(data) == self._max_part:
                    answers[1 + 2 * number] = await self._read_rest(names[number], data)
        return answers, waited

    async def _lookup_side(self, lookups: Mapping[Key, Lookup[V]], others: Mapping[Key, bytes]) -> dict[Key, Lookup[V]]:
        """Look up the side keys of values with another schema. A side value is valid only with the main key's state."""
        names = [encode_key(key) for key in others]
        answer, waited = await self._run_read([self._names.side_values + name for name in names], (), b"")
        found: dict[Key, Lookup[V]] = {}
        with parsing("read"):
            for (key, state), name, data, left in zip(others.items(), names, answer[1::2], answer[2::2], strict=True):
                if not data or data[:STATE_BYTES] != state:
                    self._unreadable.count += 1
                elif (parts := self._parse(name, data)) is not None:
                    found[key] = self._interpret(parts, left / 1000 - waited)._replace(seen=lookups[key].seen)
        return found

    async def _read_rest(self, name: str, data: bytes) -> bytes:
        """Return a large entry whose first part is given, or only its state if it has changed meanwhile."""
        parts = [data]
        async with self._link.large_turns:
            while len(parts[-1]) == PART:
                start = len(parts) * PART
                state, part = await self._link.run("part", [name], [start, start + PART - 1])
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
        tag_generations = answers[2 * len(keys) :]
        encoded_tags = encode_tags(tags, [each or b"" for each in tag_generations])
        generations_known = generation is not None and None not in tag_generations  # otherwise nothing can be stored
        # First all entries are parsed, then all values decoded. Alternating would be slower, because the code of each
        # step would evict that of the other from the processor's cache.
        entries = zip(names, answers[::2], strict=False)  # not strict, because generations of tags follow
        parsed = [self._parse(name, data) for name, data in entries]
        lookups: dict[Key, Lookup[V]] = {}
        others: dict[Key, bytes] = {}
        for key, parts, data, left in zip(keys, parsed, answers[::2], answers[1::2], strict=False):
            other = parts is _OTHER_SCHEMA
            if other:
                others[key] = data[:STATE_BYTES]
            lookup = _MISS if parts is None or other else self._interpret(parts, left / 1000 - waited)
            may_store = lookup.value is MISSING or self._policy.refresh_ahead
            if generations_known and data and may_store:
                lookup = lookup._replace(seen=SeenState(data[:STATE_BYTES], generation, encoded_tags, other))
            lookups[key] = lookup
        return lookups, others

    def _parse(self, name: str, data: bytes | None) -> EntryParts | None:
        """Return the parts of an entry; None if it is absent or unreadable."""
        if data is None or self._codec is None:
            return None
        try:
            return self._codec.parse(name, data)
        except OtherSchema:
            return _OTHER_SCHEMA
        except ValueError:
            self._unreadable.count += 1
            return None

    def _interpret(self, parts: EntryParts, left: float) -> Lookup[V]:
        """Return the lookup for the parts of an entry that Redis keeps for `left` more seconds."""
        kind, tags, ttl, tail, body = parts
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

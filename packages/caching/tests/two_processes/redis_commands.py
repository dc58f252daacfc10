"""The Redis commands that the scripts use, on dictionaries and with the clock of the test."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

_EPOCH: Final = 1_800_000_000
"""Where the clock's zero is, in Unix time."""


class Status(bytes):
    """A status reply, such as OK."""


@dataclass
class Item:
    """The value of a key, and its expiry in milliseconds of the server's clock."""

    value: Any
    until: float = inf

    def copy(self) -> "Item":
        return Item(self.value.copy() if isinstance(self.value, dict) else self.value, self.until)


class Commands:
    """Executes commands on the selected data: `_do_name` is the command of that name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._data: dict[bytes, Item] = {}

    @property
    def _now(self) -> int:
        return _EPOCH * 1000 + round(self._clock() * 1000)

    def _at(self, key: bytes) -> Item | None:
        item = self._data.get(key)
        if item is not None and item.until <= self._now:
            del self._data[key]
            return None
        return item

    def _string(self, key: bytes) -> bytes:
        item = self._at(key)
        return b"" if item is None else item.value

    def _fields(self, key: bytes) -> dict[bytes, Any]:
        """Return the fields of a hash or sorted set, which is created if it is absent."""
        if self._at(key) is None:
            self._data[key] = Item({})
        return self._data[key].value  # type: ignore[no-any-return]  # -- the scripts mix no kinds

    def _peeked(self, key: bytes) -> dict[bytes, Any]:
        item = self._at(key)
        return {} if item is None else item.value

    def _tidy(self, key: bytes) -> None:
        if not self._data[key].value:
            del self._data[key]

    def _do_time(self) -> list[bytes]:
        micros = _EPOCH * 1_000_000 + round(self._clock() * 1_000_000)
        return [b"%d" % (micros // 1_000_000), b"%d" % (micros % 1_000_000)]

    def _do_get(self, key: bytes) -> bytes | None:
        item = self._at(key)
        return None if item is None else item.value

    def _do_mget(self, *keys: bytes) -> list[bytes | None]:
        return [self._do_get(key) for key in keys]

    def _do_exists(self, *keys: bytes) -> int:
        return sum(self._at(key) is not None for key in keys)

    def _do_set(self, key: bytes, value: bytes, *options: bytes) -> Status | None:
        words = [option.upper() for option in options]
        if b"NX" in words and self._at(key) is not None:
            return None
        lasts = int(options[words.index(b"PX") + 1]) if b"PX" in words else inf
        self._data[key] = Item(value, self._now + lasts)
        return Status(b"OK")

    def _do_del(self, *keys: bytes) -> int:
        return sum(self._at(key) is not None and self._data.pop(key) is not None for key in keys)

    _do_unlink = _do_del

    def _do_getrange(self, key: bytes, start: bytes, end: bytes) -> bytes:
        return self._string(key)[int(start) : int(end) + 1]

    def _do_setrange(self, key: bytes, start: bytes, value: bytes) -> int:
        old, at = self._string(key), int(start)
        item = self._data.setdefault(key, Item(b""))
        item.value = old[:at].ljust(at, b"\0") + value + old[at + len(value) :]
        return len(item.value)

    def _do_pttl(self, key: bytes) -> int:
        item = self._at(key)
        if item is None:
            return -2
        return -1 if item.until == inf else int(item.until - self._now)

    def _do_pexpire(self, key: bytes, milliseconds: bytes) -> int:
        item = self._at(key)
        if item is None:
            return 0
        item.until = self._now + int(milliseconds)
        return 1

    def _do_persist(self, key: bytes) -> int:
        item = self._at(key)
        if item is None or item.until == inf:
            return 0
        item.until = inf
        return 1

    def _do_hget(self, key: bytes, name: bytes) -> bytes | None:
        return self._peeked(key).get(name)

    def _do_hmget(self, key: bytes, *names: bytes) -> list[bytes | None]:
        return [self._peeked(key).get(name) for name in names]

    def _do_hset(self, key: bytes, *pairs: bytes) -> int:
        fields = self._fields(key)
        before = len(fields)
        fields.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(fields) - before

    def _do_hsetnx(self, key: bytes, name: bytes, value: bytes) -> int:
        fields = self._fields(key)
        new = name not in fields
        fields.setdefault(name, value)
        return int(new)

    def _do_hdel(self, key: bytes, *names: bytes) -> int:
        if self._at(key) is None:
            return 0
        found = sum(self._peeked(key).pop(name, None) is not None for name in names)
        self._tidy(key)
        return found

    def _do_hincrby(self, key: bytes, name: bytes, by: bytes) -> int:
        fields = self._fields(key)
        number = int(fields.get(name, b"0")) + int(by)
        fields[name] = b"%d" % number
        return number

    def _do_zadd(self, key: bytes, *arguments: bytes) -> int:
        greater = arguments[0].upper() == b"GT"
        pairs = arguments[greater:]
        scores = self._fields(key)
        before = len(scores)
        for score, member in zip(map(float, pairs[::2]), pairs[1::2], strict=True):
            if not greater or score > scores.get(member, -inf):
                scores[member] = score
        return len(scores) - before

    def _do_zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = self._peeked(key).get(member)
        return None if score is None else number_text(score)

    def _do_zrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
        if b"BYSCORE" in options:
            found = sorted((score, member) for member, score in self._between(key, first, last))
        else:
            ranked = [(score, member) for member, score in self._peeked(key).items()]
            found = sorted(ranked, reverse=b"REV" in options)[int(first) : int(last) + 1]
        scored = b"WITHSCORES" in options
        return [part for score, member in found for part in ((member, number_text(score)) if scored else (member,))]

    def _do_zremrangebyscore(self, key: bytes, lowest: bytes, highest: bytes) -> int:
        found = list(self._between(key, lowest, highest))
        for member, _ in found:
            del self._data[key].value[member]
        if found:
            self._tidy(key)
        return len(found)

    def _between(self, key: bytes, lowest: bytes, highest: bytes) -> Iterable[tuple[bytes, float]]:
        least, most = float(lowest.removeprefix(b"(")), float(highest.removeprefix(b"("))
        for member, score in self._peeked(key).items():
            above = score > least or (score == least and not lowest.startswith(b"("))
            if above and (score < most or (score == most and not highest.startswith(b"("))):
                yield member, score


def number_text(value: float) -> bytes:
    """Return a number in the format of Redis."""
    return b"%d" % int(value) if value == int(value) else b"%.17g" % value

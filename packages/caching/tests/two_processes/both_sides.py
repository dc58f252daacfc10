"""A real server and the model of Redis, which get the same calls of scripts."""

import re
import time
from collections.abc import Callable
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from tequipy_caching.redis.scripts import script
from tequipy_caching.redis.writes import as_reason, refusal_of

from .redis_model import ErrorReply, RedisModel, Session

CHANNEL: Final = b"channel"
STATE: Final = b"state"
NAMES: Final = (b"value:1", b"value:2")
TAGS: Final = (b"tag:aaaaaaaaaaaaaaaa", b"tag:bbbbbbbbbbbbbbbb")
SET: Final = b"set"
LONG: Final = b"60000"
TOLERANCE: Final = 20_000
"""Milliseconds by which times that are left may differ; all are longer."""

Call = tuple[str, list[bytes], list[bytes]]


class Sides:
    """A real server and the model, which get the same commands."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.model = RedisModel(time.monotonic)
        self.pushed: list[Any] = []
        self.model.execute(Session(self.pushed.append), [b"SUBSCRIBE", CHANNEL])
        self.session = Session(self.pushed.append)
        self.channel = client.pubsub()  # type: ignore[no-untyped-call]  # -- redis-py
        self._drain()
        self.numbers = iter(range(10**6))
        self.generation = b""
        self.seen: dict[bytes, bytes] = {}
        self.stamps: dict[bytes, bytes] = {}

    def token(self, begins: bytes = b"", length: int = 16) -> bytes:
        """Return new unique bytes."""
        return begins + b"%0*d" % (length - len(begins), next(self.numbers))

    def run(self, call: Call) -> Any:
        """Run a script on both, compare responses and messages, and return the model's response."""
        name, keys, arguments = call
        command: list[Any] = ["EVAL", script(name), len(keys), *keys, *arguments]
        mine = self.model.execute(self.session, [_bytes(part) for part in command])
        theirs = self._run_there(command)
        if name == "set_members" and isinstance(mine, list) and isinstance(theirs, list):  # its age in milliseconds
            mine[1] = theirs[1] = 0
        assert _alike(mine, theirs), (call, mine, theirs)
        published = [message[2] for message in self.pushed]
        self.pushed.clear()
        assert published == self._drain(), call
        return mine

    def lose(self, key: bytes) -> None:
        """Delete a key on both sides."""
        self.client.delete(key)
        self.model.databases.get(0, {}).pop(key, None)

    def close(self) -> None:
        self.channel.close()

    def _run_there(self, command: list[Any]) -> Any:
        try:
            return self.client.execute_command(*command)  # type: ignore[no-untyped-call]  # -- redis-py
        except ResponseError as error:
            return ErrorReply(refusal_of(error))

    def _drain(self) -> list[bytes]:
        """Return the messages published on the real server since the last call."""
        self.channel.subscribe(CHANNEL)
        found = []
        while (message := self.channel.get_message(timeout=10)) is not None and message["type"] != "subscribe":
            found.append(message["data"])
        return found


def _bytes(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def _alike(mine: Any, theirs: Any) -> bool:
    """Compare responses; remaining ttls may differ a little, and error texts after the error code."""
    match mine, theirs:
        case list(), list():
            return len(mine) == len(theirs) and all(map(_alike, mine, theirs))
        case ErrorReply(), ErrorReply():
            return as_reason(str(mine)).split()[0] == str(theirs).split()[0]
        case int(), int():
            return mine == theirs or (min(mine, theirs) > 0 and abs(mine - theirs) < TOLERANCE)
        case bytes(), bytes():
            return _stripped(mine) == _stripped(theirs)
    return bool(mine == theirs)


def _stripped(answer: bytes) -> bytes:
    if answer.startswith(b"\xff"):
        return re.sub(rb"\d+ ", b"", answer)  # the creation time in a sentinel
    code = re.match(rb"-?(OOM|READONLY|MISCONF|NOREPLICAS|NOPERM) ", answer)
    return code[1] if code else answer


def _message(sides: Sides) -> list[bytes]:
    return [CHANNEL, sides.token(), b'["origin", "topic", []]']


def read(sides: Sides, name: bytes, tag: bytes, *, storing: bool, connected: bool = True) -> None:
    mark = sides.token(b"\x13", 24) if storing else b""
    arguments = [b"generation", b"1", b"tag:", sides.token(), LONG, mark, b"0", b"0" if connected else b"1"]
    answer = sides.run(("read", [STATE, name, tag], arguments))
    if isinstance(answer, ErrorReply):
        return
    _, generation, data, _, stamp = answer
    if generation and data and stamp:  # otherwise nothing will be stored
        sides.generation = generation
        sides.seen[name], sides.stamps[name] = data[:24], bytes([1]) + tag[4:] + stamp


def read_in_parts(sides: Sides, name: bytes, tag: bytes) -> None:
    arguments = [b"generation", b"1", b"tag:", sides.token(), LONG, b"", b"24", b"0"]
    sides.run(("read", [STATE, name, tag], arguments))
    sides.run(("part", [name], [b"24", b"31"]))


def store(sides: Sides, name: bytes, tag: bytes) -> None:
    if name in sides.seen:
        arguments = [b"generation", sides.generation, b"1", sides.stamps[name], sides.seen[name]]
        sides.run(("store", [STATE, name, tag], [*arguments, sides.token(b"\x0f", 24), b"envelope", LONG]))


def write(sides: Sides, name: bytes, tag: bytes) -> None:
    value = [sides.token(b"\x0f", 24), b"envelope", LONG, sides.token(b"\x11", 24), LONG]
    sides.run(("write", [STATE, name, tag], [*_message(sides), b"generation", sides.token(), *value, tag[4:]]))


def remove(sides: Sides, name: bytes, _: bytes) -> None:
    sides.run(("remove", [STATE, name], [*_message(sides), sides.token(b"\x11", 24), LONG]))


def expire(sides: Sides, name: bytes, _: bytes) -> None:
    states = [sides.token(b"\x12", 24), sides.token(b"\x11", 24), LONG, b"\x0f"]
    sides.run(("expire", [STATE, name], [*_message(sides), *states]))


def tags(sides: Sides, _: bytes, tag: bytes) -> None:
    sides.run(("tags", [STATE, tag], _message(sides)))


def clear(sides: Sides, _: bytes, __: bytes) -> None:
    sides.run(("clear", [STATE], [*_message(sides), b"generation", sides.token()]))


def lock(sides: Sides, name: bytes, tag: bytes) -> None:
    sides.run(("lock", [STATE, b"lease:" + name, name, tag], [sides.token(), LONG, b"1", b"generation"]))


def unlock(sides: Sides, name: bytes, _: bytes) -> None:
    sides.run(("unlock", [STATE, b"lease:" + name], [*_message(sides), b"%016d" % 3]))


def join(sides: Sides, _: bytes, __: bytes) -> None:
    sides.run(("join", [STATE, b"probe"], [sides.token(), b"", b"0", CHANNEL, b'["origin", "probe", "x"]']))


def probe(sides: Sides, _: bytes, __: bytes) -> None:
    sides.run(("probe", [STATE, b"probe"], [CHANNEL, b'["", "probe", ""]']))


def set_add(sides: Sides, name: bytes, _: bytes) -> None:
    sides.run(("set_add", [STATE, SET], [*_message(sides), sides.token(), name, LONG]))


def set_members(sides: Sides, _: bytes, __: bytes) -> None:
    sides.run(("set_members", [SET], [b"0", b"1"]))
    sides.run(("set_members", [SET], [b"2", b"3"]))


def set_contains(sides: Sides, name: bytes, _: bytes) -> None:
    sides.run(("set_contains", [SET], [name, b"nobody", b"ada"]))


def set_sentinels(sides: Sides, _: bytes, __: bytes) -> None:
    sides.run(("set_sentinels", [SET, b"another set"], []))


def lose(sides: Sides, name: bytes, tag: bytes) -> None:
    for key in (name, tag):
        sides.lose(key)


def lose_set(sides: Sides, _: bytes, __: bytes) -> None:
    sides.lose(SET)


def lose_state(sides: Sides, _: bytes, __: bytes) -> None:
    sides.lose(STATE)


def look_up(sides: Sides, name: bytes, tag: bytes) -> None:
    read(sides, name, tag, storing=False)


def look_up_disconnected(sides: Sides, name: bytes, tag: bytes) -> None:
    read(sides, name, tag, storing=False, connected=False)


def miss(sides: Sides, name: bytes, tag: bytes) -> None:
    read(sides, name, tag, storing=True)


def miss_disconnected(sides: Sides, name: bytes, tag: bytes) -> None:
    read(sides, name, tag, storing=True, connected=False)


ACTIONS: Final[list[Callable[[Sides, bytes, bytes], None]]] = [
    look_up,
    look_up_disconnected,
    miss,
    miss_disconnected,
    read_in_parts,
    store,
    write,
    remove,
    expire,
    tags,
    clear,
    lock,
    unlock,
    join,
    probe,
    set_add,
    set_members,
    set_contains,
    set_sentinels,
]
LOSSES: Final = [lose, lose_set, lose_state]
"""Actions that need a real server which accepts writes."""

"""A model of Redis that runs the real Lua scripts: data, expiry, channels, refused writes, restarts.

It has only the commands that the scripts use; `test_redis_model.py` compares it with a real Valkey. Its clock is a
function that the test passes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from itertools import count
from typing import Any, Final, Literal

from lupa.lua51 import LuaRuntime, lua_type  # type: ignore[import-untyped]  # -- lupa

from .redis_commands import Commands, Item, Status, number_text

Refusal = Literal["OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM"]
Snapshot = Mapping[int, Mapping[bytes, Item]]

_REFUSALS: Final[Mapping[Refusal, str]] = {
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "MISCONF": "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "NOPERM": "NOPERM No permissions to access a key",
}
_NEED_MEMORY: Final = frozenset({"SET", "SETRANGE", "HSET", "HSETNX", "HINCRBY", "ZADD"})
_WRITE: Final = _NEED_MEMORY | {"DEL", "UNLINK", "PEXPIRE", "PERSIST", "HDEL", "ZREMRANGEBYSCORE"}
_run_ids = count(1)


class ErrorReply(Exception):
    """An error reply of the server."""


@dataclass(eq=False)
class Session:
    """A connection as the server sees it; `push` sends it a message of a channel."""

    push: Callable[[Any], None]
    database: int = 0
    channels: set[bytes] = field(default_factory=set)


class RedisModel(Commands):
    """One server with any number of databases."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.refusal: Refusal | None = None
        self.databases: dict[int, dict[bytes, Item]] = {}
        self.sessions: list[Session] = []
        super().__init__(clock)
        self._scripts: set[str] = set()
        self._run_id = b""
        self._session = Session(lambda _: None)
        self._dirty = False
        """Whether the running script has written, after which it is not refused for want of memory."""
        self.restart({})

    def snapshot(self) -> Snapshot:
        """Return a copy of all data."""
        return {number: {key: item.copy() for key, item in data.items()} for number, data in self.databases.items()}

    def restart(self, data: Snapshot) -> None:
        """Restart the server with these data and a new run id; scripts and sessions are lost."""
        self.databases = {number: {key: item.copy() for key, item in each.items()} for number, each in data.items()}
        self.sessions = []
        self._scripts = set()
        self._run_id = b"%040x" % next(_run_ids)

    def execute(self, session: Session, command: list[bytes]) -> Any:
        """Execute a command of a connection and return the reply."""
        self._session, self._dirty = session, False
        self._data = self.databases.setdefault(session.database, {})
        try:
            return self._run(command)
        except ErrorReply as error:
            return error

    def names(self) -> list[bytes]:
        """Return the keys of the first database, sorted."""
        self._data = self.databases.setdefault(0, {})
        return sorted(key for key in list(self._data) if self._at(key))

    def _do_client(self, *_: bytes) -> Status:
        return Status(b"OK")

    def _do_select(self, number: bytes) -> Status:
        self._session.database = int(number)
        return Status(b"OK")

    def _do_subscribe(self, *channels: bytes) -> list[Any]:
        if self._session not in self.sessions:
            self.sessions.append(self._session)
        self._session.channels.update(channels)
        return [b"subscribe", *channels, len(self._session.channels)]

    def _do_eval(self, text: bytes, *arguments: bytes) -> Any:
        self._check_permission(arguments)
        return self._evaluate(text, arguments)

    def _do_evalsha(self, digest: bytes, *arguments: bytes) -> Any:
        self._check_permission(arguments)
        if digest.decode() not in self._scripts:
            raise ErrorReply("NOSCRIPT No matching script.")
        return self._evaluate(_TEXTS[digest.decode()], arguments)

    def _check_permission(self, arguments: Sequence[bytes]) -> None:
        """Refuse a script with keys if the user may only read them: the server does not know which ones it writes."""
        if self.refusal == "NOPERM" and int(arguments[0]):
            raise ErrorReply(_REFUSALS["NOPERM"])

    def _evaluate(self, text: bytes, arguments: Sequence[bytes]) -> Any:
        digest = sha1(text).hexdigest()  # noqa: S324 -- as Redis names scripts
        _TEXTS[digest] = text
        self._scripts.add(digest)
        keys = int(arguments[0])
        names, values = arguments[1 : keys + 1], arguments[keys + 1 :]
        try:
            return _from_lua(_compiled(text)(_LUA.table_from(names), _LUA.table_from(values), self._call, self._pcall))
        except ErrorReply as error:
            raise ErrorReply(f"{error} script: {digest}, on @user_script:1.") from error

    def _call(self, *command: Any) -> Any:
        return _to_lua(self._run([_argument(part) for part in command]))

    def _pcall(self, *command: Any) -> Any:
        try:
            return self._call(*command)
        except ErrorReply as error:
            return _LUA.table_from({b"err": str(error).encode()})

    def _run(self, command: list[bytes]) -> Any:
        name, *arguments = command
        verb = name.decode().upper()
        handler = getattr(self, f"_do_{verb.lower()}", None)
        if handler is None:
            raise ErrorReply(f"ERR unknown command '{verb}'")
        if verb in _WRITE:
            if self.refusal is not None and (self.refusal != "OOM" or (verb in _NEED_MEMORY and not self._dirty)):
                raise ErrorReply(_REFUSALS[self.refusal])
            self._dirty = True
        return handler(*arguments)

    def _do_ping(self) -> Status:
        if self.refusal == "MISCONF":
            raise ErrorReply(_REFUSALS["MISCONF"])
        return Status(b"PONG")

    def _do_info(self, _: bytes) -> bytes:
        return b"# Server\r\nrun_id:" + self._run_id + b"\r\n"

    def _do_publish(self, channel: bytes, message: bytes) -> int:
        subscribed = [session for session in self.sessions if channel in session.channels]
        for session in subscribed:
            session.push([b"message", channel, message])
        return len(subscribed)


_LUA: Final = LuaRuntime(encoding=None, unpack_returned_tuples=False)
_TEXTS: Final[dict[str, bytes]] = {}


@cache
def _compiled(text: bytes) -> Callable[..., Any]:
    head = b"return function(KEYS, ARGV, call, pcall) local redis = {call = call, pcall = pcall}; "
    return _LUA.execute(head + text + b"\nend")  # type: ignore[no-any-return]  # -- lupa


def _argument(part: Any) -> bytes:
    return part if isinstance(part, bytes) else number_text(part)


def _to_lua(reply: Any) -> Any:
    if reply is None:
        return False
    if isinstance(reply, Status):
        return _LUA.table_from({b"ok": bytes(reply)})
    if isinstance(reply, list):
        return _LUA.table_from([_to_lua(part) for part in reply])
    return reply


def _from_lua(value: Any) -> Any:
    if lua_type(value) == "table":
        return _from_table(value)
    if value is True:
        return 1
    if value is None or value is False:
        return None
    return int(value) if isinstance(value, float) else value


def _from_table(table: Any) -> Any:
    if table[b"err"] is not None:
        return ErrorReply(table[b"err"].decode())
    if table[b"ok"] is not None:
        return Status(table[b"ok"])
    found: list[Any] = []
    while (part := table[len(found) + 1]) is not None:
        found.append(_from_lua(part))
    return found

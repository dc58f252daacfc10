"""The messages of the channel: their format, and the interface of those who receive them."""

import json
from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple
from uuid import UUID

from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.cache.tiers import Change

PROBE: Final = "probe"
"""The topic of messages without effect, by which a process checks that it receives the channel."""
PROBE_MESSAGE: Final = json.dumps(["", PROBE, ""])
_REFUSED: Final = "refused"
_REFUSED_BEGINS: Final = json.dumps([_REFUSED]).removesuffix("]").encode()


class Position(NamedTuple):
    """A position in the channel: how far a process has received its messages. Different epochs cannot be compared."""

    epoch: str
    sequence: int


class Message(NamedTuple):
    """A message to the other processes, in two forms."""

    numbered: str
    """Published by the script, which adds the sequence number."""
    refused: str
    """Published by itself, without a sequence number, if Redis refuses the write."""


class Listener(ABC):
    """Receives the messages of other processes; its methods run on the event loop and must not block."""

    @abstractmethod
    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON, which the listener checks
        """Process a message of another process; raises `ValueError` for one of an unknown format."""

    def on_refused_change(self, body: Any) -> None:  # noqa: ANN401 -- as above
        """Process a change that Redis refused, so that it was only published; raises `ValueError` like `on_message`."""
        self.on_message(body)

    @abstractmethod
    def on_gap(self) -> None:
        """Distrust everything that was read before this moment, because messages may have been lost."""


class CacheListener(Listener):
    """Applies the changes of other processes to a cache of this one."""

    def __init__(self, cache: TieredCache[Any]) -> None:
        self._cache = cache

    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Apply a change of another process."""
        self._cache.on_change(change_from_json(body))

    def on_refused_change(self, body: Any) -> None:  # noqa: ANN401 -- as above
        """Apply a change that Redis refused, and queue it."""
        self._cache.on_refused_change(change_from_json(body))

    def on_gap(self) -> None:
        """Clear the memory of the cache."""
        self._cache.on_gap()


def topic_of(name: str) -> str:
    """Return the topic of the messages about changes of a cache."""
    return f"cache:{name}"


def encode_message(origin: str, topic: str, body: Any) -> Message:  # noqa: ANN401 -- JSON
    """Return the message of a process for the listeners of a topic."""
    content = [origin, topic, body]
    return Message(json.dumps(content), json.dumps([_REFUSED, *content]))


def decode_message(data: bytes) -> tuple[Position, str, str, Any]:
    """Return position, origin, topic and body of a numbered message; raises `ValueError` for another format."""
    epoch, sequence, message = data.decode().split(" ", 2)
    match json.loads(message):
        case [str(origin), str(topic), body]:
            return Position(epoch, int(sequence)), origin, topic, body
        case _:
            raise ValueError("not a message of this version")


def decode_refused(data: bytes) -> tuple[str, str, Any] | None:
    """Return origin, topic and body of a message about a refused change; None if it is another message.

    Raises `ValueError` for another format.
    """
    if not data.startswith(_REFUSED_BEGINS):
        return None
    match json.loads(data):
        case [_, str(origin), str(topic), body]:
            return origin, topic, body
        case _:
            raise ValueError("not a message of this version")


def change_to_json(change: Change) -> Any:  # noqa: ANN401 -- JSON
    """Return a change as JSON; `change_from_json` reads it."""
    return [change.operation, [key_to_json(key) for key in change.keys] or list(change.tags)]


def change_from_json(body: Any) -> Change:  # noqa: ANN401 -- JSON
    """Return the change that `change_to_json` converted; raises `ValueError` for other JSON."""
    match body:
        case ["delete" | "expire" | "released" as operation, [*keys]]:
            return Change(operation, keys=[key_from_json(key) for key in keys])
        case ["tags", [*ids]] if all(isinstance(each, str) for each in ids):
            return Change("tags", tags=ids)
        case ["clear", []]:
            return Change("clear")
        case _:
            raise ValueError("not a change of this version")


def key_to_json(key: Key) -> Any:  # noqa: ANN401 -- JSON
    """Return a canonical key as JSON; `key_from_json` reads it."""
    if isinstance(key, UUID):
        return {"uuid": key.hex}
    return [key_to_json(part) for part in key] if isinstance(key, tuple) else key


def key_from_json(json: Any) -> Key:  # noqa: ANN401 -- JSON
    """Return the key that `key_to_json` converted; raises `ValueError` for other JSON."""
    match json:
        case bool():
            raise ValueError("not a key")
        case str() | int():
            return json
        case {"uuid": str(text)}:
            return UUID(text)
        case list():
            return tuple([key_from_json(part) for part in json])
        case _:
            raise ValueError("not a key")

"""Errors of Redis, and whether it accepts writes.

A server that answers may refuse writes because of its state (full memory, a failed save, a replica), because of missing
permissions, or because it is a node of a Redis Cluster.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

UNDELIVERED: Final = "UNDELIVERED a message that was published on the channel did not arrive"
"""This package's own error text, for a server that accepts a message but does not deliver it."""
_CLUSTER: Final = ("CROSSSLOT", "MOVED", "ASK", "CLUSTERDOWN")
"""Error codes of Redis Cluster for a script whose keys are in several slots."""
_UNKNOWN: Final = "unknown command"
_DENIED: Final = "ACL failure in script"
"""The error text that replaces NOPERM when a command in a script is not permitted."""
_CODES: Final = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", *_CLUSTER, "UNDELIVERED", f"ERR {_UNKNOWN}")
_STRIPPED: Final = {
    OutOfMemoryError: "OOM ",
    ReadOnlyError: "READONLY ",
    NoPermissionError: "NOPERM ",
    ClusterCrossSlotError: "CROSSSLOT ",
    MovedError: "MOVED ",
    AskError: "ASK ",
    ClusterDownError: "CLUSTERDOWN ",
}
"""The codes that redis-py removes from the message of these exceptions."""
_SCRIPT: Final = re.compile(r",? script: [0-9a-f]{40}.*|, with args beginning with:.*", re.DOTALL)
"""The part of an error text that names the script's line and arguments, which do not help an operator."""

logger = logging.getLogger(__name__)


def refusal_of(error: BaseException) -> str | None:
    """Return the server's error text if it refuses writes, else None."""
    if not isinstance(error, ResponseError):
        return None
    code = "ERR " if str(error).startswith((_UNKNOWN, _DENIED)) else _STRIPPED.get(type(error), "")
    reason = as_reason(f"{code}{error}")
    return reason if reason.startswith(_CODES) else None


def as_reason(text: str) -> str:
    """Return an error text without the part that names the script."""
    return _SCRIPT.sub("", text.removeprefix("-")).replace(f"ERR {_DENIED}", f"NOPERM {_DENIED}", 1)


class Writes:
    """Remembers whether the server accepts writes.

    `probe_later` is called after each refused write, `on_accepted` when the server accepts writes again. `labels` are
    logged with each event, to tell the connection.
    """

    def __init__(
        self, probe_later: Callable[[], None], on_accepted: Callable[[], None], *, labels: Mapping[str, str]
    ) -> None:
        self.refusal: str | None = None
        """The server's error text while it refuses writes, else None."""
        self.blocked = False
        """Whether the server refuses deletes too; out of memory it accepts them."""
        self.channel_refused = False
        """Whether the server refuses the channel. Until the channel is joined again, an accepted write is no proof."""
        self._probe_later = probe_later
        self._on_accepted = on_accepted
        self._labels = labels

    def refuse(self, reason: str, *, blocked: bool) -> None:
        """Record a refused write; `blocked` says that deletes are refused too. Logs a change of the error code only."""
        if self.refusal is None or _error_code(self.refusal) != _error_code(reason):
            logger.warning("cache_writes_refused", extra={**self._labels, "error": reason})
        self.refusal, self.blocked = reason, blocked or self.channel_refused
        self._probe_later()

    def refuse_channel(self, reason: str) -> None:
        """Record that the server refuses the channel."""
        self.channel_refused = True
        self.refuse(reason, blocked=True)

    def accept(self) -> None:
        """Record that the server accepts writes."""
        if self.refusal is not None and not self.channel_refused:
            logger.info("cache_writes_accepted", extra=self._labels)
            self.refusal, self.blocked = None, False
            self._on_accepted()


def _error_code(reason: str) -> str:
    """Return the error code that an error text begins with; all those of Redis Cluster count as one."""
    code = reason.split(maxsplit=1)[0]
    return _CLUSTER[0] if code in _CLUSTER else code


def kind_of(error: Exception) -> str:
    """Return the kind of a failure: `timeout` or `connection` (Redis is unreachable), or `answer` (an error)."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, RedisConnectionError | OSError):
        return "connection"
    return "answer"  # for example read-only, or out of memory

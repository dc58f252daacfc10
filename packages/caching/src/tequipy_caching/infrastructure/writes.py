"""Whether Redis takes writes: a server that answers may refuse them for its state, for our rights, or for its kind."""

import logging
import re
from collections.abc import Callable
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

UNDELIVERED: Final = "UNDELIVERED what was published on the channel did not arrive there"
"""Our own words, for a server that accepts a message and does not deliver it."""
_CLUSTER: Final = ("CROSSSLOT", "MOVED", "ASK", "CLUSTERDOWN")
"""What nodes of a Redis Cluster answer to scripts whose keys belong to several of them."""
_UNKNOWN: Final = "unknown command"
_DENIED: Final = "ACL failure in script"
"""What a server says for NOPERM when it is a script that has no right."""
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
"""redis-py removes these codes from the message."""
_SCRIPT: Final = re.compile(r",? script: [0-9a-f]{40}.*|, with args beginning with:.*", re.DOTALL)
"""Where in our scripts it happened, and with which arguments: no concern of an operator's."""

logger = logging.getLogger(__name__)


def refusal_of(error: BaseException) -> str | None:
    """Return the server's own words when it refuses writes, None for any other error."""
    if not isinstance(error, ResponseError):
        return None
    code = "ERR " if str(error).startswith((_UNKNOWN, _DENIED)) else _STRIPPED.get(type(error), "")
    reason = as_reason(f"{code}{error}")
    return reason if reason.startswith(_CODES) else None


def as_reason(text: str) -> str:
    """Return an error's text without what only names the script."""
    return _SCRIPT.sub("", text.removeprefix("-")).replace(f"ERR {_DENIED}", f"NOPERM {_DENIED}", 1)


class Writes:
    """What is known of the server's willingness to write; `probe_later` is called when it begins to refuse."""

    def __init__(self, probe_later: Callable[[], None], on_accepted: Callable[[], None]) -> None:
        self.refusal: str | None = None
        """The server's words while it refuses writes."""
        self.blocked = False
        """Whether it refuses deletes, too: out of memory it does not."""
        self.channel_refused = False
        """Whether it refuses the channel: until that is joined again, writes that are taken prove nothing."""
        self._probe_later = probe_later
        self._on_accepted = on_accepted

    def refuse(self, reason: str, *, blocked: bool) -> None:
        """Note a refused write; the first is logged, later ones only when the reason changes its kind."""
        if self.refusal is None or _kind(self.refusal) != _kind(reason):
            logger.warning("cache_writes_refused", extra={"error": reason})
        self.refusal, self.blocked = reason, blocked or self.channel_refused
        self._probe_later()

    def refuse_channel(self, reason: str) -> None:
        """Note that the channel is refused."""
        self.channel_refused = True
        self.refuse(reason, blocked=True)

    def accept(self) -> None:
        """Note that writes are taken."""
        if self.refusal is not None and not self.channel_refused:
            logger.info("cache_writes_accepted")
            self.refusal, self.blocked = None, False
            self._on_accepted()


def _kind(reason: str) -> str:
    code = reason.split(maxsplit=1)[0]
    return _CLUSTER[0] if code in _CLUSTER else code

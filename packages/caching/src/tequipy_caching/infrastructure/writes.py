"""Whether Redis takes writes: a server that answers may refuse them for its state or for our rights."""

import logging
import re
from collections.abc import Callable
from typing import Final

from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

_CODES: Final = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM")
_STRIPPED: Final = {OutOfMemoryError: "OOM ", ReadOnlyError: "READONLY ", NoPermissionError: "NOPERM "}
"""redis-py removes these codes from the message."""
_SCRIPT: Final = re.compile(r",? script: .*", re.DOTALL)
"""Where in our scripts it happened: no concern of an operator's."""

logger = logging.getLogger(__name__)


def refusal_of(error: BaseException) -> str | None:
    """Return the server's own words when it refuses writes, None for any other error."""
    if not isinstance(error, ResponseError):
        return None
    text = f"{_STRIPPED.get(type(error), '')}{error}"
    return as_reason(text) if text.startswith(_CODES) else None


def as_reason(text: str) -> str:
    """Return an error's text without what only names the script."""
    return _SCRIPT.sub("", text.removeprefix("-"))


class Writes:
    """What is known of the server's willingness to write; `probe_later` is called when it begins to refuse."""

    def __init__(self, probe_later: Callable[[], None], on_accepted: Callable[[], None]) -> None:
        self.refusal: str | None = None
        """The server's words while it refuses writes."""
        self.blocked = False
        """Whether it refuses deletes, too: out of memory it does not."""
        self._probe_later = probe_later
        self._on_accepted = on_accepted

    def refuse(self, reason: str, *, blocked: bool) -> None:
        """Note a refused write; the first is logged, later ones only when the reason changes its kind."""
        if self.refusal is None or self.refusal.split()[0] != reason.split(maxsplit=1)[0]:
            logger.warning("cache_writes_refused", extra={"error": reason})
        self.refusal, self.blocked = reason, blocked
        self._probe_later()

    def accept(self) -> None:
        """Note that writes are taken."""
        if self.refusal is not None:
            logger.info("cache_writes_accepted")
            self.refusal, was_blocked, self.blocked = None, self.blocked, False
            if was_blocked:
                self._on_accepted()

"""Access control of the metrics: a bearer token, with a limit of wrong tokens per client."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from threading import Lock
from typing import Final, Literal

import structlog
from pydantic import SecretStr

TRIES: Final = 10
"""Wrong tokens that a client may send in one period."""
PERIOD: Final = 60
"""Seconds, counted from a client's first wrong token."""
METRICS_REFUSALS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(PERIOD)},
}
"""The statuses of refusals, with the header fields that each needs."""
_MAX_CLIENTS: Final = 1024
"""The number of remembered clients; a new one replaces the one that was first seen longest ago."""


@dataclass(slots=True)
class _Record:
    since: float
    wrong: int = 0


class MetricsAccess:
    """Decides about requests for the metrics; may be called by several threads at once."""

    def __init__(self, token: SecretStr | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected = None if token is None else f"Bearer {token.get_secret_value()}".encode()
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = Lock()
        self._log = structlog.get_logger(logger_name=__name__)

    def check(self, authorization: str, client: str | None) -> Literal[200, 401, 429]:
        """Return the status for the sender of this Authorization header (RFC 6750, section 2.1).

        After ten wrong tokens within a minute a client gets 429 for the rest of it, even with the right token. A
        client's first refusal and the start of its 429s are logged, once each per minute.
        """
        if self._expected is None:
            return 200
        client = client and client.removeprefix("::ffff:")  # an IPv4 client of a dual-stack socket
        network = _network(client)
        with self._lock:
            record = self._record(network)
            if record is not None and record.wrong >= TRIES:
                return 429
            # Compared as bytes; both servers decode header values as Latin-1.
            if hmac.compare_digest(authorization.encode("latin-1", "replace"), self._expected):
                return 200
            if record is None:
                record = self._add(network)
                self._log.warning("metrics_request_refused", ip=client, reason="wrong" if authorization else "missing")
            if authorization:
                record.wrong += 1
                if record.wrong == TRIES:
                    self._log.warning("metrics_token_guesses_limited", ip=client, tries=TRIES, seconds=PERIOD)
            return 401

    def _record(self, network: str) -> _Record | None:
        record = self._records.get(network)
        if record is not None and self._clock() - record.since >= PERIOD:
            del self._records[network]
            return None
        return record

    def _add(self, network: str) -> _Record:
        if len(self._records) >= _MAX_CLIENTS:
            self._records.popitem(last=False)
        record = self._records[network] = _Record(self._clock())
        return record


def _network(client: str | None) -> str:
    """Return the client's IPv4 address, or the /64 of its IPv6 address, all of which one client usually controls."""
    try:
        address = ip_address((client or "").partition("%")[0])
    except ValueError:
        return client or ""
    if isinstance(address, IPv6Address):
        return str(int(address) >> 64)
    return str(address)

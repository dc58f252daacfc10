"""Idempotency keys in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tequipy_platform._clock import Clock
from tequipy_platform._events import JSON
from tequipy_platform._idempotency import IDEMPOTENCY_TTL, IdempotencyKeyReused, IdempotencyKeys, IdempotentRequest
from tequipy_platform._messages import check_payload


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """The response of a request with a key."""

    digest: bytes
    response: Mapping[str, JSON]
    created_at: datetime


class MemoryIdempotencyKeys(IdempotencyKeys):
    """Stores responses in `rows` by caller, route and key.

    No key is ever in use, because units of work in memory run one after the other.
    """

    def __init__(self, clock: Clock) -> None:
        self.rows: dict[tuple[str, str, str], KeptResponse] = {}
        self._clock = clock

    async def begin(self, caller: str, request: IdempotentRequest) -> Mapping[str, JSON] | None:
        """Return the kept response."""
        kept = self.rows.get((caller, request.route, request.key))
        if kept is None or self._is_expired(kept):
            return None
        if kept.digest != request.digest:
            raise IdempotencyKeyReused
        return kept.response

    async def keep(self, caller: str, request: IdempotentRequest, response: Mapping[str, JSON]) -> None:
        """Store the response."""
        check_payload(request.route, response)
        self.rows[caller, request.route, request.key] = KeptResponse(request.digest, dict(response), self._clock.now())

    async def purge(self, *, limit: int) -> int:
        """Delete expired responses."""
        expired = [key for key, kept in self.rows.items() if self._is_expired(kept)][:limit]
        for key in expired:
            del self.rows[key]
        return len(expired)

    def _is_expired(self, kept: KeptResponse) -> bool:
        return kept.created_at <= self._clock.now() - IDEMPOTENCY_TTL

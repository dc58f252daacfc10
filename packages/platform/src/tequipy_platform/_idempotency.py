"""Keys by which a repeated request has its effect once, and gets the first response again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Final

from tequipy_platform._errors import Conflict, Invalid
from tequipy_platform._events import JSON

IDEMPOTENCY_TTL: Final = timedelta(hours=24)
"""How long a response is kept; the key is new after that."""


class IdempotencyKeyInUse(Conflict):
    """The first request with this key has not ended yet."""

    code = "idempotency_key_in_use"
    title = "Idempotency key in use"
    detail = "A request with this Idempotency-Key is being served: repeat it later."


class IdempotencyKeyReused(Invalid):
    """The key was used for a request with another body."""

    code = "idempotency_key_reused"
    title = "Idempotency key reused"
    detail = "This Idempotency-Key belongs to a request with another body: choose a new one."
    member_schemas: ClassVar[Mapping[str, JSON]] = {}


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request with a key; the key belongs to the caller and the route."""

    route: str
    """Method and path, for instance `POST /api/v1/users/invitations`."""
    key: str
    """What the client chose: 1 to 128 visible ASCII characters."""
    digest: bytes
    """A digest of the body."""


class IdempotencyKeys(ABC):
    """The keys of requests, in the transaction of the use case: the response is kept if the effect is committed.

    An error rolls the key back too, so that only successes are kept; so does the death of the process before the
    commit. Use it as follows, after the caller has been authenticated and authorised::

        async with self._unit_of_work() as work:
            first = await work.idempotency.begin(caller, request)
            if first is not None:
                return first
            …
            await work.idempotency.keep(caller, request, response)
    """

    @abstractmethod
    async def begin(self, caller: str, request: IdempotentRequest) -> Mapping[str, JSON] | None:
        """Return the response that was kept for the key, or None: then the key is locked until the transaction ends.

        Raises `IdempotencyKeyInUse` while another transaction has locked the key, and `IdempotencyKeyReused` if the
        kept response is that of another body.
        """

    @abstractmethod
    async def keep(self, caller: str, request: IdempotentRequest, response: Mapping[str, JSON]) -> None:
        """Store the response for 24 hours, after `begin` has returned None.

        The response has no secrets. Raises `PayloadRefused` if it is no JSON, or too large.
        """

    @abstractmethod
    async def purge(self, *, limit: int) -> int:
        """Delete up to `limit` responses that have expired; return the number of deleted rows."""

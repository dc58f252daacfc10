"""Repository of invitations."""

from abc import ABC, abstractmethod
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import Invitation
from tequipy_platform import Page, PageRequest


class Invitations(ABC):
    """Invitations that have not been accepted; each canonical address has at most one."""

    @abstractmethod
    async def put(self, invitation: Invitation) -> None:
        """Store an invitation in place of an earlier one of the address, whose id is then unknown."""

    @abstractmethod
    async def get(self, invitation_id: UUID) -> Invitation | None:
        """Return an invitation, or None."""

    @abstractmethod
    async def of(self, canonical_email: str) -> Invitation | None:
        """Return the invitation of an address, or None."""

    @abstractmethod
    async def page(self, request: PageRequest, *, at: datetime) -> Page[Invitation]:
        """Return a page of the unexpired invitations whose address has no account, the newest first."""

    @abstractmethod
    async def any_has_role(self, role: str, *, at: datetime) -> bool:
        """Return whether an open invitation has the role."""

    @abstractmethod
    async def delete_for(self, canonical_email: str) -> None:
        """Delete the invitation of an address, if there is one."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` invitations that expired before that time and return the number of deleted rows."""

"""What administrators see of accounts, and do to them."""

from collections.abc import Callable
from hashlib import sha256
from uuid import UUID

from tequipy_auth.domain.entities import User
from tequipy_auth.domain.repositories import AuthUnitOfWork, UserFilter
from tequipy_platform import NotFound, Page, PageRequest


class AdministrationService:
    """Reads accounts; the caller has checked the permission."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork]) -> None:
        self._unit_of_work = unit_of_work

    async def users(self, request: PageRequest, wanted: UserFilter) -> Page[User]:
        """Return a page of accounts, the newest first."""
        async with self._unit_of_work() as work:
            return await work.users.page(request, wanted)

    async def user(self, user_id: UUID) -> User:
        """Return an account; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await work.users.get(user_id)
        if user is None:
            raise NotFound
        return user


def state_tag(user: User) -> str:
    """Return an entity tag of what administrators see of an account (RFC 9110, section 8.8.3)."""
    state = (
        user.id,
        user.email.written,
        user.email_verified,
        user.name,
        user.status,
        user.roles,
        user.created_at,
        user.last_login_at,
    )
    return sha256(repr(state).encode()).hexdigest()[:32]

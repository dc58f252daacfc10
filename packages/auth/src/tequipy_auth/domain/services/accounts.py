"""What an account's owner sees of it."""

from collections.abc import Callable
from uuid import UUID

from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.policy import permissions_of
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Profile
from tequipy_caching import Cache


class AccountService:
    """Accounts, read through the `user_profile` cache."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], *, profiles: Cache[Profile]) -> None:
        self._unit_of_work = unit_of_work
        self._profiles = profiles

    async def profile(self, user_id: UUID) -> Profile:
        """Return an account's profile; raises `InvalidAccessToken` when the account is gone."""
        return await self._profiles.get_or_set(user_id, lambda: self._load(user_id))

    async def _load(self, user_id: UUID) -> Profile:
        async with self._unit_of_work() as work:
            user = await work.users.get(user_id)
        if user is None:
            raise InvalidAccessToken
        return Profile(
            id=user.id,
            email=user.email.written,
            email_verified=user.email_verified,
            name=user.name,
            roles=user.roles,
            permissions=permissions_of(user.roles),
            created_at=user.created_at,
        )

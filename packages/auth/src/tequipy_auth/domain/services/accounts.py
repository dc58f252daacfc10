"""Reading and changing the caller's own account."""

from collections.abc import Callable
from uuid import UUID

from tequipy_auth.domain.display_text import display_name
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.task_names import DROP_PROFILE
from tequipy_auth.domain.value_objects import Profile
from tequipy_caching import Cache
from tequipy_platform import Delivery, retry_conflicts


class AccountService:
    """Reads and changes accounts through the `user_profile` cache."""

    def __init__(
        self, unit_of_work: Callable[[], AuthUnitOfWork], *, profiles: Cache[Profile], operations: Operations
    ) -> None:
        self._unit_of_work = unit_of_work
        self._profiles = profiles
        self._operations = operations

    async def profile(self, user_id: UUID) -> Profile:
        """Return an account's profile; raises `InvalidAccessToken` when the account does not exist."""
        return await self._profiles.get_or_set(user_id, lambda: self._load(user_id))

    @counted("rename")
    @retry_conflicts
    async def rename(self, user_id: UUID, name: str | None) -> Profile:
        """Replace the name and return the profile; raises `InvalidName`, and `InvalidAccessToken` without an account.

        The new profile is cached after the commit. Two concurrent changes may leave the older profile in the cache, and
        a process that dies may leave an outdated one, so a task of the same transaction invalidates the profile once
        more.
        """
        accepted = None if name is None else display_name(name)
        async with self._unit_of_work() as work:
            user = await work.users.set_name(user_id, accepted)
            if user is None:
                raise InvalidAccessToken
            work.outbox.add(DROP_PROFILE, user_id=str(user_id))
        return await self.store(user)

    async def store(self, user: User) -> Profile:
        """Cache and return the profile of an account whose change has been committed.

        The transaction of the change has added the task `DROP_PROFILE`.
        """
        profile = profile_of(user)
        await self._profiles.set(user.id, profile)
        return profile

    async def invalidate(self, user_id: UUID) -> None:
        """Remove a profile from the cache, after a change of the account has been committed."""
        await self._profiles.delete(user_id)

    async def drop_profile(self, _delivery: Delivery, *, user_id: str) -> None:
        """Run the task `auth.drop_profile`: remove a profile from the cache."""
        await self.invalidate(UUID(user_id))

    async def _load(self, user_id: UUID) -> Profile:
        async with self._unit_of_work() as work:
            user = await work.users.get(user_id)
        if user is None:
            raise InvalidAccessToken
        return profile_of(user)


def profile_of(user: User) -> Profile:
    """Return the profile of a user."""
    return Profile(
        id=user.id,
        email=user.email.written,
        email_verified=user.email_verified,
        name=user.name,
        roles=user.roles,
        created_at=user.created_at,
    )

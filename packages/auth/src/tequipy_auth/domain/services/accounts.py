"""What an account's owner sees of it, and changes."""

from collections.abc import Callable
from uuid import UUID

from tequipy_auth.domain.display_text import display_name
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Profile
from tequipy_caching import Cache
from tequipy_platform import Delivery, retry_conflicts


class AccountService:
    """Accounts, read and written through the `user_profile` cache."""

    def __init__(
        self, unit_of_work: Callable[[], AuthUnitOfWork], *, profiles: Cache[Profile], operations: Operations
    ) -> None:
        self._unit_of_work = unit_of_work
        self._profiles = profiles
        self.operations = operations

    async def profile(self, user_id: UUID) -> Profile:
        """Return an account's profile; raises `InvalidAccessToken` when the account is gone."""
        return await self._profiles.get_or_set(user_id, lambda: self._load(user_id))

    @counted("rename")
    @retry_conflicts
    async def rename(self, user_id: UUID, name: str | None) -> Profile:
        """Replace the name and return the profile; raises `InvalidName` and, without an account, `InvalidAccessToken`.

        Written through the cache after the commit. Of two changes at once the cache may keep the earlier one, or none
        if the process dies in between: so the profile is dropped once more by a task of the same commit.
        """
        accepted = None if name is None else display_name(name)
        async with self._unit_of_work() as work:
            user = await work.users.set_name(user_id, accepted)
            if user is None:
                raise InvalidAccessToken
            work.outbox.add("auth.drop_profile", user_id=str(user_id))
        profile = profile_of(user)
        await self._profiles.set(user_id, profile)
        return profile

    async def drop_profile(self, delivery: Delivery, *, user_id: str) -> None:  # noqa: ARG002 -- harmless when repeated
        """Perform the task `auth.drop_profile`: whoever asks next reads what is true."""
        await self._profiles.delete(UUID(user_id))

    async def _load(self, user_id: UUID) -> Profile:
        async with self._unit_of_work() as work:
            user = await work.users.get(user_id)
        if user is None:
            raise InvalidAccessToken
        return profile_of(user)


def profile_of(user: User) -> Profile:
    """Return what an account's owner sees of it."""
    return Profile(
        id=user.id,
        email=user.email.written,
        email_verified=user.email_verified,
        name=user.name,
        roles=user.roles,
        created_at=user.created_at,
    )

"""Repositories of mailed links: their tokens, and the charges for mails."""

from abc import ABC, abstractmethod
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import OneTimeToken
from tequipy_auth.domain.value_objects import Purpose


class OneTimeTokens(ABC):
    """One-time tokens for links in mails."""

    @abstractmethod
    async def add(self, token: OneTimeToken, *, keep: int | None) -> None:
        """Store a token and delete all but the `keep` newest tokens of the same purpose and subject; None keeps all."""

    @abstractmethod
    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Use a token and return its subject; None if the token is unknown, used, expired or has another purpose.

        All other tokens of the same purpose and subject become invalid too.
        """

    @abstractmethod
    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Return the same as `consume` without using the token; None also when no password attempt is left."""

    @abstractmethod
    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Count one password attempt with a token and return its subject; None in the same cases as `peek`.

        Concurrent calls never count more than `TRIES_PER_TOKEN` attempts. `consume` ignores the count, because the last
        allowed attempt may be correct.
        """

    @abstractmethod
    async def release_try(self, token_id: UUID) -> None:
        """Undo the count of an attempt whose password was not checked."""

    @abstractmethod
    async def is_known(self, token_id: UUID) -> bool:
        """Return whether a token with this id is stored, independent of its purpose and state."""

    @abstractmethod
    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Delete all tokens of a purpose and subject."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` tokens that expired before that time and return the number of deleted rows."""


class MailCharges(ABC):
    """Charges for mails against the budgets of addresses."""

    @abstractmethod
    async def charge(self, message_id: UUID, key: str, *, at: datetime, since: datetime, limit: int) -> bool:
        """Charge a message to a key; return False if `limit` other messages were charged to it after `since`.

        Charging a message again moves its charge to `at`. Concurrent calls never exceed `limit`.
        """

    @abstractmethod
    async def release(self, message_id: UUID) -> None:
        """Delete the charge of a message, if there is one."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` charges that were made before that time and return the number of deleted rows."""

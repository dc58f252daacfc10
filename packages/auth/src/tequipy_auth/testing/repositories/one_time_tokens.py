"""One-time tokens in memory."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import TRIES_PER_TOKEN, OneTimeToken
from tequipy_auth.domain.repositories import OneTimeTokens
from tequipy_auth.domain.value_objects import Purpose
from tequipy_auth.testing.repositories.purging import purge


class MemoryOneTimeTokens(OneTimeTokens):
    """Stores unused tokens in `rows` and used tokens in `used`, both by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, OneTimeToken] = {}
        self.used: dict[UUID, OneTimeToken] = {}

    async def add(self, token: OneTimeToken, *, keep: int | None) -> None:
        """Store a token and delete the oldest ones above the limit."""
        self.rows[token.id] = token
        newest_first = sorted(self._siblings(token), key=lambda row: (row.created_at, row.id), reverse=True)
        for row in newest_first[len(newest_first) if keep is None else keep :]:
            del self.rows[row.id]

    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Mark a token and its siblings as used."""
        token = self._find_valid(token_id, purpose, secret_hash, at)
        if token is None:
            return None
        self.used |= {row.id: row for row in self._siblings(token)}
        await self.discard(token.subject_id, purpose)
        return token.subject_id

    async def is_known(self, token_id: UUID) -> bool:
        """Return whether the token is stored, used or not."""
        return token_id in self.rows or token_id in self.used

    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Return the subject of a valid token."""
        token = self._find_valid(token_id, purpose, secret_hash, at)
        return token.subject_id if token and token.tries < TRIES_PER_TOKEN else None

    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Count one password attempt."""
        token = self._find_valid(token_id, purpose, secret_hash, at)
        if token is None or token.tries >= TRIES_PER_TOKEN:
            return None
        self.rows[token_id] = replace(token, tries=token.tries + 1)
        return token.subject_id

    async def release_try(self, token_id: UUID) -> None:
        """Undo the count of one attempt."""
        token = self.rows.get(token_id)
        if token is not None and token.tries:
            self.rows[token_id] = replace(token, tries=token.tries - 1)

    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Delete every token of a purpose and subject."""
        for row in [row for row in self.rows.values() if (row.subject_id, row.purpose) == (subject_id, purpose)]:
            del self.rows[row.id]

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired tokens."""
        deleted = purge(self.rows, lambda row: row.expires_at <= before, limit)
        return deleted + purge(self.used, lambda row: row.expires_at <= before, limit - deleted)

    def _find_valid(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, at: datetime) -> OneTimeToken | None:
        token = self.rows.get(token_id)
        if token is None or (token.purpose, token.secret_hash) != (purpose, secret_hash) or token.expires_at <= at:
            return None
        return token

    def _siblings(self, token: OneTimeToken) -> list[OneTimeToken]:
        return [row for row in self.rows.values() if (row.subject_id, row.purpose) == (token.subject_id, token.purpose)]

"""One-time tokens on PostgreSQL; operations with races are single statements."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from tequipy_auth.domain.entities import TRIES_PER_TOKEN, OneTimeToken
from tequipy_auth.domain.repositories import OneTimeTokens
from tequipy_auth.domain.value_objects import Purpose
from tequipy_auth.infrastructure.models import OneTimeTokenRow
from tequipy_auth.infrastructure.repositories.base import Repository


class SqlOneTimeTokens(Repository, OneTimeTokens):
    """Rows of `auth.one_time_tokens`."""

    async def add(self, token: OneTimeToken, *, keep: int | None) -> None:
        """Insert a token and delete the oldest ones above the limit."""
        siblings = (
            OneTimeTokenRow.subject_id == token.subject_id,
            OneTimeTokenRow.purpose == token.purpose.value,
        )
        # Calls for one subject are serialised: concurrent ones would not see each other's tokens and keep too many.
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(token.subject_id), 0))))
        await self._session.execute(
            insert(OneTimeTokenRow).values(
                id=token.id,
                purpose=token.purpose.value,
                subject_id=token.subject_id,
                secret_hash=token.secret_hash,
                created_at=token.created_at,
                expires_at=token.expires_at,
            )
        )
        if keep is None:
            return
        newest = (
            select(OneTimeTokenRow.id)
            .where(*siblings)
            .order_by(OneTimeTokenRow.created_at.desc(), OneTimeTokenRow.id.desc())
            .limit(keep)
        )
        await self._session.execute(delete(OneTimeTokenRow).where(*siblings, OneTimeTokenRow.id.not_in(newest)))

    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Select the subject of a valid token."""
        query = select(OneTimeTokenRow.subject_id).where(
            _is_valid(OneTimeTokenRow, token_id, purpose, secret_hash, at), OneTimeTokenRow.tries < TRIES_PER_TOKEN
        )
        return await self._session.scalar(query)

    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Increment the number of attempts, which is checked under the row's lock."""
        return await self._session.scalar(
            update(OneTimeTokenRow)
            .where(
                _is_valid(OneTimeTokenRow, token_id, purpose, secret_hash, at), OneTimeTokenRow.tries < TRIES_PER_TOKEN
            )
            .values(tries=OneTimeTokenRow.tries + 1)
            .returning(OneTimeTokenRow.subject_id)
            .execution_options(synchronize_session=False)
        )

    async def release_try(self, token_id: UUID) -> None:
        """Decrement the number of attempts."""
        await self._session.execute(
            update(OneTimeTokenRow)
            .where(OneTimeTokenRow.id == token_id, OneTimeTokenRow.tries > 0)
            .values(tries=OneTimeTokenRow.tries - 1)
            .execution_options(synchronize_session=False)
        )

    async def is_known(self, token_id: UUID) -> bool:
        """Select the token's id."""
        return await self._session.scalar(select(OneTimeTokenRow.id).where(OneTimeTokenRow.id == token_id)) is not None

    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Delete the tokens of a subject."""
        await self._session.execute(
            delete(OneTimeTokenRow).where(
                OneTimeTokenRow.subject_id == subject_id, OneTimeTokenRow.purpose == purpose.value
            )
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired tokens, used or not."""
        return await self._purge(OneTimeTokenRow, OneTimeTokenRow.expires_at <= before, limit)

    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Mark the token and its siblings as used in one statement, so that only one concurrent call succeeds."""
        presented = aliased(OneTimeTokenRow)
        siblings = select(presented.subject_id, presented.purpose).where(
            _is_valid(presented, token_id, purpose, secret_hash, at)
        )
        used = await self._session.execute(
            update(OneTimeTokenRow)
            # PostgreSQL checks `used_at` again after waiting for a concurrent transaction.
            .where(
                tuple_(OneTimeTokenRow.subject_id, OneTimeTokenRow.purpose).in_(siblings),
                OneTimeTokenRow.used_at.is_(None),
            )
            .values(used_at=at)
            .returning(OneTimeTokenRow.id, OneTimeTokenRow.subject_id)
            .execution_options(synchronize_session=False)
        )
        return next((row.subject_id for row in used if row.id == token_id), None)


def _is_valid(
    row: type[OneTimeTokenRow], token_id: UUID, purpose: Purpose, secret_hash: bytes, at: datetime
) -> ColumnElement[bool]:
    """Return the condition for the presented token: stored with this purpose and secret, unused, and not expired."""
    return and_(
        row.id == token_id,
        row.purpose == purpose.value,
        row.secret_hash == secret_hash,
        row.expires_at > at,
        row.used_at.is_(None),
    )

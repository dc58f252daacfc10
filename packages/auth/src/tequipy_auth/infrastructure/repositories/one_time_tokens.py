"""The tokens of mailed links on PostgreSQL; what must win a race is one statement."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from tequipy_auth.domain.entities import TRIES_PER_TOKEN, OneTimeToken
from tequipy_auth.domain.repositories import OneTimeTokens
from tequipy_auth.domain.value_objects import Purpose
from tequipy_auth.infrastructure.models import OneTimeTokenRow
from tequipy_auth.infrastructure.repositories.base import Repository


class SqlOneTimeTokens(Repository, OneTimeTokens):
    """Rows of `auth.one_time_tokens`."""

    async def add(self, token: OneTimeToken, *, keep: int) -> None:
        """Insert a token and delete what it pushes out."""
        siblings = (
            OneTimeTokenRow.subject_id == token.subject_id,
            OneTimeTokenRow.purpose == token.purpose.value,
        )
        # One at a time for each subject: two that do not see each other would both stay.
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
        newest = (
            select(OneTimeTokenRow.id)
            .where(*siblings)
            .order_by(OneTimeTokenRow.created_at.desc(), OneTimeTokenRow.id.desc())
            .limit(keep)
        )
        await self._session.execute(delete(OneTimeTokenRow).where(*siblings, OneTimeTokenRow.id.not_in(newest)))

    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Select the subject of a token that is good."""
        query = select(OneTimeTokenRow.subject_id).where(
            OneTimeTokenRow.id == token_id,
            OneTimeTokenRow.purpose == purpose.value,
            OneTimeTokenRow.secret_hash == secret_hash,
            OneTimeTokenRow.expires_at > at,
            OneTimeTokenRow.used_at.is_(None),
            OneTimeTokenRow.tries < TRIES_PER_TOKEN,
        )
        return await self._session.scalar(query)

    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Update the token, its tries looked at under the row's lock."""
        return await self._session.scalar(
            update(OneTimeTokenRow)
            .where(
                OneTimeTokenRow.id == token_id,
                OneTimeTokenRow.purpose == purpose.value,
                OneTimeTokenRow.secret_hash == secret_hash,
                OneTimeTokenRow.expires_at > at,
                OneTimeTokenRow.used_at.is_(None),
                OneTimeTokenRow.tries < TRIES_PER_TOKEN,
            )
            .values(tries=OneTimeTokenRow.tries + 1)
            .returning(OneTimeTokenRow.subject_id)
            .execution_options(synchronize_session=False)
        )

    async def release_try(self, token_id: UUID) -> None:
        """Update the token."""
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
        """Update the token and its siblings in one statement, so that of two at once only one is good."""
        shown = aliased(OneTimeTokenRow)
        family = select(shown.subject_id, shown.purpose).where(
            shown.id == token_id,
            shown.purpose == purpose.value,
            shown.secret_hash == secret_hash,
            shown.expires_at > at,
            shown.used_at.is_(None),
        )
        used = await self._session.execute(
            update(OneTimeTokenRow)
            # `used_at` is looked at again, after the wait for a concurrent use to commit.
            .where(
                tuple_(OneTimeTokenRow.subject_id, OneTimeTokenRow.purpose).in_(family),
                OneTimeTokenRow.used_at.is_(None),
            )
            .values(used_at=at)
            .returning(OneTimeTokenRow.id, OneTimeTokenRow.subject_id)
            .execution_options(synchronize_session=False)
        )
        return next((row.subject_id for row in used if row.id == token_id), None)

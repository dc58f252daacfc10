"""Signing keys on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.repositories import SigningKeys
from tequipy_auth.infrastructure.mapping import signing_key_of
from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_auth.infrastructure.repositories.base import Repository

_LOCK: Final = "auth.signing_keys"


class SqlSigningKeys(Repository, SigningKeys):
    """Rows of `auth.signing_keys`."""

    async def lock(self) -> None:
        """Take an advisory lock that ends with the transaction; other reads and writes do not need it."""
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(_LOCK, 0))))

    async def all(self) -> Sequence[SigningKey]:
        """Select every key."""
        rows = await self._session.scalars(
            select(SigningKeyRow)
            .order_by(SigningKeyRow.created_at, SigningKeyRow.kid)
            .execution_options(populate_existing=True)
        )
        return [signing_key_of(row) for row in rows]

    async def add(self, key: SigningKey) -> None:
        """Insert a key."""
        await self._session.execute(
            insert(SigningKeyRow).values(
                kid=key.kid,
                algorithm=key.algorithm,
                state=key.state.value,
                public_jwk=key.public_jwk,
                private_key=key.private_key,
                encryption_version=key.encryption_version,
                created_at=key.created_at,
                state_changed_at=key.state_changed_at,
            )
        )

    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Update a key's state and erase the private key of a revoked key, so that it cannot become active again."""
        erased = {"private_key": b""} if state is KeyState.REVOKED else {}
        await self._set(kid, state=state.value, state_changed_at=at, **erased)

    async def replace(self, key: SigningKey) -> None:
        """Update a key's private key and its version."""
        await self._set(key.kid, private_key=key.private_key, encryption_version=key.encryption_version)

    async def _set(self, kid: str, **values: object) -> None:
        await self._session.execute(
            update(SigningKeyRow)
            .where(SigningKeyRow.kid == kid)
            .values(**values)
            .execution_options(synchronize_session=False)
        )

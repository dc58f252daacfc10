"""Refreshes, and the state of the only session."""

from datetime import timedelta

from tequipy_auth import Auth, TokenPair
from tequipy_auth.testing import MemoryAuthUnitOfWork

from .accounts import CLIENT

GRACE = timedelta(seconds=60)


async def refresh(auth: Auth, pair: TokenPair) -> TokenPair:
    return await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


def only_session_is_revoked(work: MemoryAuthUnitOfWork) -> bool:
    (session,) = work.sessions.rows.values()
    return session.revoked_at is not None

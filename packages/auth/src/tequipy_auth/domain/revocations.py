"""The names of what is believed no more although its signature is good: what a token rests on, as text."""

from uuid import UUID

from tequipy_auth.domain.value_objects import Principal


def revoked_session(session_id: UUID) -> str:
    """Name a session that has ended."""
    return f"sid:{session_id}"


def superseded_version(user_id: UUID, version: int) -> str:
    """Name what an account's tokens said before its roles or its standing changed."""
    return f"ver:{user_id}:{version}"


def revoked_key(kid: str) -> str:
    """Name a signing key that was taken out of use at once."""
    return f"kid:{kid}"


def revocation_ids(principal: Principal) -> tuple[str, ...]:
    """Return what an access token rests on beside its key: with any of these revoked it speaks for nobody."""
    return (
        revoked_session(principal.session_id),
        superseded_version(principal.user_id, principal.version),
    )

"""Revoked ids: strings that identify sessions, account versions and signing keys whose tokens must be rejected."""

from uuid import UUID

from tequipy_auth.domain.value_objects import Principal


def revoked_session(session_id: UUID) -> str:
    """Return the id of a session."""
    return f"sid:{session_id}"


def superseded_version(user_id: UUID, version: int) -> str:
    """Return the id of an account version; it revokes all tokens that were issued with this version."""
    return f"ver:{user_id}:{version}"


def revoked_key(kid: str) -> str:
    """Return the id of a signing key."""
    return f"kid:{kid}"


def revocation_ids(principal: Principal) -> tuple[str, ...]:
    """Return the ids of a principal's session and account version; its access token is invalid if one is revoked."""
    return (
        revoked_session(principal.session_id),
        superseded_version(principal.user_id, principal.version),
    )

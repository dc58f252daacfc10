"""Attacks by a person who can write to the database but knows no secret."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from tequipy_auth import CACHE_POLICIES, Auth, Client, InvalidAccessToken, InvalidCredentials, Principal
from tequipy_auth.infrastructure.keys import public_jwk, thumbprint
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Unavailable
from tequipy_platform.database import Database, uuid7

EMAIL, PASSWORD = "ada@example.com", "correct horse battery staple"
CLIENT = Client("2001:db8::1", "test")
PRINCIPAL = Principal(uuid7(), uuid7(), ("admin",), 1, datetime.now(UTC), ("pwd",))


def make_auth(database: Database, **changed: Any) -> Auth:
    """Build auth like another process with the same database."""
    return build_auth(
        AuthSettings.model_validate({"bcrypt_cost": 4} | changed),
        environment="test",
        public_url="https://app.example.com",
        database=database,
        cache=MemoryCacheManager(CACHE_POLICIES),
    )


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    async with make_auth(database) as auth:
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
        yield auth


async def execute(database: Database, sql: str, **values: object) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text(sql), values)


def forge(private: ec.EllipticCurvePrivateKey, like: str) -> str:
    """Return the token with its claims, signed by another key under the same key id."""
    claims = jwt.decode(like, options={"verify_signature": False})
    kid = thumbprint(public_jwk(private.public_key()))
    return jwt.encode(claims, private, algorithm="ES256", headers={"typ": "at+jwt", "kid": kid})


async def test_an_inserted_hash_allows_no_login(auth: Auth, database: Database) -> None:
    """A bcrypt hash without a pepper is refused unless a setting names its scheme."""
    digest = bcrypt.hashpw(b"chosen by the writer", bcrypt.gensalt(4)).decode()
    await execute(
        database,
        "update auth.users set password_scheme = 'bcrypt', password_cost = 4, password_pepper_version = 0,"
        " password_digest = :digest",
        digest=digest,
    )
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password="chosen by the writer", client=CLIENT)
    async with make_auth(database, foreign_password_schemes=["bcrypt"]) as moving:
        await moving.login.with_password(email=EMAIL, password="chosen by the writer", client=CLIENT)
    # The login renewed the hash with a pepper, so the setting is no longer needed.
    await auth.login.with_password(email=EMAIL, password="chosen by the writer", client=CLIENT)


@pytest.mark.parametrize("state", ["next", "retiring"])
async def test_a_changed_signing_key_is_not_published(auth: Auth, database: Database, state: str) -> None:
    """A row with another public key is neither published nor accepted, and the service continues."""
    genuine = (await auth.access_tokens.issue(PRINCIPAL)).value
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = public_jwk(private.public_key())
    await execute(
        database,
        "insert into auth.signing_keys (kid, algorithm, state, public_jwk, private_key, created_at, state_changed_at)"
        " values (:kid, 'ES256', :state, cast(:jwk as jsonb), '', now(), now())",
        kid=thumbprint(jwk),
        state=state,
        jwk=json.dumps(jwk),
    )
    async with make_auth(database) as other:
        with pytest.raises(InvalidAccessToken):
            await other.access_tokens.verify(forge(private, genuine))
        assert thumbprint(jwk) not in str(await other.access_tokens.jwks())
        assert await other.access_tokens.verify(genuine) == await auth.access_tokens.verify(genuine)
        await other.access_tokens.check()


async def test_a_changed_public_key_is_not_accepted(auth: Auth, database: Database) -> None:
    """The public key of a row is authenticated with the private key, and its id is checked."""
    genuine = (await auth.access_tokens.issue(PRINCIPAL)).value
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = json.dumps(public_jwk(private.public_key()))
    await execute(database, "update auth.signing_keys set public_jwk = cast(:jwk as jsonb)", jwk=jwk)
    claims = jwt.decode(genuine, options={"verify_signature": False})
    headers = {"typ": "at+jwt", "kid": jwt.get_unverified_header(genuine)["kid"]}
    forged = jwt.encode(claims, private, algorithm="ES256", headers=headers)
    async with make_auth(database) as other:
        with pytest.raises((Unavailable, InvalidAccessToken)):
            await other.access_tokens.verify(forged)


async def test_a_revoked_key_cannot_be_reactivated(auth: Auth, database: Database) -> None:
    """The private key of a revoked key is deleted, so that a change of its state has no effect."""
    stolen = (await auth.access_tokens.issue(PRINCIPAL)).value
    kid = jwt.get_unverified_header(stolen)["kid"]
    assert auth.keys is not None
    await auth.keys.revoke(kid)
    await execute(
        database,
        "update auth.signing_keys set state = 'retiring', state_changed_at = :at where kid = :kid",
        kid=kid,
        at=datetime.now(UTC) + timedelta(days=1),
    )
    async with make_auth(database) as other:
        with pytest.raises(InvalidAccessToken):
            await other.access_tokens.verify(stolen)

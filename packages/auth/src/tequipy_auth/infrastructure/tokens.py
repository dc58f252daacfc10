"""Access tokens: JWTs in the profile of RFC 9068, signed and verified by PyJWT."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt
from jwt.utils import base64url_decode, base64url_encode

from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.policy import LEEWAY
from tequipy_auth.domain.ports import AccessTokens, Revocations
from tequipy_auth.domain.revocations import revocation_ids, revoked_key
from tequipy_auth.domain.value_objects import AccessToken, Principal
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import PrivateKey, PublicKey
from tequipy_caching import MISSING, Cache
from tequipy_platform import JSON, Clock, IdSource, RandomSource

TYPE: Final = "at+jwt"
"""The `typ` of an access token, so that no other JWT passes for one (RFC 9068, section 4)."""

MAX_TOKEN_BYTES: Final = 8 * 1024
"""Bytes: ours have about 800; bounds its header and the work of parsing it."""

MAX_SHORTENING: Final = 0.05
"""Up to this share of a life is taken off at random, so that clients do not all come back at once."""

_CLAIMS: Final = (
    "iss",
    "aud",
    "sub",
    "client_id",
    "exp",
    "iat",
    "nbf",
    "jti",
    "sid",
    "auth_time",
    "amr",
    "roles",
    "ver",
)
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""Three parts in base64url without padding (RFC 7515, sections 2 and 3.1)."""

_FOREIGN_KEYS: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
"""Header members that name a key of the sender's choice, or ask for extensions: we know none (RFC 8725, 3.10)."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token turned out to say, and all that may end it before its time."""

    principal: Principal
    kid: str
    usable_from: datetime
    usable_until: datetime
    """Both with the leeway."""
    revocation_ids: tuple[str, ...]


class JwtAccessTokens(AccessTokens):
    """Signs with the ring's active key, verifies with whichever of its keys the token names.

    Both take about 0.1 ms of the event loop, less than the way to a thread and back. What was verified is kept in
    `verified` under the token's SHA-256, so that a repeated request costs some microseconds; its times, its key and
    what has been revoked are looked at each time.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        verified: Cache[VerifiedToken],
        revocations: Revocations,
        issuer: str,
        audience: str,
        client_id: str,
        ttl: timedelta,
        clock: Clock,
        new_id: IdSource,
        random: RandomSource,
    ) -> None:
        self._ring = ring
        self._verified = verified
        self._revocations = revocations
        self._issuer = issuer
        self._audience = audience
        self._client_id = client_id
        self._ttl = ttl
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def issue(self, principal: Principal) -> AccessToken:
        """Sign a token that lives between 95 and 100 % of the configured time."""
        key = await self._signing_key()
        now = int(self._clock.now().timestamp())
        shortened = 1 - MAX_SHORTENING * int.from_bytes(self._random(2), "big") / 0xFFFF
        expires_in = int(self._ttl.total_seconds() * shortened)
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(principal.user_id),
            "client_id": self._client_id,
            "exp": now + expires_in,
            "iat": now,
            "nbf": now,
            "jti": str(self._new_id()),
            "sid": str(principal.session_id),
            "auth_time": int(principal.auth_time.timestamp()),
            "amr": principal.amr,
            "roles": principal.roles,
            "ver": principal.version,
        }
        value = jwt.encode(claims, key.key, algorithm=key.algorithm, headers={"typ": TYPE, "kid": key.kid})
        return AccessToken(value, expires_in)

    async def verify(self, token: str) -> Principal:
        """Return who the token speaks for; raises `InvalidAccessToken` for everything that is wrong with it."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidAccessToken
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = self._verified.peek(digest)
        if found is MISSING:
            found = await self._verified.get_or_set(digest, lambda: self._verify(token))
        good = found.usable_from <= self._clock.now() < found.usable_until and self._ring.holds(found.kid)
        if not good or await self._revocations.contains_any(found.revocation_ids):
            raise InvalidAccessToken
        return found.principal

    async def check(self) -> None:
        """Raise `Unavailable` unless the active key can be read, as it is stored now."""
        await self._ring.check()

    async def jwks(self) -> dict[str, JSON]:
        """Return the published keys: next, active and retiring, and none that was revoked a moment ago."""
        return {
            "keys": [
                {**key.jwk, "kid": key.kid, "use": "sig", "alg": key.algorithm}
                for key in (await self._ring.keys()).published.values()
                if not await self._revocations.contains_any([revoked_key(key.kid)])
            ]
        }

    async def _signing_key(self) -> PrivateKey:
        key = (await self._ring.keys()).active
        if await self._revocations.contains_any([revoked_key(key.kid)]):
            # Nobody would believe what it signs, and this process has not looked since.
            key = (await self._ring.reload()).active
        return key

    async def _verify(self, token: str) -> VerifiedToken:
        try:
            _check_canonical(token)
            kid = _key_id(token)
        except (jwt.PyJWTError, UnicodeError) as error:
            raise InvalidAccessToken from error
        key = await self._ring.find(kid)
        if key is None:
            raise InvalidAccessToken
        try:
            claims = self._claims(token, key)
            principal = _principal(claims)
            usable_from, usable_until = _moment(claims["nbf"]) - LEEWAY, _moment(claims["exp"]) + LEEWAY
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidAccessToken from error
        return VerifiedToken(principal, kid, usable_from, usable_until, (*revocation_ids(principal), revoked_key(kid)))

    def _claims(self, token: str, key: PublicKey) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],  # the key's, whatever the token says
            issuer=self._issuer,
            audience=self._audience,
            # The times are checked at each use: they pass while the rest is kept.
            options={
                "require": list(_CLAIMS),
                "strict_aud": True,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )


def _check_canonical(token: str) -> None:
    """Raise `DecodeError` for what is no JWS in its compact form (RFC 7515, section 7.1), though PyJWT reads it.

    That is padding, characters outside of the alphabet, and unused bits that are not zero: each would be one more text
    for the same token.
    """
    if not _COMPACT.fullmatch(token):
        raise jwt.DecodeError("not three parts in base64url")
    for part in token.split("."):
        try:
            canonical = base64url_encode(base64url_decode(part)) == part.encode()
        except ValueError as error:  # a length that no bytes have
            raise jwt.DecodeError("not base64url") from error
        if not canonical:
            raise jwt.DecodeError("unused bits are set")


def _key_id(token: str) -> str:
    """Return the key id of the header, having refused all that a header of ours does not hold."""
    header = jwt.get_unverified_header(token)
    kid = header.get("kid")
    if header.get("typ") != TYPE or not _FOREIGN_KEYS.isdisjoint(header) or not isinstance(kid, str):
        raise jwt.InvalidTokenError("no access token of ours")
    return kid


def _principal(claims: Mapping[str, Any]) -> Principal:
    if not isinstance(claims["ver"], int):
        raise TypeError("ver is no integer")
    return Principal(
        user_id=UUID(claims["sub"]),
        session_id=UUID(claims["sid"]),
        roles=_strings(claims["roles"]),
        version=claims["ver"],
        auth_time=_moment(claims["auth_time"]),
        amr=_strings(claims["amr"]),
    )


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of strings")
    return tuple(value)


def _moment(value: object) -> datetime:
    """Read a NumericDate (RFC 7519, section 2)."""
    if not isinstance(value, int):
        raise TypeError("not whole seconds")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)

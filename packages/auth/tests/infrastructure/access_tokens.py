"""The access tokens of these tests: their keys, their principal and their lifetime."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from tequipy_auth import CACHE_POLICIES, Principal, Revocations
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import KeySet, PrivateKey, PublicKey, public_jwk, thumbprint
from tequipy_auth.infrastructure.tokens import JwtAccessTokens, VerifiedToken
from tequipy_auth.testing import MemoryRevocations
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Clock
from tequipy_platform.testing import CountingIds

TTL = timedelta(minutes=15)
LEEWAY = timedelta(seconds=30)
PRINCIPAL = Principal(
    user_id=UUID(int=1),
    session_id=UUID(int=2),
    roles=("admin", "user"),
    version=3,
    auth_time=datetime(2026, 1, 31, 10, 30, tzinfo=UTC),
    amr=("pwd",),
)
PRIVATE = ec.generate_private_key(ec.SECP256R1())
KID = thumbprint(public_jwk(PRIVATE.public_key()))
KEYS = KeySet(
    PrivateKey(KID, "ES256", PRIVATE),
    {KID: PublicKey(KID, "ES256", public_jwk(PRIVATE.public_key()), PRIVATE.public_key())},
)


async def load_keys() -> KeySet:
    return KEYS


def make_tokens(
    clock: Clock,
    *,
    random: bytes = b"\0\0",
    load: Callable[[], Awaitable[KeySet]] = load_keys,
    ring: KeyRing | None = None,
    revocations: Revocations | None = None,
    **changed: str,
) -> JwtAccessTokens:
    names = {"issuer": "https://issuer.example", "audience": "api", "client_id": "web"} | changed
    return JwtAccessTokens(
        ring or KeyRing(load),
        verified=MemoryCacheManager(CACHE_POLICIES).cache("access_tokens", VerifiedToken),
        revocations=revocations or MemoryRevocations(clock, ttl=TTL + LEEWAY),
        issuer=names["issuer"],
        audience=names["audience"],
        client_id=names["client_id"],
        ttl=TTL,
        clock=clock,
        new_id=CountingIds(),
        random=lambda length: random[:length],
    )

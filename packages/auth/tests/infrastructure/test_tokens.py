"""Issued access tokens: the contract of the real ones and the fakes, and what the real ones contain and need."""

import json
from datetime import timedelta
from typing import Any

import jwt
import pytest

from tequipy_auth import AccessTokens, InvalidAccessToken, KeyUnusable
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import (
    KeySet,
    PrivateKey,
    PublicKey,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.settings import AlgorithmName
from tequipy_auth.infrastructure.tokens import JwtAccessTokens
from tequipy_auth.testing import FakeAccessTokens, MemoryRevocations
from tequipy_platform import Unavailable
from tequipy_platform.testing import CountingIds, FrozenClock

from .access_tokens import KEYS, KID, LEEWAY, PRINCIPAL, TTL, make_tokens

MOMENT = timedelta(seconds=1)


@pytest.fixture
def revocations(clock: FrozenClock) -> MemoryRevocations:
    return MemoryRevocations(clock, ttl=TTL + LEEWAY)


@pytest.fixture(params=["real", "fake"])
def either(request: pytest.FixtureRequest, clock: FrozenClock, revocations: MemoryRevocations) -> AccessTokens:
    if request.param == "real":
        return make_tokens(clock, revocations=revocations)
    return FakeAccessTokens(clock, ttl=TTL, revocations=revocations)


async def test_an_issued_token_returns_its_principal(either: AccessTokens) -> None:
    """An issued token verifies as the same principal."""
    token = await either.issue(PRINCIPAL)
    assert await either.verify(token.value) == PRINCIPAL
    assert token.value not in repr(token)


async def test_a_token_expires(either: AccessTokens, clock: FrozenClock) -> None:
    """A token is invalid after its lifetime and leeway."""
    token = await either.issue(PRINCIPAL)
    clock.advance(timedelta(seconds=token.expires_in) - MOMENT)
    assert await either.verify(token.value) == PRINCIPAL
    clock.advance(MOMENT + LEEWAY)
    with pytest.raises(InvalidAccessToken):
        await either.verify(token.value)


@pytest.mark.parametrize("member", [f"sid:{PRINCIPAL.session_id}", f"ver:{PRINCIPAL.user_id}:3"])
async def test_a_revoked_token_is_invalid(either: AccessTokens, revocations: MemoryRevocations, member: str) -> None:
    """A revoked session or account version makes a valid token invalid."""
    token = await either.issue(PRINCIPAL)
    await revocations.add(f"sid:{PRINCIPAL.user_id}", f"ver:{PRINCIPAL.user_id}:2")
    assert await either.verify(token.value) == PRINCIPAL
    await revocations.add(member)
    with pytest.raises(InvalidAccessToken):
        await either.verify(token.value)


@pytest.mark.parametrize("text", ["", ".", "..", "x.y.z", "a" * 100_000, "\ud800", "ä.ö.ü", "\0"])
async def test_other_text_is_refused(either: AccessTokens, text: str) -> None:
    """Any other text raises the same error."""
    with pytest.raises(InvalidAccessToken):
        await either.verify(text)


async def test_the_key_set_has_the_form_of_rfc_7517(either: AccessTokens) -> None:
    """The key set has the form of RFC 7517, section 5."""
    assert isinstance((await either.jwks())["keys"], list)


async def test_check_succeeds_with_a_usable_key(either: AccessTokens) -> None:
    """`check` raises nothing while the active key is usable."""
    await either.check()


async def test_unusable_keys_raise_unavailable(clock: FrozenClock, revocations: MemoryRevocations) -> None:
    """The real one and the fake raise a kind of `Unavailable` (503) for unusable keys."""

    async def load() -> KeySet:
        raise KeyUnusable("it cannot be read")

    real = make_tokens(clock, load=load)
    fake = FakeAccessTokens(clock, ttl=TTL, revocations=revocations)
    fake.error = KeyUnusable("it cannot be read")
    for tokens in (real, fake):
        with pytest.raises(Unavailable):
            await tokens.check()
    for operation in (
        real.issue(PRINCIPAL),
        real.verify((await make_tokens(clock).issue(PRINCIPAL)).value),
        real.jwks(),
    ):
        with pytest.raises(Unavailable):
            await operation


async def test_a_token_has_the_profile_of_rfc_9068(tokens: JwtAccessTokens, clock: FrozenClock) -> None:
    """Header and claims are those of the contract, and the published key verifies the token."""
    token = await tokens.issue(PRINCIPAL)
    assert jwt.get_unverified_header(token.value) == {"typ": "at+jwt", "alg": "ES256", "kid": KID}
    key = jwt.PyJWKSet.from_json(json.dumps(await tokens.jwks()))[KID]
    now = int(clock.now().timestamp())
    claims = jwt.decode(token.value, key, audience="api", options={"verify_exp": False, "verify_iat": False})
    assert claims == {
        "iss": "https://issuer.example",
        "aud": "api",
        "sub": str(PRINCIPAL.user_id),
        "client_id": "web",
        "exp": now + 900,
        "iat": now,
        "nbf": now,
        "jti": str(CountingIds()()),
        "sid": str(PRINCIPAL.session_id),
        "auth_time": now,
        "amr": ["pwd"],
        "roles": ["admin", "user"],
        "ver": 3,
    }


async def test_the_published_key_is_public(tokens: JwtAccessTokens) -> None:
    """The key set contains only public members, never `d`."""
    (key,) = json.loads(json.dumps(await tokens.jwks()))["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_each_algorithm_signs_and_verifies(clock: FrozenClock, algorithm: AlgorithmName) -> None:
    """Tokens of every supported algorithm verify here and with the published key."""
    private = generate(algorithm)
    jwk = public_jwk(private.public_key())
    kid = thumbprint(jwk)
    keys = KeySet(
        PrivateKey(kid, algorithm, private),
        {**KEYS.published, kid: PublicKey(kid, algorithm, jwk, private.public_key())},
    )

    async def load() -> KeySet:
        return keys

    tokens = make_tokens(clock, load=load)
    token = (await tokens.issue(PRINCIPAL)).value
    assert await tokens.verify(token) == PRINCIPAL
    published = jwt.PyJWKSet.from_json(json.dumps(await tokens.jwks()))
    jwt.decode(token, published[kid], audience="api", options={"verify_exp": False, "verify_iat": False})
    assert jwt.get_unverified_header(token)["alg"] == algorithm


async def test_a_verified_token_is_not_verified_again(
    clock: FrozenClock, revocations: MemoryRevocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated request needs no signature check, and is refused after expiry or revocation."""
    tokens = make_tokens(clock, revocations=revocations)
    token = (await tokens.issue(PRINCIPAL)).value
    decoded: list[str] = []
    decode = jwt.decode

    def recording(token: str, *args: Any, **kwargs: Any) -> Any:
        decoded.append(token)
        return decode(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", recording)
    for _ in range(10):
        assert await tokens.verify(token) == PRINCIPAL
    assert len(decoded) == 1
    await revocations.add(f"kid:{KID}")
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(token)
    revocations.members.clear()
    clock.advance(timedelta(seconds=929))
    assert await tokens.verify(token) == PRINCIPAL
    clock.advance(MOMENT)
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(token)


async def test_a_removed_key_invalidates_verified_tokens(clock: FrozenClock) -> None:
    """Once a process has reloaded its keys, it refuses tokens of the removed key without any message."""
    held = [KEYS]

    async def load() -> KeySet:
        return held[-1]

    ring = KeyRing(load)
    tokens = make_tokens(clock, ring=ring)
    token = (await tokens.issue(PRINCIPAL)).value
    await tokens.verify(token)
    private = generate("ES256")
    jwk = public_jwk(private.public_key())
    kid = thumbprint(jwk)
    held.append(KeySet(PrivateKey(kid, "ES256", private), {kid: PublicKey(kid, "ES256", jwk, private.public_key())}))
    await ring.reload()
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(token)


async def test_nothing_is_signed_with_a_revoked_key(clock: FrozenClock, revocations: MemoryRevocations) -> None:
    """A process that receives a revocation reloads its keys before it signs again."""
    private = generate("ES256")
    jwk = public_jwk(private.public_key())
    kid = thumbprint(jwk)
    new = KeySet(PrivateKey(kid, "ES256", private), {kid: PublicKey(kid, "ES256", jwk, private.public_key())})
    held = [KEYS]

    async def load() -> KeySet:
        return held[-1]

    tokens = make_tokens(clock, load=load, revocations=revocations)
    await tokens.issue(PRINCIPAL)
    held.append(new)
    await revocations.add(f"kid:{KID}")
    token = (await tokens.issue(PRINCIPAL)).value
    assert jwt.get_unverified_header(token)["kid"] == kid
    assert await tokens.verify(token) == PRINCIPAL


@pytest.mark.parametrize(("random", "life"), [(b"\0\0", 900), (b"\xff\xff", 855)])
async def test_lifetimes_are_shortened_by_up_to_five_percent(clock: FrozenClock, random: bytes, life: int) -> None:
    """Lifetimes are 95 to 100 % of the configured one, so that clients do not refresh at the same time."""
    assert (await make_tokens(clock, random=random).issue(PRINCIPAL)).expires_in == life


@pytest.mark.parametrize(("ahead", "good"), [(LEEWAY, True), (LEEWAY + MOMENT, False)])
async def test_nbf_has_30_seconds_of_leeway(ahead: timedelta, good: bool) -> None:
    """A token from a clock that is ahead is accepted within 30 s."""
    token = await make_tokens(FrozenClock(FrozenClock().now() + ahead)).issue(PRINCIPAL)
    verifying = make_tokens(FrozenClock())
    if good:
        assert await verifying.verify(token.value) == PRINCIPAL
    else:
        with pytest.raises(InvalidAccessToken):
            await verifying.verify(token.value)


@pytest.mark.parametrize("changed", [{"issuer": "https://issuer.example/"}, {"audience": "ap"}])
async def test_issuer_and_audience_are_exact(tokens: JwtAccessTokens, clock: FrozenClock, changed: Any) -> None:
    """A token of another issuer or audience is refused although its key is right."""
    token = await make_tokens(clock, **changed).issue(PRINCIPAL)
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(token.value)

"""Access tokens: the contract of the real ones and the fakes, and all tokens that the real ones refuse."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tequipy_auth import CACHE_POLICIES, AccessTokens, InvalidAccessToken, KeyUnusable, Principal, Revocations
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import (
    AlgorithmName,
    KeySet,
    PrivateKey,
    PublicKey,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.tokens import JwtAccessTokens, VerifiedToken
from tequipy_auth.testing import FakeAccessTokens, MemoryRevocations
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Clock, Unavailable
from tequipy_platform.testing import CountingIds, FrozenClock

TTL = timedelta(minutes=15)
LEEWAY = timedelta(seconds=30)
MOMENT = timedelta(seconds=1)
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


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def revocations(clock: FrozenClock) -> MemoryRevocations:
    return MemoryRevocations(clock, ttl=TTL + LEEWAY)


@pytest.fixture(params=["real", "fake"])
def either(request: pytest.FixtureRequest, clock: FrozenClock, revocations: MemoryRevocations) -> AccessTokens:
    if request.param == "real":
        return make_tokens(clock, revocations=revocations)
    return FakeAccessTokens(clock, ttl=TTL, revocations=revocations)


@pytest.fixture
def tokens(clock: FrozenClock) -> JwtAccessTokens:
    return make_tokens(clock)


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


async def forge(
    tokens: JwtAccessTokens, *, claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None
) -> str:
    """Return a token signed with our own key and changed parts; `...` removes a part."""
    good = await tokens.issue(PRINCIPAL)
    payload = jwt.decode(good.value, options={"verify_signature": False}) | (claims or {})
    head = jwt.get_unverified_header(good.value) | (header or {})
    algorithm = jwt.get_algorithm_by_name("ES256")
    parts = [{name: value for name, value in part.items() if value is not ...} for part in (head, payload)]
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(algorithm.sign(signed, PRIVATE)).rstrip(b"=")
    return b".".join([signed, signature]).decode()


async def test_an_unchanged_forged_copy_is_accepted(tokens: JwtAccessTokens) -> None:
    """`forge` signs correctly, so the following tests see refusals only because of their changes."""
    assert await tokens.verify(await forge(tokens)) == PRINCIPAL


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": ...},
        {"typ": "application/at+jwt"},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": ...},
        {"kid": ...},
        {"kid": 1},
        {"kid": "unknown"},
        {"jku": "https://eve.example/jwks"},
        {"x5u": "https://eve.example/certificate"},
        {"x5c": ["MII="]},
        {"jwk": {"kty": "EC"}},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"b64": False},
        {"padding": "x" * 8192},
    ],
    ids=str,
)
async def test_other_headers_are_refused(tokens: JwtAccessTokens, header: dict[str, Any]) -> None:
    """Other types, algorithms, sender's keys, extensions and headers over 8 KiB are refused."""
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(await forge(tokens, header=header))


NAMES = ["iss", "aud", "sub", "client_id", "exp", "iat", "nbf", "jti", "sid", "auth_time", "amr", "roles", "ver"]


@pytest.mark.parametrize("name", NAMES)
async def test_every_claim_is_required(tokens: JwtAccessTokens, name: str) -> None:
    """A token without one of its claims is refused."""
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(await forge(tokens, claims={name: ...}))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["api"]},
        {"aud": ["api", "other"]},
        {"sub": "ada"},
        {"sub": 1},
        {"sid": 1},
        {"exp": "tomorrow"},
        {"exp": 1e300},
        {"exp": float("inf")},
        {"exp": 10**100},
        {"nbf": [1]},
        {"roles": "admin"},
        {"roles": [1]},
        {"amr": {}},
        {"ver": "1"},
        {"auth_time": -(10**30)},
    ],
    ids=str,
)
async def test_claims_of_another_type_are_refused(tokens: JwtAccessTokens, claims: dict[str, Any]) -> None:
    """Correctly signed claims of a wrong type raise `InvalidAccessToken` and no other error."""
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(await forge(tokens, claims=claims))


async def test_a_foreign_key_under_our_id_is_refused(tokens: JwtAccessTokens) -> None:
    """A token signed with another key under our key id, or without a signature, is refused."""
    good = (await tokens.issue(PRINCIPAL)).value
    payload = jwt.decode(good, options={"verify_signature": False})
    eve = jwt.encode(
        payload, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"typ": "at+jwt", "kid": KID}
    )
    for token in (eve, good.rpartition(".")[0] + ".", good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")):
        with pytest.raises(InvalidAccessToken):
            await tokens.verify(token)


async def test_the_keys_algorithm_decides(tokens: JwtAccessTokens, clock: FrozenClock) -> None:
    """A key verifies only tokens of its own algorithm, whatever the token names."""
    kept = replace(KEYS, published={KID: replace(KEYS.published[KID], algorithm="ES384")})

    async def load() -> KeySet:
        return kept

    with pytest.raises(InvalidAccessToken):
        await make_tokens(clock, load=load).verify((await tokens.issue(PRINCIPAL)).value)


async def test_the_public_key_is_no_shared_secret(tokens: JwtAccessTokens) -> None:
    """HS256 with the published key as the secret (algorithm confusion) is refused."""
    header, payload, _ = (await forge(tokens, header={"alg": "HS256"})).split(".")
    secret = json.dumps(public_jwk(PRIVATE.public_key())).encode()
    signature = jwt.get_algorithm_by_name("HS256").sign(f"{header}.{payload}".encode(), secret)
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(f"{header}.{payload}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine must not fail the test
@given(
    st.dictionaries(st.sampled_from([*NAMES, "other"]), json_values),
    st.dictionaries(st.sampled_from(["typ", "alg", "kid", "crit", "b64", "jwk", "zip"]), json_values),
)
def test_any_signed_token_is_accepted_or_refused(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Any JSON in header and claims returns a principal or raises `InvalidAccessToken`."""

    async def verify() -> None:
        tokens = make_tokens(FrozenClock())
        try:
            await tokens.verify(await forge(tokens, claims=claims, header=header))
        except InvalidAccessToken:
            return

    asyncio.run(verify())


segments = st.binary(max_size=60).map(lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=())) | st.lists(segments, max_size=5).map(".".join))
def test_any_text_is_refused(text: str) -> None:
    """No text raises another error."""

    async def verify() -> None:
        with pytest.raises(InvalidAccessToken):
            await make_tokens(FrozenClock()).verify(text)

    asyncio.run(verify())


BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_each_last_character_has_one_spelling(clock: FrozenClock, algorithm: AlgorithmName) -> None:
    """Another last character of a part, or padding, makes the token invalid (RFC 7515, section 2)."""
    private = generate(algorithm)
    public = public_jwk(private.public_key())
    kid = thumbprint(public)
    key = PublicKey(kid, algorithm, public, private.public_key())

    async def load() -> KeySet:
        return KeySet(PrivateKey(kid, algorithm, private), {kid: key})

    tokens = make_tokens(clock, load=load)
    token = (await tokens.issue(PRINCIPAL)).value
    parts = token.split(".")
    believed = []
    for index, part in enumerate(parts):
        others = [part[:-1] + last for last in BASE64URL if last != part[-1]] + [
            part + end for end in ("=", "==", "\n")
        ]
        for other in others:
            spelled = ".".join([*parts[:index], other, *parts[index + 1 :]])
            try:
                await tokens.verify(spelled)
            except InvalidAccessToken:
                continue
            believed.append((index, spelled[-4:]))
    assert believed == []


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(min_value=0) | st.integers(-3, -1),
    st.text("=", max_size=4) | st.text(st.sampled_from(BASE64URL + "+/~. \n") | st.characters(), max_size=4),
    st.integers(0, 2),
)
def test_an_access_token_has_one_spelling(position: int, inserted: str, removed: int) -> None:
    """A token with an inserted, removed or replaced character is refused; -1 is the end."""

    async def verify() -> None:
        tokens = make_tokens(FrozenClock())
        token = (await tokens.issue(PRINCIPAL)).value
        cut = position % (len(token) + 1)
        spelled = token[:cut] + inserted + token[cut + removed :]
        if spelled != token:
            with pytest.raises(InvalidAccessToken):
                await tokens.verify(spelled)

    asyncio.run(verify())


async def test_deep_json_is_refused(tokens: JwtAccessTokens) -> None:
    """A header with the deepest nesting that fits into 8 KiB is refused."""
    header = urlsafe_b64encode(b"[" * 6000).decode()
    with pytest.raises(InvalidAccessToken):
        await tokens.verify(f"{header}.e30.e30")

"""Access tokens that are refused: forged, malformed, and those with a second spelling."""

import asyncio
import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tequipy_auth import InvalidAccessToken
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
from tequipy_platform.testing import FrozenClock

from .access_tokens import KEYS, KID, PRINCIPAL, PRIVATE, make_tokens


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


@settings(max_examples=300)
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

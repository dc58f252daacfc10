"""Conformance cases for access tokens and their published keys."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tequipy_auth.conformance.target import Target, browser, owner, problem

CLAIMS = {"iss", "aud", "sub", "client_id", "exp", "iat", "nbf", "jti", "sid", "auth_time", "amr", "roles", "ver"}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
"""Private members of a JSON Web Key (RFC 7518, section 6)."""


def encode(part: object) -> str:
    """Return a part of a token in its wire format."""
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def decode(part: str) -> Any:  # noqa: ANN401 -- JSON
    """Return the decoded JSON of a part of a token."""
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def key_set(target: Target) -> dict[str, Any]:
    """Return the published keys."""
    async with target.connect() as client:
        answer = await client.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert "max-age=" in answer.headers["cache-control"]
    keys: dict[str, Any] = answer.json()
    return keys


@pytest.mark.asyncio
class TestAccessTokens:
    """Correctly signed tokens are accepted, forged ones are rejected."""

    async def test_a_token_verifies_with_the_published_key(self, auth_target: Target) -> None:
        """A token can be verified with the published keys and has the header and claims of RFC 9068."""
        async with owner(auth_target) as person:
            header = jwt.get_unverified_header(person.access_token)
            assert header["typ"] == "at+jwt"
            keys = jwt.PyJWKSet.from_dict(await key_set(auth_target))
            audience = decode(person.access_token.split(".")[1])["aud"]
            # The clock of the app may differ from the real time.
            options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
            claims = jwt.decode(person.access_token, keys[header["kid"]], audience=audience, options=options)  # type: ignore[arg-type]  # -- PyJWT's own TypedDict
            assert claims.keys() >= CLAIMS
            assert claims["exp"] - claims["iat"] <= 900

    async def test_only_public_members_are_published(self, auth_target: Target) -> None:
        """The key set contains no private members, and names the algorithm of each key."""
        for key in (await key_set(auth_target))["keys"]:
            assert PRIVATE_MEMBERS.isdisjoint(key)
            assert key["alg"] in {"ES256", "RS256", "EdDSA"}
            assert key["use"] == "sig"

    async def test_a_missing_token_is_unauthenticated(self, auth_target: Target) -> None:
        """Requests without a bearer token get 401 with a challenge (RFC 6750); URL and cookies are ignored."""
        async with owner(auth_target) as person:
            token = person.access_token
            for address, headers in (
                ("me", {}),
                (f"me?access_token={token}", {}),
                ("me", {"Cookie": f"access_token={token}"}),
            ):
                answer = await person.client.get(f"{auth_target.prefix}/{address}", headers=headers)
                assert problem(answer, 401) == "unauthenticated"
                assert answer.headers["www-authenticate"].startswith("Bearer")

    @pytest.mark.parametrize(
        "changed",
        [
            {"typ": "JWT"},
            {"alg": "none"},
            {"alg": "HS256"},
            {"kid": "unknown"},
            {"jku": "https://eve.example/jwks"},
            {"x5u": "https://eve.example/certificate"},
            {"jwk": {"kty": "EC"}},
            {"crit": ["x"], "x": 1},
        ],
        ids=str,
    )
    async def test_a_changed_header_is_refused(self, auth_target: Target, changed: dict[str, object]) -> None:
        """A token with a changed header is rejected, whether it is unsigned or signed with a published key."""
        async with owner(auth_target) as person:
            header, payload, signature = person.access_token.split(".")
            forged = f"{encode(decode(header) | changed)}.{payload}"
            (first, *_) = (await key_set(auth_target))["keys"]
            mac = hmac.digest(json.dumps(first).encode(), forged.encode(), hashlib.sha256)
            for end in (signature, "", urlsafe_b64encode(mac).rstrip(b"=").decode()):
                answer = await person.get("me", f"{forged}.{end}")
                assert problem(answer, 401) == "invalid_token"
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]

    async def test_changed_claims_are_refused(self, auth_target: Target) -> None:
        """A token with changed claims is rejected, whether it is unsigned or signed with another key."""
        async with owner(auth_target) as person:
            header, payload, signature = person.access_token.split(".")
            claims = decode(payload) | {"roles": ["admin"]}
            assert problem(await person.get("me", f"{header}.{encode(claims)}.{signature}"), 401) == "invalid_token"
            mine = ec.generate_private_key(ec.SECP256R1())
            for extra in ({}, {"jwk": dict(jwt.algorithms.ECAlgorithm.to_jwk(mine.public_key(), as_dict=True))}):
                forged = jwt.encode(claims, mine, algorithm="ES256", headers=decode(header) | extra)
                assert problem(await person.get("me", forged), 401) == "invalid_token"

    @pytest.mark.parametrize("text", ["x", "a.b.c", "." * 100, "e30.e30.e30", "x" * 9000])
    async def test_other_text_is_refused(self, auth_target: Target, text: str) -> None:
        """Any other text gets 401, never a 5xx status."""
        async with browser(auth_target) as person:
            assert problem(await person.get("me", text), 401) == "invalid_token"

    async def test_another_spelling_is_refused(self, auth_target: Target) -> None:
        """A token with padding or with characters outside base64url is rejected (RFC 7515)."""
        async with owner(auth_target) as person:
            token = person.access_token
            for text in (
                f"{token}==",
                f"{token}=",
                f"{token}~",
                token.replace(".", "=.", 1),
                f"{token[:-5]}!{token[-5:]}",
            ):
                assert problem(await person.get("me", text), 401) == "invalid_token"
            assert (await person.get("me")).status_code == 200

    @pytest.mark.parametrize(
        "route", [("GET", "me"), ("GET", "sessions"), ("POST", "logout"), ("POST", "logout-others")]
    )
    async def test_two_authorization_headers_are_refused(self, auth_target: Target, route: tuple[str, str]) -> None:
        """Two headers get 400 `ambiguous_credentials`, even two valid ones: a proxy might use the other one."""
        method, name = route
        async with owner(auth_target) as person:
            good = ("Authorization", f"Bearer {person.access_token}")
            for other in (good, ("Authorization", "Basic YTpi"), ("authorization", "")):
                for headers in ([good, other], [other, good]):
                    answer = await person.client.request(method, f"{auth_target.prefix}/{name}", headers=headers)
                    assert problem(answer, 400) == "ambiguous_credentials"
            assert (await person.get("me")).status_code == 200

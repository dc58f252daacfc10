"""Request and response bodies of auth's routes."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue, SecretStr

from tequipy_auth.domain.display_text import MAX_NAME_LENGTH, NAME_PATTERN
from tequipy_auth.domain.entities import Session
from tequipy_auth.domain.value_objects import Principal, Profile, TokenPair
from tequipy_platform.web import StrictModel

COOKIE: Final = "cookie"
"""The delivery of refresh tokens for browsers; the alternative is `body`."""

# Bounds hold for what is sent: the business rules trim spaces later.
Address = Annotated[
    str,
    Field(min_length=3, max_length=254, examples=["ada@example.com"], description="Outer spaces are trimmed."),
]
# The bound is well above that of the policy, whose errors are more precise than "too long".
Password = Annotated[SecretStr, Field(max_length=1024, examples=["correct horse battery staple"])]
Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        pattern=NAME_PATTERN,
        examples=["Ada Lovelace"],
        description="Outer spaces are trimmed.",
    ),
]
OneTimeToken = Annotated[SecretStr, Field(max_length=1024, examples=["ev1.AZ…22 characters….…43 characters…"])]
RefreshToken = Annotated[SecretStr, Field(max_length=1024, examples=["rt1.AZ…22 characters….…43 characters…"])]
DeviceToken = Annotated[SecretStr, Field(max_length=1024, examples=["dv2.4f1c….0.1801526400.m9Kx….77ab…"])]


class RegisterBody(StrictModel):
    """The data of a new account."""

    email: Address
    password: Password
    name: Name | None = None


class AcceptInvitationBody(StrictModel):
    """The token of the mailed link, and the password and name of the new account."""

    token: OneTimeToken
    password: Password
    name: Name | None = None


class VerifyEmailBody(StrictModel):
    """The token of the mailed link, and its registration's password if the address has several pending ones."""

    token: OneTimeToken
    password: Password | None = None


class AddressBody(StrictModel):
    """The address for which a mail is requested."""

    email: Address


class ChangeEmailBody(StrictModel):
    """The new address."""

    new_email: Address


class TokenBody(StrictModel):
    """The token of a mailed link."""

    token: OneTimeToken


class ReauthenticateBody(StrictModel):
    """The caller's current password, and how to deliver the refresh token of the new session."""

    password: Password
    token_delivery: Literal["cookie", "body"] = COOKIE


class ResetPasswordBody(StrictModel):
    """The token of the mailed link, and the new password."""

    token: OneTimeToken
    new_password: Password


class ChangePasswordBody(StrictModel):
    """The current password and the new one."""

    current_password: Password
    new_password: Password


class ProfileBody(StrictModel):
    """The fields of an account that its owner can change; null removes the name."""

    name: Name | None


class DeleteMeBody(StrictModel):
    """The caller's current password."""

    password: Password


class LoginBody(StrictModel):
    """Credentials, how to deliver the refresh token, and the device token of an earlier login with body delivery."""

    email: Address
    password: Password
    token_delivery: Literal["cookie", "body"] = COOKIE
    device_token: DeviceToken | None = None


class RefreshTokenBody(StrictModel):
    """The refresh token of a client without a cookie jar; if it is missing, the cookie is used."""

    refresh_token: RefreshToken | None = None


NEW_PASSWORDS: Final[Sequence[tuple[type[StrictModel], str]]] = (
    (RegisterBody, "password"),
    (AcceptInvitationBody, "password"),
    (ResetPasswordBody, "new_password"),
    (ChangePasswordBody, "new_password"),
)
"""The fields with new passwords, which have to follow the policy."""


class Accepted(BaseModel):
    """The request was accepted; any result is sent by mail."""

    status: Literal["accepted"] = "accepted"


class Tokens(BaseModel):
    """An access token and, with body delivery, a refresh token; lifetimes are in seconds (RFC 6749, section 5.1).

    A login with body delivery also returns a device token. Send it with the next login: failed attempts of other
    clients cannot lock out a client that has one.
    """

    access_token: str = Field(examples=["eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIs…"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- the name of a scheme, no secret
    expires_in: int = Field(examples=[900])
    refresh_token: str | None = Field(default=None, examples=["rt1.AZ…22 characters….…43 characters…"])
    refresh_expires_in: int | None = Field(default=None, examples=[604800])
    device_token: str | None = Field(default=None, examples=["dv2.4f1c….0.1801526400.m9Kx….77ab…"])

    @classmethod
    def of(cls, pair: TokenPair, *, with_refresh: bool) -> Self:
        """Return the body for a token pair, with or without the refresh token."""
        tokens = cls(access_token=pair.access.value, expires_in=pair.access.expires_in)
        if with_refresh:
            tokens.refresh_token = str(pair.refresh)
            tokens.refresh_expires_in = pair.refresh_expires_in
            tokens.device_token = pair.device_mark
        return tokens


class SessionItem(BaseModel):
    """A session of the caller."""

    id: UUID = Field(examples=["01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"])
    created_at: datetime = Field(examples=["2026-01-31T10:30:00Z"])
    last_used_at: datetime = Field(examples=["2026-01-31T10:45:00Z"])
    expires_at: datetime = Field(examples=["2026-02-07T10:45:00Z"])
    ip: str | None = Field(examples=["192.0.2.1"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])
    current: bool = Field(examples=[True])


class SessionList(BaseModel):
    """All sessions of the caller."""

    items: list[SessionItem]

    @classmethod
    def of(cls, sessions: Sequence[Session], caller: Principal) -> Self:
        """Return the body for sessions; the caller's own session is marked `current`."""
        return cls(
            items=[
                SessionItem(
                    id=session.id,
                    created_at=session.created_at,
                    last_used_at=session.last_used_at,
                    expires_at=session.expires_at,
                    ip=session.client.ip,
                    user_agent=session.client.user_agent,
                    current=session.id == caller.session_id,
                )
                for session in sessions
            ]
        )


class Me(BaseModel):
    """The caller's own account."""

    id: UUID = Field(examples=["01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"])
    email: str = Field(examples=["ada@example.com"])
    email_verified: bool = Field(examples=[True])
    name: str | None = Field(examples=["Ada Lovelace"])
    roles: list[str] = Field(examples=[["user"]])
    permissions: list[str] = Field(examples=[[]])
    created_at: datetime = Field(examples=["2026-01-31T10:30:00Z"])

    @classmethod
    def of(cls, profile: Profile, permissions: Iterable[str]) -> Self:
        """Return the body for a profile and its permissions."""
        return cls(
            id=profile.id,
            email=profile.email,
            email_verified=profile.email_verified,
            name=profile.name,
            roles=list(profile.roles),
            permissions=list(permissions),
            created_at=profile.created_at,
        )


class JsonWebKeySet(BaseModel):
    """Public keys (RFC 7517, section 5)."""

    keys: list[dict[str, JsonValue]] = Field(
        examples=[
            [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "m3Zk…", "x": "9Jxq…", "y": "kPq4…"}]
        ]
    )

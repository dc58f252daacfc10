"""Errors of accounts and sessions; their codes are part of the HTTP contract."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

from tequipy_platform import (
    JSON,
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)


class InvalidAddress(Invalid):
    """The address is not a valid e-mail address."""

    detail = "The e-mail address is not valid."

    def __init__(self, pointer: str = "/email") -> None:
        # The error has the form of `validation_failed`, so that clients handle it like any other invalid field.
        super().__init__(errors=[{"pointer": pointer, "code": "invalid_email", "detail": type(self).detail}])


class InvalidName(Invalid):
    """The display name is empty, too long, or contains invisible characters."""

    detail = "A name has 1 to 100 characters, none of them a control character or invisible."

    def __init__(self) -> None:
        super().__init__(errors=[{"pointer": "/name", "code": "invalid_name", "detail": type(self).detail}])


class WeakPassword(Invalid):
    """The password violates the policy; `reasons` lists how (`too_short`, `common`, `breached`, …)."""

    code = "weak_password"
    title = "Weak password"
    detail = "The password is too weak: choose a longer one that is not common, not leaked and not your address."
    member_schemas: ClassVar[Mapping[str, JSON]] = {
        "reasons": {
            "type": "array",
            "items": {
                "title": "WeakPasswordReason",
                "type": "string",
                "enum": ["too_short", "too_long", "common", "matches_email", "breached"],
            },
            "examples": [["too_short", "common"]],
        }
    }

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons=list(reasons))
        self.reasons = reasons


class RegistrationClosed(Forbidden):
    """Accounts come from invitations alone."""

    code = "registration_closed"
    title = "Registration closed"
    detail = "Registration is closed: ask an administrator for an invitation."


class EmailTaken(Conflict):
    """An account with this address exists already."""

    code = "email_taken"
    title = "Address taken"
    detail = "There is an account with this address already."


class UnknownRole(Invalid):
    """No role has this name."""

    detail = "A role does not exist."

    def __init__(self) -> None:
        super().__init__(errors=[{"pointer": "/roles", "code": "unknown_role", "detail": type(self).detail}])


class UnknownPermission(Invalid):
    """No part of this service declares a permission of this name."""

    detail = "A permission does not exist."

    def __init__(self) -> None:
        error = {"pointer": "/permissions", "code": "unknown_permission", "detail": type(self).detail}
        super().__init__(errors=[{**error}])


class BuiltinRole(Conflict):
    """The role is built in, and cannot be changed or deleted."""

    code = "builtin_role"
    title = "Built-in role"
    detail = "This role is built in: define another one."


class RoleInUse(Conflict):
    """Accounts or open invitations have the role, so it cannot be deleted."""

    code = "role_in_use"
    title = "Role in use"
    detail = "Accounts or open invitations have this role: take it away from them, or delete them, first."


class LastAdmin(Conflict):
    """The change would leave no active administrator."""

    code = "last_admin"
    title = "Last administrator"
    detail = "This is the last administrator: give another account the role admin first."


class SelfDisable(Conflict):
    """Administrators cannot disable their own account."""

    code = "self_disable"
    title = "Own account"
    detail = "Ask another administrator to disable your account."


class InvalidCredentials(Unauthenticated):
    """The address or the password is wrong; the error does not tell which."""

    code = "invalid_credentials"
    title = "Invalid credentials"
    detail = "The address or the password is wrong."


class PasswordRequired(Unauthenticated):
    """The address has several pending registrations, so the password must show which of them the link belongs to."""

    code = "password_required"
    title = "Password required"
    detail = (
        "This address was registered more than once: send the password that was chosen for this link's registration."
    )


class EmailNotVerified(Forbidden):
    """The password is correct, but the address has not been verified (only with open registration)."""

    code = "email_not_verified"
    title = "Address not verified"
    detail = "Open the link in the mail that was sent to the address first, or ask for another one."


class LoginLocked(TooMany):
    """Too many attempts have failed, so this one was refused without checking the password."""

    code = "login_locked"
    title = "Login locked"
    detail = "Too many failed attempts: wait, or reset the password by mail."


class ReauthRequired(Unauthenticated):
    """The caller must have authenticated within the last few minutes."""

    code = "reauth_required"
    title = "Reauthentication required"
    detail = "Confirm your password first (POST /reauthenticate)."


class InvalidAccessToken(Unauthenticated):
    """The bearer token is malformed, expired, revoked or was not issued here (RFC 6750, section 3.1)."""

    code = "invalid_token"
    title = "Invalid token"
    detail = "The access token is invalid or has expired."


class InvalidOneTimeToken(Malformed):
    """The mailed token is unknown, used, expired or has another purpose; the error does not tell which."""

    code = "token_invalid"
    title = "Invalid token"
    detail = "The link is invalid, was used or has expired: ask for a new one."


class RefreshMissing(Unauthenticated):
    """The request contains no refresh token."""

    code = "refresh_missing"
    title = "Refresh token missing"
    detail = "There is no refresh token: log in."


class RefreshInvalid(Unauthenticated):
    """The refresh token is malformed or unknown, or its secret is wrong."""

    code = "refresh_invalid"
    title = "Refresh token invalid"
    detail = "The refresh token is invalid: log in."


class RefreshExpired(Unauthenticated):
    """The session has reached its idle or absolute expiry."""

    code = "refresh_expired"
    title = "Session expired"
    detail = "The session has expired: log in."


class RefreshSuperseded(Unauthenticated):
    """The token was replaced and its successor has been used, usually by another tab of the same browser.

    The session continues: the browser already holds the newer token.
    """

    code = "refresh_superseded"
    title = "Refresh token superseded"
    detail = "A newer refresh token was already used: try again with it."


class RefreshReused(Unauthenticated):
    """A used token was presented after the grace period, so it may be stolen and the session was ended (RFC 9700)."""

    code = "refresh_reused"
    title = "Refresh token reused"
    detail = "The refresh token was used before: the session has been ended for safety, log in."


class SessionRevoked(Unauthenticated):
    """The session was ended before its expiry."""

    code = "session_revoked"
    title = "Session ended"
    detail = "The session has been ended: log in."


class AmbiguousCredentials(Malformed):
    """The request contains two credentials where one is expected."""

    code = "ambiguous_credentials"
    title = "Ambiguous credentials"
    detail = "Send one Authorization header at most, and the refresh token either as cookie or in the body, not both."


class CsrfFailed(Forbidden):
    """The request may come from another site; its token was not used."""

    code = "csrf_failed"
    title = "Cross-site request refused"
    detail = "Send this request from the application itself, as JSON or with X-Requested-With."


class UnknownKey(NotFound):
    """No signing key with this id exists, or it is already revoked."""

    def __init__(self, kid: str) -> None:
        super().__init__(f"There is no signing key {kid} to revoke.")


class KeyNotPublishedLongEnough(Conflict):
    """The next key is too new: verifiers that cached the key set before it was published would reject its tokens."""

    def __init__(self, kid: str, usable_at: datetime) -> None:
        super().__init__(
            f"The next key {kid} was not published for long enough: rotate after {usable_at:%Y-%m-%d %H:%M:%S} UTC."
        )
        self.usable_at = usable_at


class KeyUnusable(Unavailable):
    """A signing key cannot be read.

    `reason` names the key and the remedy, `setting` names the setting to change. Both are meant for operators, in logs
    and on the command line; the HTTP response only says that the service is unavailable. `remedy` names the method of
    `KeyService` that helps, for apps that have a command for it, and `kid` the key that it takes.
    """

    def __init__(
        self,
        reason: str,
        *,
        setting: str = "key_encryption_key",
        remedy: Literal["reencrypt", "revoke"] | None = None,
        kid: str | None = None,
    ) -> None:
        super().__init__(retry_after=10)
        self.reason = reason
        self.setting = setting
        self.remedy = remedy
        self.kid = kid

    def __str__(self) -> str:
        return f"{self.setting}: {self.reason}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

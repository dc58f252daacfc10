"""The password policy: length and obvious choices, no composition rules (NIST SP 800-63B, section 5.1.1.2)."""

import unicodedata
from typing import Final

from tequipy_auth.domain.exceptions import WeakPassword
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import CommonPasswords
from tequipy_auth.domain.value_objects import EmailAddress

MAX_STORED_COST: Final = 15
"""A stored hash of a higher bcrypt cost is refused: checking one of cost 31 would take a thread for a day."""


def normalise(password: str) -> str:
    """Return the password in NFKC, so that it is the same from every keyboard."""
    return unicodedata.normalize("NFKC", password)


def fold(password: str) -> str:
    """Return the form in which passwords are compared with well-known words: whatever the case, NFKC again."""
    return normalise(normalise(password).casefold())


class PasswordRules:
    """What a new password must be: long enough, and nothing that an attacker tries first."""

    def __init__(self, policy: AuthPolicy, common: CommonPasswords) -> None:
        self._policy = policy
        self._common = common

    def accept(self, password: str, email: EmailAddress) -> str:
        """Return the normalised password; raises `WeakPassword` with every reason that applies."""
        normalised = normalise(password)
        reasons = []
        if len(normalised) < self._policy.password_min_length:
            reasons.append("too_short")
        if len(normalised) > self._policy.password_max_length:
            reasons.append("too_long")
        if normalised in self._common:
            reasons.append("common")
        if fold(normalised) in {email.canonical, fold(email.written), email.canonical.partition("@")[0]}:
            reasons.append("matches_email")
        if reasons:
            raise WeakPassword(tuple(reasons))
        return normalised

"""The password policy: length, no common or breached passwords, no composition rules (NIST SP 800-63B, 5.1.1.2)."""

import unicodedata
from typing import Final

from tequipy_auth.domain.exceptions import WeakPassword
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import BreachedPasswords, CommonPasswords
from tequipy_auth.domain.value_objects import EmailAddress

MAX_STORED_COST: Final = 15
"""The maximum bcrypt cost of a stored hash that is checked; a check with cost 31 would occupy a thread for a day."""


def normalise(password: str) -> str:
    """Return the password in Unicode normalisation form NFKC, so that it does not depend on the keyboard."""
    return unicodedata.normalize("NFKC", password)


def fold(password: str) -> str:
    """Return the form in which passwords are compared with common words: case-folded, and NFKC again."""
    return normalise(normalise(password).casefold())


class PasswordRules:
    """Checks new passwords for length and for values that attackers try first.

    Without `breached`, passwords that are known from data breaches are accepted.
    """

    def __init__(self, policy: AuthPolicy, common: CommonPasswords, breached: BreachedPasswords | None = None) -> None:
        self._policy = policy
        self._common = common
        self._breached = breached

    async def accept(self, password: str, email: EmailAddress) -> str:
        """Return the normalised password; raises `WeakPassword` with every reason that applies.

        Call it outside of a transaction, because it may wait a second for another service. That service is not asked
        about a password that another rule refuses.
        """
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
        if not reasons and self._breached is not None and await self._breached.contains(normalised):
            reasons.append("breached")
        if reasons:
            raise WeakPassword(tuple(reasons))
        return normalised

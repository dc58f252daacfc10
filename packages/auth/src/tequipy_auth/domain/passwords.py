"""The password policy: length and obvious choices, no composition rules (NIST SP 800-63B, section 5.1.1.2)."""

import unicodedata

from tequipy_auth.domain.exceptions import WeakPassword
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.value_objects import EmailAddress


def normalise(password: str) -> str:
    """Return the password in NFKC, so that it is the same from every keyboard."""
    return unicodedata.normalize("NFKC", password)


def accept(password: str, email: EmailAddress, policy: AuthPolicy) -> str:
    """Return the normalised password; raises `WeakPassword` with every reason that applies."""
    normalised = normalise(password)
    reasons = []
    if len(normalised) < policy.password_min_length:
        reasons.append("too_short")
    if len(normalised) > policy.password_max_length:
        reasons.append("too_long")
    if normalised.casefold() in {email.canonical, email.canonical.partition("@")[0]}:
        reasons.append("matches_email")
    if reasons:
        raise WeakPassword(tuple(reasons))
    return normalised

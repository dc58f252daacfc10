"""How many mails strangers may have sent to one address."""

from typing import Final

from tequipy_caching import RateLimiter, RatePolicy

MAILS_TO_AN_ADDRESS: Final = RatePolicy("mails_to_an_address", limit=5, period=3600)
"""Whoever asks, and whether the address has an account."""


class MailBudget:
    """Counts the mails that are asked for by recipient; without a limiter there is no limit."""

    def __init__(self, limiter: RateLimiter | None) -> None:
        self._limiter = limiter

    async def allows(self, recipient: str) -> bool:
        """Count one mail and tell whether it may be sent; `recipient` is a pseudonym."""
        return self._limiter is None or (await self._limiter.hit(MAILS_TO_AN_ADDRESS, recipient)).allowed

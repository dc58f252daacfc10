"""Limits on the number of mails that can be sent to one address."""

from datetime import timedelta
from typing import Final, Literal

from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import EmailAddress
from tequipy_platform import Clock, Delivery

WINDOW: Final = timedelta(hours=1)
"""The period of `AuthPolicy.mails_per_hour`."""

MailPurpose = Literal[
    "register", "resend", "forgot_password", "invitation", "change_email", "new_sign_in", "end_session"
]
"""The operations that cause mails to an address; each has its own budget."""


class MailBudget:
    """Charges mails to a budget per purpose and address when the worker is about to send them.

    A request that leads to no mail is not charged. A message is charged once, and each further attempt moves the charge
    to its own time: so messages that wait for a mail server stay charged, and no more than the hourly number can wait
    for one address.
    """

    def __init__(self, policy: AuthPolicy, pseudonyms: Pseudonyms, clock: Clock) -> None:
        self._limit = policy.mails_per_hour
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def charge(
        self, work: AuthUnitOfWork, delivery: Delivery, purpose: MailPurpose, address: EmailAddress
    ) -> bool:
        """Charge a message in the caller's unit of work; return False, without a charge, if the budget is used up."""
        now = self._clock.now()
        key = self._pseudonyms.of("mail", purpose, address.canonical)
        return await work.mail_charges.charge(delivery.id, key, at=now, since=now - WINDOW, limit=self._limit)

    async def release(self, work: AuthUnitOfWork, delivery: Delivery) -> None:
        """Remove the charge of a message that will never be sent."""
        await work.mail_charges.release(delivery.id)

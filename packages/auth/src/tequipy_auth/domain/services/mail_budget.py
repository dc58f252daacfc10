"""How many mails anybody can have sent to one address."""

from datetime import timedelta
from typing import Final

from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import EmailAddress
from tequipy_platform import Clock, Delivery

WINDOW: Final = timedelta(hours=1)
"""The time that `AuthPolicy.mails_per_hour` is about."""


class MailBudget:
    """A budget for each purpose and address asked for, charged when the worker is about to send.

    What is asked for without a mail costs nothing, and one purpose does not use up another's budget. A message is
    charged once, at the time of its latest attempt: what waits for a mail server keeps its place, so that no more mails
    can wait for an address than an hour allows.
    """

    def __init__(self, policy: AuthPolicy, pseudonyms: Pseudonyms, clock: Clock) -> None:
        self._limit = policy.mails_per_hour
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def charge(self, work: AuthUnitOfWork, delivery: Delivery, purpose: str, address: EmailAddress) -> bool:
        """Charge a message within the caller's unit of work; return False, and charge nothing, over the budget."""
        now = self._clock.now()
        key = self._pseudonyms.of("mail", purpose, address.canonical)
        return await work.mail_charges.charge(delivery.id, key, at=now, since=now - WINDOW, limit=self._limit)

    async def release(self, work: AuthUnitOfWork, delivery: Delivery) -> None:
        """Take the charge of a message back that will never be sent."""
        await work.mail_charges.release(delivery.id)

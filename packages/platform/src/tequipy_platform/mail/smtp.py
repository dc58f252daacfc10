"""Mail by SMTP."""

from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter

from tequipy_observability import SpanKind, span
from tequipy_platform._clock import Clock, SystemClock
from tequipy_platform._mail import Mail, Mailer, MailRejected, MailSenderRefused
from tequipy_platform.mail.composer import compose
from tequipy_platform.mail.settings import MailSettings


class SmtpMailer(Mailer):
    """Sends each mail over a connection of its own, encrypted as `MailSettings.smtp_tls` says.

    `mails_total{outcome}` counts `sent`, `rejected` (this mail, final), `unavailable` and `sender_refused` (both are
    retried). The last one is also logged as an error, because an operator has to act.
    """

    def __init__(
        self, settings: MailSettings, *, clock: Clock | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        if settings.smtp_url is None:
            raise ValueError("SmtpMailer needs smtp_url")
        self._url = urlsplit(settings.smtp_url.get_secret_value())
        self._settings = settings
        self._clock = clock or SystemClock()
        self._outcomes = Counter("mails", "Mails handed to the server, by outcome.", ["outcome"], registry=registry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: no connection stays open between mails."""

    async def send(self, mail: Mail) -> None:
        """Send one mail; `classify` decides what a refusal concerns."""
        from tequipy_platform.mail.smtp_dialogue import deliver  # noqa: PLC0415 -- imports aiosmtplib

        outcome = "unavailable"
        try:
            composed = compose(mail, sender=self._settings.sender, clock=self._clock)
            with span("SMTP", kind=SpanKind.CLIENT) as step:
                step.set("server.address", self._url.hostname or "")
                await deliver(self._settings, self._url, composed)
            outcome = "sent"
        except MailRejected:
            outcome = "rejected"
            raise
        except MailSenderRefused:
            outcome = "sender_refused"
            raise
        finally:
            self._outcomes.labels(outcome).inc()

"""A mailer that sends nothing."""

from types import TracebackType
from typing import Final, Self

from tequipy_platform._clock import SystemClock
from tequipy_platform._mail import Mail, Mailer

_SENDER: Final = "no-reply@example.com"


class RecordingMailer(Mailer):
    """Records sent mails; refuses the mails that real mailers refuse, because it composes them too."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def send(self, mail: Mail) -> None:
        """Record one mail; raises `MailRejected` for one that cannot be composed."""
        # Imported here, because the module of mails loads pydantic, which tests of business rules do not need.
        from tequipy_platform.mail.composer import compose  # noqa: PLC0415

        compose(mail, sender=_SENDER, clock=SystemClock())
        self.mails.append(mail)

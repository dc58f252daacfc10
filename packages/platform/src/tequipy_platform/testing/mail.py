"""A mailer that sends nothing, and mail templates without a template engine."""

import json
from importlib.resources import files
from types import TracebackType
from typing import Final, Self

from tequipy_platform._clock import SystemClock
from tequipy_platform._mail import Mail, Mailer, MailTemplates, MailText

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


class PlainMailTemplates(MailTemplates):
    """Renders mails with the template's name as the subject and the values as the text, one per line.

    It knows a package's templates by their samples, and refuses other names and other values.
    """

    def __init__(self, package: str) -> None:
        samples = files(package) / "templates/samples.json"
        self._samples: dict[str, dict[str, str]] = json.loads(samples.read_text(encoding="utf-8"))

    def render(self, template: str, **values: object) -> MailText:
        """Return the template's name and the values."""
        if values.keys() != self._samples[template].keys():
            raise LookupError(f"mail template {template!r} has the values {', '.join(self._samples[template])}")
        return MailText(template, "".join(f"{name}: {value}\n" for name, value in values.items()))

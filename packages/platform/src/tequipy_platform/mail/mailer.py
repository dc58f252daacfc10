"""The choice between the two mailers."""

from prometheus_client import CollectorRegistry

from tequipy_platform.mail.folder import FolderMailer
from tequipy_platform.mail.settings import MailSettings
from tequipy_platform.mail.smtp import SmtpMailer


def build_mailer(settings: MailSettings, *, registry: CollectorRegistry | None = None) -> SmtpMailer | FolderMailer:
    """Return a mailer that sends by SMTP, or one that writes files if no server is configured.

    `registry` gets `mails_total{outcome}` of the mails sent by SMTP.
    """
    return SmtpMailer(settings, registry=registry) if settings.smtp_url else FolderMailer(settings)

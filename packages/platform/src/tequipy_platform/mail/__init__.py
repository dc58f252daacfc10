"""Mail: by SMTP or into a folder, and its templates; the ports are `tequipy_platform.Mailer` and `MailTemplates`."""

from prometheus_client import CollectorRegistry

from tequipy_platform.mail.folder import FolderMailer
from tequipy_platform.mail.settings import MailSettings
from tequipy_platform.mail.smtp import SmtpMailer
from tequipy_platform.mail.template_check import refuse_broken_templates
from tequipy_platform.mail.templates import JinjaMailTemplates, build_mail_templates

__all__ = [
    "FolderMailer",
    "JinjaMailTemplates",
    "MailSettings",
    "SmtpMailer",
    "build_mail_templates",
    "build_mailer",
    "refuse_broken_templates",
]


def build_mailer(settings: MailSettings, *, registry: CollectorRegistry | None = None) -> SmtpMailer | FolderMailer:
    """Return a mailer that sends by SMTP, or one that writes files if no server is configured.

    `registry` gets `mails_total{outcome}` of the mails sent by SMTP.
    """
    return SmtpMailer(settings, registry=registry) if settings.smtp_url else FolderMailer(settings)

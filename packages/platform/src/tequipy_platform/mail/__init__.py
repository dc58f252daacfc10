"""Mail: by SMTP or into a folder, and its templates; the ports are `tequipy_platform.Mailer` and `MailTemplates`.

Jinja and aiosmtplib are imported with what uses them, because most processes only read the settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from tequipy_platform.mail.settings import MailSettings
from tequipy_platform.mail.template_check import refuse_broken_templates
from tequipy_platform.mail.templates import JinjaMailTemplates, build_mail_templates

if TYPE_CHECKING:
    from tequipy_platform.mail.folder import FolderMailer
    from tequipy_platform.mail.mailer import build_mailer
    from tequipy_platform.mail.smtp import SmtpMailer
else:
    _MODULES: Final = {"FolderMailer": "folder", "SmtpMailer": "smtp", "build_mailer": "mailer"}

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FolderMailer",
    "JinjaMailTemplates",
    "MailSettings",
    "SmtpMailer",
    "build_mail_templates",
    "build_mailer",
    "refuse_broken_templates",
]

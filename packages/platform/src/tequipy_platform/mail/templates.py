"""Rendering of mail templates by Jinja, which is imported with the first mail, because the API renders none."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tequipy_platform._mail import MailTemplates, MailText
from tequipy_platform.mail.composer import read_sender
from tequipy_platform.mail.settings import MailSettings

if TYPE_CHECKING:
    from tequipy_platform.mail.jinja import TemplateEnvironment


class JinjaMailTemplates(MailTemplates):
    """Renders a package's mail templates in a sandbox; a template that names a missing value is an error.

    `<name>.txt` has the blocks `subject` and `text`. The optional `<name>.html` is the HTML text; its values are
    escaped, and it also gets `subject`. All get `sender_name`. `samples.json` has sample values for each template.

    With `replacements` a file `<package>/<name>` in that folder replaces the package's template, and one directly in
    it replaces a file of the layout; `{% extends "original/<name>" %}` extends what is replaced.
    """

    def __init__(
        self,
        package_name: str,
        folder: str = "templates",
        *,
        replacements: Path | None = None,
        sender_name: str = "",
    ) -> None:
        self.package_name = package_name
        self._folder = folder
        self._replacements = replacements
        self._sender_name = sender_name

    def render(self, template: str, **values: object) -> MailText:
        """Render a template; raises `LookupError` if it is unknown, cannot be read, or names a missing value."""
        return self._environment.render(template, **values)

    def samples(self) -> Mapping[str, Mapping[str, object]]:
        """Return the sample values of each of the package's templates; raises `LookupError` if it declares none."""
        return self._environment.samples()

    @cached_property
    def _environment(self) -> "TemplateEnvironment":
        from tequipy_platform.mail.jinja import TemplateEnvironment  # noqa: PLC0415 -- as the module says

        return TemplateEnvironment(
            self.package_name, self._folder, replacements=self._replacements, sender_name=self._sender_name
        )


def build_mail_templates(settings: MailSettings, package_name: str) -> JinjaMailTemplates:
    """Return the mail templates of a package, with the replacements and the sender's name of a deployment."""
    sender_name, _ = read_sender(settings.sender)
    return JinjaMailTemplates(package_name, replacements=settings.templates, sender_name=sender_name)

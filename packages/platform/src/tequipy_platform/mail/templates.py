"""Rendering of mail templates by Jinja."""

from collections.abc import Mapping

from jinja2 import (
    Environment,
    PackageLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    select_autoescape,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tequipy_platform._mail import MailTemplates, MailText


class JinjaMailTemplates(MailTemplates):
    """Renders a package's mail templates in a sandbox; a template that names a missing value is an error.

    `<name>.txt` has the blocks `subject` and `text`. The optional `<name>.html` is the HTML text; its values are
    escaped.
    """

    def __init__(self, package_name: str, folder: str = "templates") -> None:
        self._environment: Environment = ImmutableSandboxedEnvironment(
            loader=PackageLoader(package_name, folder),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"], default=False),
            trim_blocks=True,
        )

    def render(self, template: str, **values: object) -> MailText:
        """Render a template; raises `LookupError` for an unknown template, a missing block or a missing value."""
        try:
            plain = self._environment.get_template(f"{template}.txt")
            html = self._environment.get_or_select_template([f"{template}.html", plain])
            return MailText(
                subject=_block(plain, "subject", values).strip(),
                text=_block(plain, "text", values).strip() + "\n",
                html=html.render(values) if html is not plain else None,
            )
        except TemplateNotFound as error:
            raise LookupError(f"no mail template {template!r}") from error
        except TemplateError as error:
            raise LookupError(f"mail template {template!r}: {error.message}") from error


def _block(template: Template, name: str, values: Mapping[str, object]) -> str:
    if name not in template.blocks:
        raise LookupError(f"mail template {template.name!r} has no block {name!r}")
    return "".join(template.blocks[name](template.new_context(dict(values))))

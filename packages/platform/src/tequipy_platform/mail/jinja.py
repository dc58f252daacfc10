"""The environment in which mail templates are rendered by Jinja."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    select_autoescape,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tequipy_platform._mail import MailText

LAYOUT: Final = PackageLoader("tequipy_platform.mail", "layout")
"""`base.html`, which the HTML templates of all packages extend, and `links.html` with macros for links."""
SAMPLES: Final = "samples.json"
ORIGINAL: Final = "original"
"""The prefix under which a replaced template can extend the one that it replaces."""


class TemplateEnvironment:
    """The templates of one package, its replacements and the layout in a sandbox; see `JinjaMailTemplates`."""

    def __init__(self, package_name: str, folder: str, *, replacements: Path | None, sender_name: str) -> None:
        self._package_name = package_name
        self._own = PackageLoader(package_name, folder)
        originals = ChoiceLoader([self._own, LAYOUT])
        loaders: list[BaseLoader] = [PrefixLoader({ORIGINAL: originals}), originals]
        if replacements is not None:
            # A file directly in the folder replaces the layout alone, and no mail that has its name by chance.
            package_folder, common_folder = (
                FileSystemLoader(replacements / package_name),
                FileSystemLoader(replacements),
            )
            loaders[1:] = [package_folder, self._own, common_folder, LAYOUT]
        self._environment: Environment = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader(loaders),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"], default=False),
            trim_blocks=True,
        )
        self._environment.globals["sender_name"] = sender_name

    def render(self, template: str, **values: object) -> MailText:
        """Render a template; raises `LookupError` if it is unknown, cannot be read, or names a missing value."""
        try:
            blocks = _render_blocks(self._environment.get_template(f"{template}.txt"), values)
            subject, text = blocks["subject"].strip(), blocks["text"].strip() + "\n"
            html = self._html(template)
            return MailText(subject, text, html.render(values | {"subject": subject}) if html else None)
        except KeyError as error:
            raise LookupError(f"mail template {template!r} has no block {error}") from error
        except Exception as error:  # any, because a deployment's own template can do anything
            raise LookupError(f"mail template {template!r}: {_describe(error)}") from error

    def samples(self) -> Mapping[str, Mapping[str, object]]:
        """Return the sample values of each of the package's templates; raises `LookupError` if it declares none."""
        try:
            text, _, _ = self._own.get_source(self._environment, SAMPLES)
        except TemplateNotFound as error:
            raise LookupError(f"{self._package_name} has no {SAMPLES}") from error
        samples: dict[str, dict[str, object]] = json.loads(text)
        return samples

    def _html(self, template: str) -> Template | None:
        try:
            return self._environment.get_template(f"{template}.html")
        except TemplateNotFound:
            return None


def layout_files() -> Sequence[str]:
    """Return the names of the layout's files."""
    return LAYOUT.list_templates()


def _render_blocks(template: Template, values: Mapping[str, object]) -> Mapping[str, str]:
    """Return the text of each block by name, also of those in a template that this one extends."""
    context = template.new_context(dict(values))
    for _ in template.root_render_func(context):
        pass  # running the template adds the blocks of its parents to the context
    return {name: "".join(block[0](context)) for name, block in context.blocks.items()}


def _describe(error: Exception) -> str:
    """Return the fault in one line, with the place of a syntax error."""
    if isinstance(error, TemplateSyntaxError):
        text = f"{error.name}, line {error.lineno}: {error.message}"
    elif isinstance(error, TemplateNotFound):
        text = f"there is no {error.name}"
    elif isinstance(error, TemplateError):
        text = error.message or ""
    else:
        text = type(error).__name__  # without its text, which may quote a value
    return " ".join(text.split())

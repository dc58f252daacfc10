"""The command that shows mails before they are sent."""

import asyncio
from pathlib import Path
from typing import Final

import click

from tequipy_platform import Mail, MailText, MailUnavailable
from tequipy_platform.mail import MailSettings, build_mail_templates, refuse_broken_templates
from tequipy_platform.settings import load_settings, variable_of
from tequipy_worker.catalogue import MAIL_PACKAGES
from tequipy_worker.settings import MailPreviewSettings

RECIPIENT: Final = "ada@example.com"


@click.command("mail-preview")
@click.argument("name", required=False)
@click.option(
    "--into",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write an .eml and an .html file into FOLDER instead; without NAME, of all mails.",
    metavar="FOLDER",
)
def mail_preview(name: str | None, folder: Path | None) -> None:
    """Print the mail NAME with sample values, or the names of all mails.

    Shows the templates in TEQUIPY_MAIL__TEMPLATES; a broken one ends the command with status 78. Reads TEQUIPY_MAIL__*
    alone, and needs no server.
    """
    settings = load_settings(MailPreviewSettings).mail
    refuse_broken_templates(settings, MAIL_PACKAGES, variable=variable_of(MailPreviewSettings, ("mail", "templates")))
    mails = _render_all(settings)
    selected = {full: mail for full, mail in mails.items() if name in {None, full, full.rpartition("/")[2]}}
    if not selected:
        raise click.BadParameter(f"no mail is named {name!r}; there are {', '.join(mails)}", param_hint="NAME")
    if folder is not None:
        _write(selected, folder, settings)
    elif name is None:
        click.echo("\n".join(mails))
    else:
        for mail in selected.values():
            click.echo(f"Subject: {mail.subject}\n\n{mail.text}", nl=False)


def _render_all(settings: MailSettings) -> dict[str, MailText]:
    """Render each mail with its sample values, by `package/name`."""
    return {
        f"{package}/{name}": templates.render(name, **values)
        for package in MAIL_PACKAGES
        for templates in [build_mail_templates(settings, package)]
        for name, values in sorted(templates.samples().items())
    }


def _write(mails: dict[str, MailText], folder: Path, settings: MailSettings) -> None:
    from tequipy_platform.mail import build_mailer  # noqa: PLC0415 -- imports what only processes that send mails need

    mailer = build_mailer(MailSettings(folder=folder, sender=settings.sender))
    try:
        for full, mail in mails.items():
            name = full.replace("/", ".")
            asyncio.run(mailer.send(Mail(RECIPIENT, mail.subject, mail.text, f"<{name}@preview>", html=mail.html)))
            if mail.html is not None:
                (folder / f"{name}.html").write_text(mail.html, encoding="utf-8")
    except (MailUnavailable, OSError) as error:
        raise click.ClickException(f"{folder} cannot be written: {error.__cause__ or error}") from error
    click.echo(f"{folder}: {', '.join(mails)}")

"""`tequipy-worker mail-preview`, and the start of a worker with a deployment's own templates."""

import email
import email.policy
import os
import re
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tequipy_devstack.proving.apps import program
from tequipy_worker.cli import main

Preview = Callable[..., Result]
TEMPLATES = sorted((Path(__file__).parents[3] / "packages").glob("*/src/*/templates/*.txt"))
MAILS = [f"{path.parents[1].name}/{path.stem}" for path in TEMPLATES]
HOW_TO = Path(__file__).parents[3] / "docs/how-to/brand-mails.md"


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preview:
    """Return a function that runs the command without any setting but the given ones."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(main, ["mail-preview", *arguments], env=variables, catch_exceptions=False)

    return run


@pytest.fixture
def brand(tmp_path: Path) -> Path:
    """Return a folder with the templates of the how-to."""
    base, text = re.findall(r"```jinja\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), flags=re.DOTALL)
    folder = tmp_path / "brand"
    (folder / "tequipy_auth").mkdir(parents=True)
    (folder / "base.html").write_text(base)
    (folder / "tequipy_auth/verify_email.txt").write_text(text)
    return folder


def test_without_a_name_all_mails_are_listed(preview: Preview) -> None:
    """The names of all mails are printed, one a line; no setting is required."""
    result = preview()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == MAILS


@pytest.mark.parametrize("name", ["reset_password", "tequipy_auth/reset_password"])
def test_a_mail_is_printed_with_sample_values(preview: Preview, name: str) -> None:
    """Subject and text are printed; the name of the package may be left out."""
    result = preview(name)
    assert result.exit_code == 0
    assert result.stdout.startswith("Subject: Reset your password\n\nHello,\n\n")
    assert "\nhttps://app.example.com/reset-password#token=ev1." in result.stdout


def test_an_unknown_name_is_an_error(preview: Preview) -> None:
    """An unknown name is refused with the known ones."""
    result = preview("birthday")
    assert result.exit_code == 2
    assert f"no mail is named 'birthday'; there are {MAILS[0]}, " in result.stderr


def test_mails_are_written_as_files(preview: Preview, tmp_path: Path) -> None:
    """`--into` writes each mail as the file that a mail program opens, and its HTML for a browser."""
    result = preview("--into", "new/preview", TEQUIPY_MAIL__SENDER="ACME <mail@acme.example>")
    assert result.exit_code == 0
    files = sorted((tmp_path / "new/preview").iterdir())
    assert [file.suffix for file in files].count(".eml") == [file.suffix for file in files].count(".html") == len(MAILS)
    (file,) = (tmp_path / "new/preview").glob("tequipy_auth.verify_email*.eml")
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert (mail["From"], mail["Subject"]) == ("ACME <mail@acme.example>", "Verify your e-mail address")
    html = mail.get_body(("html",))
    assert html is not None
    assert ">ACME</p>" in html.get_content()
    preview("verify_email", "--into", "one")
    assert len(list((tmp_path / "one").iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_an_error(preview: Preview, tmp_path: Path) -> None:
    """A folder that cannot be created ends the command with one line."""
    (tmp_path / "file").touch()
    result = preview("--into", "file/preview")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: file/preview cannot be written: ")


def test_the_templates_of_the_how_to_are_shown(preview: Preview, brand: Path, tmp_path: Path) -> None:
    """The preview has the deployment's frame and subject; what is not replaced stays."""
    result = preview("--into", "preview", TEQUIPY_MAIL__TEMPLATES=str(brand))
    assert (result.exit_code, result.stderr) == (0, "")
    html = {file.stem: file.read_text() for file in (tmp_path / "preview").glob("*.html")}
    assert len(html) == len(MAILS)
    assert all(">ACME</p>" in text and "1 Main Street" in text for text in html.values())
    assert "<title>Welcome to ACME: verify your address</title>" in html["tequipy_auth.verify_email"]
    shown = preview("verify_email", TEQUIPY_MAIL__TEMPLATES=str(brand)).stdout
    assert shown.startswith("Subject: Welcome to ACME: verify your address\n\nHello,\n")


def test_other_settings_are_neither_required_nor_checked(preview: Preview, tmp_path: Path) -> None:
    """In production's environment the command needs no mail server; a wrong setting of mail is reported."""
    (tmp_path / ".env").write_text("TEQUIPY_CELERY__TIME_LIMIT=x\nTEQUIPY_SERVER__DRAIN_PERIOD=5\n")
    assert preview(TEQUIPY_ENVIRONMENT="production", TEQUIPY_DATABASE__URL="wrong").exit_code == 0
    result = preview(TEQUIPY_MAIL__SENDER="nobody")
    assert result.exit_code == os.EX_CONFIG
    assert result.stderr.startswith("TEQUIPY_MAIL__SENDER: ")


@pytest.mark.parametrize("command", ["run", "mail-preview"])
def test_a_broken_template_ends_the_command(command: str, brand: Path, tmp_path: Path) -> None:
    """A worker whose own templates cannot be rendered ends with status 78 and a line for each mail, before any task."""
    (brand / "base.html").write_text("{% block text %}")
    settings = {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://ada@127.0.0.1:1/tequipy",
        "TEQUIPY_CACHE__URL": "redis://127.0.0.1:1/0",
        "TEQUIPY_CELERY__BROKER_URL": "redis://127.0.0.1:1/1",
        "TEQUIPY_MAIL__TEMPLATES": str(brand),
    }
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("TEQUIPY_")}
    arguments: list[str | Path] = [program("tequipy-worker"), command]
    result = subprocess.run(
        arguments, env=inherited | settings, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == os.EX_CONFIG
    lines = result.stderr.splitlines()
    assert len(lines) == len(MAILS)
    starts = [
        f"TEQUIPY_MAIL__TEMPLATES: {package}: mail template {name!r}: "
        for package, _, name in (mail.partition("/") for mail in MAILS)
    ]
    assert [start for start in starts if not any(line.startswith(start) for line in lines)] == []

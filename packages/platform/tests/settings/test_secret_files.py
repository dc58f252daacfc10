"""Values that are read from files, as Docker and Kubernetes mount secrets."""

import os
from pathlib import Path

import pytest

from tequipy_platform.settings import load_settings

from .example_settings import GOOD, SECRET, ExampleSettings, load, refused

pytestmark = pytest.mark.usefixtures("environment")

URL = "TEQUIPY_DATABASE__URL"
FILE = f"{URL}__FILE"
NOBODY = 65534


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"], ids=repr)
def test_a_file_gives_the_value_without_newlines_at_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    """`NAME__FILE` names a file with the value of NAME; newlines at its end, as `openssl` adds one, are not."""
    (tmp_path / "url").write_bytes((GOOD[URL] + end).encode())
    settings = load(monkeypatch, **{URL: None, FILE: str(tmp_path / "url")})
    assert settings.database.url.get_secret_value() == GOOD[URL]


def test_a_file_may_hold_any_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parts of mappings, JSON, app-wide values and further names of a section are read from files, also by links."""
    for name, text in {"whole": '["one", "two"]', "part": "3", "name": "named", "rate": "1/1"}.items():
        (tmp_path / f"..{name}").write_text(f"{text}\n")
        (tmp_path / name).symlink_to(f"..{name}")  # as Kubernetes mounts them
    settings = load(
        monkeypatch,
        TEQUIPY_LIMITS__SECRETS__FILE=str(tmp_path / "whole"),
        TEQUIPY_LIMITS__POLICIES__LOGIN__FILE=str(tmp_path / "part"),
        TEQUIPY_APP_NAME__FILE=str(tmp_path / "name"),
        tequipy_rate_limits__login__file=str(tmp_path / "rate"),
    )
    assert [each.get_secret_value() for each in settings.limits.secrets] == ["one", "two"]
    assert (settings.limits.policies, settings.app_name) == ({"login": 3}, "named")
    assert settings.rate_limits.model_extra == {"login": "1/1"}


def test_the_env_file_may_name_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` may hold such a name too; an exported variable overrides it."""
    (tmp_path / "name").write_text("from the file")
    Path(".env").write_text("TEQUIPY_APP_NAME__FILE=name\n")
    assert load(monkeypatch).app_name == "from the file"
    assert load(monkeypatch, TEQUIPY_APP_NAME="exported").app_name == "exported"


@pytest.mark.parametrize("place", ["environment", "env file"])
def test_each_fault_of_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    """An absent, empty or unreadable file is one line with variable and reason, without path and content."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin-1").write_bytes(f"{SECRET}\xe9".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    wrong = {
        f"{SECRET}/absent": "the file cannot be read: No such file or directory",
        str(tmp_path / "empty" / SECRET): "the file cannot be read: Not a directory",
        str(tmp_path / "empty"): "the file is empty",
        str(tmp_path / "latin-1"): "should name a file of UTF-8 text",
        str(tmp_path): "should name a regular file",
        str(tmp_path / "pipe"): "should name a regular file",
    }
    for path, message in wrong.items():
        changes: dict[str, str | None] = {URL: None}
        if place == "environment":
            changes[FILE] = path
        else:
            Path(".env").write_text(f"{FILE}={path}\n")
        assert refused(monkeypatch, capsys, **changes) == [f"{FILE}: {message}"]


def test_a_file_without_the_right_to_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file that another user owns, as a secret that is mounted for root, is named with the reason."""
    (tmp_path / "url").touch(mode=0)
    changes = {URL: None, FILE: str(tmp_path / "url")}
    monkeypatch.chdir("/")  # which every user may read
    user = os.geteuid()
    try:
        if user == 0:  # root may read every file
            os.seteuid(NOBODY)
        assert refused(monkeypatch, capsys, **changes) == [f"{FILE}: the file cannot be read: Permission denied"]
    finally:
        os.seteuid(user)


def test_a_wrong_value_in_a_file_is_reported_like_any_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The line names the setting and not the value."""
    (tmp_path / "url").write_text(f"mysql://ada:{SECRET}@h/d\n")
    changes = {URL: None, FILE: str(tmp_path / "url")}
    assert refused(monkeypatch, capsys, **changes) == [f"{URL}: URL scheme should be postgresql+asyncpg"]


def test_a_value_beside_its_file_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nobody has to know which of the two counts."""
    (tmp_path / "url").write_text(GOOD[URL])
    changes = {FILE: str(tmp_path / "url")}
    assert refused(monkeypatch, capsys, **changes) == [f"{FILE}: is set together with {URL}: set one of them"]


def test_files_of_other_apps_are_not_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A shared environment may name a file that only the other app's container has."""
    load(monkeypatch, TEQUIPY_CELERY__BROKER_URL__FILE="/run/secrets/none")
    load_settings(ExampleSettings, strict=True)
    assert capsys.readouterr().err == ""


def test_a_misspelt_name_gets_a_hint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no setting has is a warning with the nearest name, suffix included, and its file is not read."""
    load(monkeypatch, TEQUIPY_DATABASE__ULR__FILE="/none", TEQUIPY_DATABSE__URL__FILE="/none")
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"warning: TEQUIPY_DATABASE__ULR__FILE: unknown name; did you mean {FILE}?",
        f"warning: TEQUIPY_DATABSE__URL__FILE: unknown name; did you mean {FILE}?",
    ]

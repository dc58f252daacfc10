"""Display of the settings in force: masked secrets, where each value comes from, and what it means."""

import re
from pathlib import Path

import pytest

from tequipy_platform.settings import describe_settings, explain_settings

from .example_settings import SECRET, load

pytestmark = pytest.mark.usefixtures("environment")


def origins(lines: list[str]) -> dict[str, str]:
    """Return where the value of each setting comes from."""
    text = "\n".join(lines)
    return dict(re.findall(r"^(TEQUIPY_\w+)=.*\n    From: (.*?)\. Default: ", text, re.MULTILINE))


def test_effective_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description has a line for every variable, defaults included, and masks all secrets, nested ones too."""
    keys = {"TEQUIPY_STORAGE__ACCESS_KEY_ID": SECRET, "TEQUIPY_STORAGE__SECRET_ACCESS_KEY": SECRET}
    settings = load(monkeypatch, TEQUIPY_LIMITS__SECRETS=f'["{SECRET}"]', **keys)
    lines = describe_settings(settings)
    assert "TEQUIPY_ENVIRONMENT=test" in lines
    assert "TEQUIPY_DATABASE__URL=**********" in lines
    assert "TEQUIPY_DATABASE__POOL_SIZE=5" in lines
    assert "TEQUIPY_DATABASE__DIRECT_URL=null" in lines
    assert 'TEQUIPY_LIMITS__SECRETS=["**********"]' in lines
    assert "TEQUIPY_LIMITS__LIFETIMES__IDLE=60" in lines
    assert "TEQUIPY_LIMITS__LIFETIMES__TRIES=3" in lines
    assert not any(SECRET in line for line in [*lines, *explain_settings(settings)])


def test_names_that_an_app_declares_are_shown_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate in force of every policy is shown, also of those that nobody has set."""
    settings = load(monkeypatch, TEQUIPY_RATE_LIMITS__LOGIN="1/1")
    for lines in (describe_settings(settings), explain_settings(settings)):
        assert [line for line in lines if line.startswith("TEQUIPY_RATE")] == [
            "TEQUIPY_RATE_LIMITS__DEFAULT=600/60",
            "TEQUIPY_RATE_LIMITS__LOGIN=1/1",
            "TEQUIPY_RATE_LIMITS__REGISTER=60/60",
        ]


def test_each_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value comes from the environment, from `.env`, from a file that either names, or is the default."""
    for name, text in {
        "sender": "Ada <ada@example.com>",
        "limits": '{"login": 3}',
        "storage": '{"timeout": 5}',
    }.items():
        (tmp_path / name).write_text(text)
    Path(".env").write_text(
        "TEQUIPY_APP_NAME=of the file\nTEQUIPY_APP_VERSION=1\nTEQUIPY_STORAGE__FILE=storage\n"
        'TEQUIPY_DATABASE__POOL_SIZE=6\nTEQUIPY_LIMITS__LIFETIMES={"idle": 5}\n'
    )
    settings = load(
        monkeypatch,
        TEQUIPY_APP_NAME="exported",
        TEQUIPY_MAIL__SENDER__FILE="sender",
        TEQUIPY_LIMITS__POLICIES__FILE="limits",
        TEQUIPY_RATE_LIMITS__LOGIN="1/1",
    )
    found = origins(explain_settings(settings))
    assert set(found) == {line.partition("=")[0] for line in describe_settings(settings)}
    assert {name: place for name, place in found.items() if place != "default"} == {
        "TEQUIPY_APP_NAME": "environment",
        "TEQUIPY_APP_VERSION": ".env",
        "TEQUIPY_ENVIRONMENT": "environment",
        "TEQUIPY_PUBLIC_URL": "environment",
        "TEQUIPY_DATABASE__URL": "environment",
        "TEQUIPY_DATABASE__POOL_SIZE": ".env",
        "TEQUIPY_STORAGE__TIMEOUT": "file (TEQUIPY_STORAGE__FILE)",
        "TEQUIPY_MAIL__SENDER": "file (TEQUIPY_MAIL__SENDER__FILE)",
        "TEQUIPY_LIMITS__POLICIES": "file (TEQUIPY_LIMITS__POLICIES__FILE)",
        "TEQUIPY_LIMITS__LIFETIMES__IDLE": ".env",
        "TEQUIPY_RATE_LIMITS__LOGIN": "environment",
    }


def test_an_explanation_has_type_default_meaning_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below its value stand the setting's origin, default, type with bounds, docstring and rule for production."""
    lines = explain_settings(load(monkeypatch))
    start = lines.index("TEQUIPY_STORAGE__URL=file:///var/lib/tequipy/objects")
    assert lines[start + 1] == "    From: default. Default: `file:///var/lib/tequipy/objects`. Type: text."
    assert "`s3://bucket` or `s3://bucket/prefix`" in lines[start + 2]
    text = "\n".join(lines)
    assert "    Production: memory:// is refused in production: it ends with the process." in text
    assert "Type: integer, at least 1.\n    The number of connections that the pool keeps." in text
    assert "Type: seconds, at least 1." in text
    assert max(map(len, lines)) <= 110

"""The settings of rate limits: policies by name, and errors of one line."""

import os
from pathlib import Path

import pytest
from pydantic import Field

from tequipy_caching.api import (
    Rate,
    RateLimitSettings,
    declared_rates,
)
from tequipy_platform.settings import AppSettings, describe_settings, load_settings


class Settings(RateLimitSettings):
    names = declared_rates({"login": ("60/60", ())})


class ExampleSettings(AppSettings):
    """Settings of an app with rate limits."""

    rate_limits: Settings = Field(default_factory=Settings)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return an environment that has only what an app needs."""
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEQUIPY_ENVIRONMENT", "test")
    monkeypatch.setenv("TEQUIPY_PUBLIC_URL", "https://app.example.com")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_rates_are_named_by_their_policies(environment: pytest.MonkeyPatch) -> None:
    """A configured rate overrides the feature's default, `off` disables a limit, and the description shows both."""
    environment.setenv("TEQUIPY_RATE_LIMITS__LOGIN", "5/10")
    environment.setenv("TEQUIPY_RATE_LIMITS__DEFAULT", "off")
    settings = load_settings(ExampleSettings)
    rates = settings.rate_limits
    assert (rates.rate("login", "60/60"), rates.rate("default", rates.default)) == (Rate(5, 10), None)
    assert rates.rate("refresh", "120/60") == Rate(120, 60)
    lines = describe_settings(settings)
    assert {"TEQUIPY_RATE_LIMITS__DEFAULT=off", "TEQUIPY_RATE_LIMITS__LOGIN=5/10"} <= set(lines)


RATE = "should be requests/seconds as 600/60, or off"
EXACT_RATE = "should be a rate that can be counted exactly, as 600/60"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("DEFAULT", "s3cret", RATE),
        ("LOGIN", "0/60", RATE),
        ("LOGIN", "60", RATE),
        ("LOGIN", "99999/53243", EXACT_RATE),
        ("DEFAULT", "99999/53243", EXACT_RATE),
    ],
)
def test_a_wrong_rate_is_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, line: str
) -> None:
    """A wrong rate ends the process with 78 and one line that names the variable and not its value."""
    environment.setenv(f"TEQUIPY_RATE_LIMITS__{name}", value)
    with pytest.raises(SystemExit) as exit_:
        load_settings(ExampleSettings)
    assert exit_.value.code == os.EX_CONFIG
    assert capsys.readouterr().err == f"TEQUIPY_RATE_LIMITS__{name}: {line}\n"


@pytest.mark.parametrize(("name", "meant"), [("DEFOULT", "DEFAULT"), ("LOGINN", "LOGIN")])
def test_a_misspelt_policy_gets_a_suggestion(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, meant: str
) -> None:
    """The name of a policy that no feature declares is a warning when exported, and a fault in `.env`."""
    hint = f"TEQUIPY_RATE_LIMITS__{name}: unknown name; did you mean TEQUIPY_RATE_LIMITS__{meant}?\n"
    with environment.context() as exported:
        exported.setenv(f"TEQUIPY_RATE_LIMITS__{name}", "1/1")
        load_settings(ExampleSettings)
        assert capsys.readouterr().err == f"warning: {hint}"
    Path(".env").write_text(f"TEQUIPY_RATE_LIMITS__{name}=1/1\n")
    with pytest.raises(SystemExit) as exit_:
        load_settings(ExampleSettings)
    assert exit_.value.code == os.EX_CONFIG
    assert capsys.readouterr().err in {hint, hint.replace("unknown name", "unknown name in .env")}

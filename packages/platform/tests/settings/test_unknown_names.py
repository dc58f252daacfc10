"""Names that no setting has: a warning if exported, a fault in `.env`; and names that are no fault."""

import os
from pathlib import Path

import pytest

from tequipy_platform.settings import load_settings

from .example_settings import SECRET, ExampleSettings, load, refused

pytestmark = pytest.mark.usefixtures("environment")


def test_env_file_serves_both_apps_and_refuses_typos(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`.env` may hold names of the other app, the local stack and other programs; a misspelt name gets a suggestion."""
    env_file = Path(".env")
    env_file.write_text("TEQUIPY_CELERY__BROKER_URL=x\nTEQUIPY_DEV_PORT=1\nPATH_OF_OTHERS=x\ntequipy_app_name=named\n")
    assert load(monkeypatch).app_name == "named"
    env_file.write_text(f"TEQUIPY_DATABSE__POOL_SIZE={SECRET}\n")
    assert refused(monkeypatch, capsys) == [
        "TEQUIPY_DATABSE__POOL_SIZE: unknown name in .env; did you mean TEQUIPY_DATABASE__POOL_SIZE?"
    ]


UNKNOWN = [
    ("TEQUIPY_DATABASE__ULR", "; did you mean TEQUIPY_DATABASE__URL?"),
    ("TEQUIPY_LIMITS__LIFETIMES__IDEL", "; did you mean TEQUIPY_LIMITS__LIFETIMES__IDLE?"),
    ("TEQUIPY_LIMITS__TRIES", ""),
    ("TEQUIPY_MAIL__XYZ", ""),
    ("TEQUIPY_RATE_LIMIT__LOGIN", "; did you mean TEQUIPY_RATE_LIMITS__LOGIN?"),
    ("TEQUIPY_OBSERVABILTY__LOG_LEVEL", "; did you mean TEQUIPY_OBSERVABILITY__LOG_LEVEL?"),
    ("TEQUIPY_ZZZZZZ", ""),
]


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_an_unknown_exported_name_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """An unknown exported name is one warning with the nearest name and without the value; nothing is refused."""
    load(monkeypatch, **{name: SECRET})
    assert capsys.readouterr().err == f"warning: {name}: unknown name{hint}\n"


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_a_strict_check_refuses_an_unknown_exported_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """`settings --check` reports the same line and ends with status 78."""
    load(monkeypatch, **{name: SECRET})
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        load_settings(ExampleSettings, strict=True)
    assert exit_.value.code == os.EX_CONFIG
    assert capsys.readouterr().err == f"{name}: unknown name{hint}\n"


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_an_unknown_name_in_the_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """An unknown name in `.env` is a fault, because the file is written for this release."""
    Path(".env").write_text(f"{name}={SECRET}\n")
    (line,) = refused(monkeypatch, capsys)
    assert line in {f"{name}: unknown name{hint}", f"{name}: unknown name in .env{hint}"}


KUBERNETES = {
    f"TEQUIPY_{service}_{name}": value
    for service in ("API", "WORKER", "API_METRICS", "DATABASE")
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
    }.items()
}


def test_variables_of_kubernetes_are_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variables of Kubernetes Services named tequipy-api or tequipy-worker neither warn nor fail a strict check."""
    load(monkeypatch, **KUBERNETES)
    load_settings(ExampleSettings, strict=True)
    assert capsys.readouterr().err == ""


def test_known_names_warn_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of the other app and the local stack, keys of mappings and names in any case pass the strict check."""
    names = {"TEQUIPY_CELERY__X": "x", "TEQUIPY_DEV_PORT": "1", "TEQUIPY_LIMITS__POLICIES__A": "1"}
    names |= {"tequipy_app_name": "named", "TEQUIPY_RATE_LIMITS__LOGIN": "1/1"}
    load(monkeypatch, **names)
    assert load_settings(ExampleSettings, strict=True).app_name == "named"
    assert capsys.readouterr().err == ""

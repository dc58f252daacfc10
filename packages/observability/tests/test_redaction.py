"""Redaction: no secret is written, whether its form, its name or the name of its field tells it."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tequipy_observability import redacted

from .log_lines import Lines

pytestmark = pytest.mark.usefixtures("restored_logging")

SECRETS = {
    "jwt": "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "device": f"dv2.{'0a' * 16}.0.1801526400.{'b' * 22}.{'1c' * 16}",
    "refresh": f"rt1.{'a' * 22}.{'b' * 43}",
    "link": f"ev1.{'a' * 22}.{'b' * 43}",
    "url": "postgresql://ada:hunter2hunter2@db/app",
    "url with @": "redis://:hunter@hunter2@cache/0",
    "at the start of a line": f"the token is\nrt1.{'a' * 22}.{'b' * 43}",
    "header": "Bearer c2VjcmV0c2VjcmV0",
    "jwt cut off": "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIxIn0",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_what_looks_like_a_secret_is_not_written(lines: Lines, secret: str) -> None:
    """Tokens and passwords in URLs are redacted in messages, fields, nested values and tracebacks."""
    logger = logging.getLogger("careless")
    logger.error("saw %s", secret, extra={"field": secret, "deep": {"er": [secret]}})
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")
    written = json.dumps(lines())
    assert secret not in written
    assert "hunter2" not in written
    assert "[redacted]" in written


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "bad password: hunter2!",
        "{'new_password': 'hunter2 too'}",
        '{"api_key": "hunter2 too"}',
        "input_value={'token': 'hunter2'}",
        "GET https://host/?a=b&access_token=hunter2&c=d",
        "X-Api-Key: hunter2",
    ],
)
def test_a_secret_with_its_name_is_not_written(lines: Lines, text: str) -> None:
    """In messages, fields and tracebacks, values after a secret's name are redacted, and the rest stays."""
    logging.getLogger("careless").error("saw %s", text, extra={"field": text})
    try:
        raise ValueError(text)
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
    for line in lines():
        assert "hunter2" not in json.dumps(line)
        assert "[redacted]" in json.dumps(line)
    assert str(line["exception"]).startswith("Traceback")


def test_secret_fields_are_not_written_whatever_their_value(lines: Lines) -> None:
    """A field whose name is that of a secret is redacted at any depth."""
    structlog.get_logger().info("login", password="hunter2", body={"new_password": "hunter2", "Set-Cookie": "hunter2"})
    (line,) = lines()
    assert "hunter2" not in json.dumps(line)
    assert line["password"] == "[redacted]"


def test_output_that_is_no_log_is_redacted_likewise() -> None:
    """`redacted` replaces secrets by name and by form, at any depth; times and ids are written as usual in JSON."""
    row = {"error": 'refused: {"token": "hunter2"}, password=hunter2', "payload": {"token": "hunter2", "word": "a\nb"}}
    shown = json.loads(redacted(row | {"id": UUID(int=1), "at": datetime(2026, 1, 31, tzinfo=UTC)}))
    assert "hunter2" not in json.dumps(shown)
    assert shown["payload"] == {"token": "[redacted]", "word": "a\nb"}
    assert (shown["id"], shown["at"]) == ("00000000-0000-0000-0000-000000000001", "2026-01-31T00:00:00+00:00")


def test_secrets_of_objects_are_not_written(lines: Lines) -> None:
    """Dataclasses are redacted by their field names, and a value that contains itself is cut off."""

    @dataclass
    class Account:
        name: str
        password_hash: str

    endless: list[object] = [Account("ada", "hunter2")]
    endless.append(endless)
    structlog.get_logger().info("saved", account=Account("ada", "hunter2"), accounts={"all": [Account("a", "hunter2")]})
    logging.getLogger("a").info("saved", extra={"endless": endless})
    saved, holding_itself = lines()
    assert saved["account"] == {"name": "ada", "password_hash": "[redacted]"}
    assert "hunter2" not in json.dumps(saved)
    assert holding_itself["message"] == "saved"


def test_a_traceback_shows_no_locals(lines: Lines) -> None:
    """A traceback does not show the values of variables."""
    innocent_name = "hunter2"
    try:
        raise RuntimeError(str(len(innocent_name)))
    except RuntimeError:
        logging.getLogger("a").exception("failed")
    (line,) = lines()
    assert "RuntimeError: 7" in str(line["exception"])
    assert "hunter2" not in str(line["exception"]).replace('innocent_name = "hunter2"', "")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_redacted_text_holds_no_secret(secret: str) -> None:
    """`redacted` replaces what a log line would replace: forms of secrets, named values and fields, at any depth."""
    for value in (secret, {"seen": [secret]}, {"password": "hunter2hunter2"}, f"password={secret}"):
        text = redacted(value)
        assert "[redacted]" in text
        assert secret not in text
        assert "hunter2" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(JSON)
def test_any_value_can_be_redacted(value: object) -> None:
    """Whatever the value, the text is one line of printable ASCII."""
    text = redacted(value)
    assert text.isascii()
    assert text.isprintable()


def test_a_value_that_cannot_be_shown_is_named() -> None:
    """A repr that fails, or a key that is no text, gives a text about the value."""

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    assert redacted([Silent()]) == '"a list that cannot be shown"'
    assert redacted({("a",): 1}) == '"a dict that cannot be shown"'

"""Logging: every event becomes one line of JSON without secrets."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tequipy_observability import RequestContext, request_context
from tequipy_observability.logging.configuration import MAX_LINE_BYTES, Process, configure_logging, render_json

Lines = Callable[[], list[dict[str, object]]]

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


def test_own_and_foreign_events_share_one_form(lines: Lines) -> None:
    """Events of structlog and stdlib, with their extra fields, have the same form and appear once."""
    with request_context(RequestContext(correlation_id="abc", task_name="auth.send_mail")):
        structlog.get_logger(logger_name="own").info("hello", answer=42)
        logging.getLogger("foreign").warning("hello %s", "you", extra={"answer": 43})
    own, foreign = lines()
    assert (own["message"], own["level"], own["logger"], own["answer"]) == ("hello", "INFO", "own", 42)
    assert (foreign["message"], foreign["level"], foreign["answer"]) == ("hello you", "WARNING", 43)
    for line in (own, foreign):
        assert (line["correlation_id"], line["task_name"]) == ("abc", "auth.send_mail")
        assert (line["service"], line["environment"], line["version"]) == ("test", "test", "1.0")
        assert str(line["timestamp"]).endswith("Z")


LIBRARIES = ("uvicorn.error", "sqlalchemy.engine.Engine", "celery.worker", "alembic.runtime.migration", "httpx")


def test_libraries_are_logged_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Libraries with handlers of their own and warnings are logged once in our form; the access log is silent."""
    given = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.access", "celery", "sqlalchemy")]
    for logger in given:
        logger.addHandler(logging.StreamHandler(sys.stdout))
    configure_logging(Process("test", "test", "1.0"), level="INFO", style="json")
    for name in LIBRARIES:
        logging.getLogger(name).warning("said by %s", name)
    logging.getLogger("uvicorn.access").info("GET / 200")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    *said, warned = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert [(line["message"], line["logger"]) for line in said] == [(f"said by {name}", name) for name in LIBRARIES]
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert "DeprecationWarning: old" in str(warned["message"])


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


def test_a_value_that_cannot_be_shown_breaks_nothing(lines: Lines) -> None:
    """An object whose repr raises is shown by the name of its type, in messages and fields."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    structlog.get_logger().info(Shy(), field=Shy())
    (line,) = lines()
    assert line["message"] == line["field"] == "<Shy whose repr raised RuntimeError>"


def test_the_trace_is_logged_by_its_ids(lines: Lines) -> None:
    """A traceparent is logged as `trace_id` and `span_id`."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with request_context(RequestContext(traceparent=traceparent)):
        structlog.get_logger().info("hello")
    (line,) = lines()
    assert (line["trace_id"], line["span_id"]) == (traceparent[3:35], traceparent[36:52])


def test_a_forged_newline_stays_in_its_string(lines: Lines) -> None:
    """A newline from a client does not start a new line."""
    forged = 'x\n{"level": "INFO", "message": "admin logged in"}'
    logging.getLogger("a").warning("login of %s", forged)
    assert [line["message"] for line in lines()] == [f"login of {forged}"]


def test_an_event_cannot_overwrite_the_line(lines: Lines) -> None:
    """An event's field cannot replace a field that every line has."""
    structlog.get_logger(logger_name="a").info("m", service="forged", timestamp="forged", level="forged")
    (line,) = lines()
    assert (line["service"], line["level"]) == ("test", "INFO")
    assert line["timestamp"] != "forged"


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


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()


@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS), max_size=5))
def test_anything_becomes_one_line_of_json(fields: dict[str, object]) -> None:
    """Surrogates, NaN, huge integers and bytes give a line of valid JSON and never an exception."""
    line = render_json({"timestamp": "now", "message": "m", **fields})
    assert b"\n" not in line
    json.loads(line)


@pytest.mark.parametrize(
    "value",
    ["x" * 100_000, ["x" * 1000] * 100, {"k": "\0" * 50_000}, "eyJ." * 30_000, "password" * 10_000],
    ids=["text", "list", "escaped", "like tokens", "like names"],
)
def test_a_long_line_is_shortened_and_says_so(value: object) -> None:
    """No line exceeds 16 KiB, and a shortened one is valid JSON."""
    line = render_json({"message": "m", "a": value, "b": value})
    assert len(line) <= MAX_LINE_BYTES
    assert json.loads(line)["truncated"] > MAX_LINE_BYTES


def test_a_line_of_many_fields_is_shortened_too() -> None:
    """If there are many short fields, the first ones are kept."""
    line = render_json({"timestamp": "now", "message": "m"} | {f"{number}{'n' * 200}": 1 for number in range(2000)})
    assert len(line) <= MAX_LINE_BYTES
    assert json.loads(line)["message"] == "m"


def test_a_broken_pipe_breaks_nothing() -> None:
    """A process whose standard output has lost its reader continues."""
    program = """
import logging, os, sys
from tequipy_observability.logging.configuration import Process, configure_logging
configure_logging(Process("test", "test", "1"), level="INFO", style="json")
reader, writer = os.pipe(); os.dup2(writer, 1); os.close(reader); os.close(writer)
for _ in range(3):
    logging.getLogger("a").info("hello")
sys.stderr.write("alive")
os._exit(0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == "alive"


def test_a_process_without_standard_output_goes_on() -> None:
    """A process started with a closed standard output (`>&-`), where `sys.stdout` is None, continues without logs."""
    program = """
import logging, sys, structlog
from tequipy_observability.logging.configuration import Process, configure_logging
assert sys.stdout is None
for style in ("json", "console"):
    configure_logging(Process("test", "test", "1"), level="INFO", style=style)
    structlog.get_logger().info("hello")
    logging.getLogger("a").info("hello")
sys.stderr.write("alive")
"""
    result = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stderr == "alive"


class _Raising(io.StringIO):
    def write(self, _: str) -> int:
        raise RuntimeError


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream", [None, object(), _closed(), _Raising(), io.BytesIO()], ids=["none", "object", "closed", "raises", "bytes"]
)
def test_no_stream_makes_logging_raise(lines: Lines, stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging raises nothing, whatever object replaces standard output."""
    monkeypatch.setattr(sys, "stdout", stream)
    structlog.get_logger().info("hello")
    logging.getLogger("a").info("hello")
    monkeypatch.undo()
    structlog.get_logger().info("back")
    assert [line["message"] for line in lines()] == ["back"]


def test_a_stream_of_text_gets_the_lines(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text stream without a binary buffer, as `contextlib.redirect_stdout` may install, gets the lines as text."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    structlog.get_logger().info("hello ä")
    assert json.loads(stream.getvalue())["message"] == "hello ä"
    assert lines() == []


class _Unreadable(dict[str, str]):
    def items(self) -> NoReturn:
        raise RuntimeError


def test_an_event_that_cannot_be_rendered_is_a_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong format, a failing field and an invalid `exc_info` each give `log_event_failed` without arguments."""
    configure_logging(Process("test", "test", "1.0"), level="INFO", style="json")
    logging.getLogger("a").info("%d", "hunter2")
    structlog.get_logger(logger_name="b").info("saved", field=_Unreadable(a="hunter2"))
    structlog.get_logger(logger_name="c").info("saved", exc_info=(1, "hunter2", 3))
    written, errors = capfd.readouterr()
    found = [json.loads(line) for line in written.splitlines()]
    assert [(line["message"], line["logger"], line["error"]) for line in found] == [
        ("log_event_failed", "a", "TypeError"),
        ("log_event_failed", "b", "RuntimeError"),
        ("log_event_failed", "c", "AttributeError"),
    ]
    assert "hunter2" not in written + errors


def test_the_console_style_is_for_people(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """In console style a line begins with time, level and message, and has the correlation id."""
    configure_logging(Process("test", "local", "1.0"), level="INFO", style="console")
    with request_context(RequestContext(correlation_id="abc")):
        logging.getLogger("a").info("hello", extra={"answer": 42})
    line = capfdbinary.readouterr().out.decode()
    assert "INFO     hello" in line
    assert "correlation_id=abc" in line
    assert "answer=42" in line

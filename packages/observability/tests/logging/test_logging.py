"""Logging: every event becomes one line of JSON, of bounded length, in one form."""

import json
import logging
import sys
import warnings
from typing import NoReturn

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tequipy_observability import RequestContext, request_context
from tequipy_observability.logging import Process, configure_logging
from tequipy_observability.logging.rendering import MAX_LINE_BYTES, render_json

from ..log_lines import Lines

pytestmark = pytest.mark.usefixtures("restored_logging")


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


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "hpack.hpack", "fontTools.subset"])
def test_libraries_that_show_data_are_logged_from_warning(name: str, lines: Lines) -> None:
    """Libraries that log URLs, header fields or the letters of a drawn name at INFO and DEBUG are silent there."""
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(name).log(level, "of a person")
    assert [line["level"] for line in lines()] == ["WARNING"]


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

"""Standard output: logging raises nothing without it, with a broken pipe, or with any object in its place."""

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog

from ..log_lines import Lines

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_a_broken_pipe_breaks_nothing() -> None:
    """A process whose standard output has lost its reader continues."""
    program = """
import logging, os, sys
from tequipy_observability.logging import Process, configure_logging
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
from tequipy_observability.logging import Process, configure_logging
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

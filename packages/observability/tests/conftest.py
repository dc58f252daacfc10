"""Fixtures that configure logging as an app does, and restore pytest's configuration afterwards."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tequipy_observability.logging.configuration import Process, configure_logging

from .log_lines import Lines


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore pytest's logging configuration after the test."""
    logging.captureWarnings(capture=False)  # reset first, because a second call of captureWarnings(True) does nothing
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def lines(
    restored_logging: None,  # noqa: ARG001 -- requested, so that it is torn down last
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Lines:
    """Return a function that returns the lines logged since its last call, as JSON, at level INFO."""
    configure_logging(Process("test", "test", "1.0"), level="INFO", style="json")
    return lambda: [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

"""Logging as an app sets it up, and put back as pytest had it."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from tequipy_observability.infrastructure.logging import Process, configure_logging


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put back what pytest has set up; what an app of another test has captured is let go first."""
    logging.captureWarnings(capture=False)  # else capturing them is taken for done, but pytest has taken them since
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def lines(
    restored_logging: None,  # noqa: ARG001 -- asked for, so that it ends after this one
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Callable[[], list[dict[str, object]]]:
    """Return what has been logged since it was last asked, as JSON, at level INFO."""
    configure_logging(Process("test", "test", "1.0"), level="INFO", style="json")
    return lambda: [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

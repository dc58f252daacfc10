"""A fixture that configures logging as an app does."""

import json

import pytest

from tequipy_observability.logging import Process, access_log, configure_logging

from .log_lines import Lines


@pytest.fixture
def lines(
    restored_logging: None,  # noqa: ARG001 -- requested, so that it is torn down last
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Lines:
    """Return a function that returns the lines logged since its last call, as JSON, at level INFO.

    Those that wait for the end of the event loop's turn are written first.
    """
    configure_logging(Process("test", "test", "1.0"), level="INFO", style="json")

    def written() -> list[dict[str, object]]:
        if (log := access_log()) is not None:
            log.flush()
        return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    return written
